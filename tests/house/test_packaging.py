"""Image, compose file and unit: what can be known of them without running a container."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import stat
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from house.sources import ROOT, tracked_files
from lakehouse.errors import EXIT_CODE, ErrorKind
from lakehouse.node.config import ENV_PREFIX, Config, load_config
from lakehouse.node.roles import missing_contracts, peer_address
from lakehouse.node.settings import ROLES

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
PROFILES: Final = {"all-in-one", "split", "s3", "ollama"}
OURS: Final = "localhost/lakehouse:0.1.0"
PINNED: Final = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.-]+)?(@sha256:[0-9a-f]{64})?")

every_service = pytest.mark.parametrize("name", sorted(SERVICES))


def is_step(service: dict[str, Any]) -> bool:
    """Whether it runs once and ends."""
    return service.get("restart") == "no"


def environment(service: dict[str, Any]) -> dict[str, str]:
    """What a container of the service is given: the image's variables, then its own."""
    found = {}
    if service["image"] == OURS:
        block = re.search(r"^ENV PATH=.*?(?<!\\)\n", DOCKERFILE, re.MULTILINE | re.DOTALL)
        assert block is not None
        found = dict(re.findall(r"([A-Z][A-Z0-9_]*)=(\S+)", block[0]))
    return found | {k: str(v) for k, v in (service.get("environment") or {}).items()}


def config_of(service: dict[str, Any]) -> Config:
    return load_config(None, environment(service))


def roles_of(service: dict[str, Any]) -> tuple[str, ...]:
    """The roles that a node's command runs; () for a step or another program."""
    match service.get("command"):
        case ["up"]:
            return ROLES
        case ["serve", "--roles", roles]:
            return tuple(roles.split(","))
    return ()


def test_the_file_is_a_compose_file() -> None:
    place = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(place.read_text())
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_its_profiles_are_the_four() -> None:
    assert {p for service in SERVICES.values() for p in service["profiles"]} == PROFILES


@every_service
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert not service.get("privileged")
    assert "cap_add" not in service
    assert "pid" not in service
    assert "ipc" not in service
    assert service.get("network_mode", "none") == "none"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    if service["image"] == OURS:
        assert "user" not in service, "the image's own user is not root"
    else:
        uid, _, gid = service["user"].partition(":")
        assert int(uid) > 0
        assert int(gid) > 0


@every_service
def test_images_are_pinned(name: str) -> None:
    service = SERVICES[name]
    assert PINNED.fullmatch(service["image"]), service["image"]
    assert ("build" in service) == (service["image"] == OURS)


@every_service
def test_health_is_checked_wherever_something_stays(name: str) -> None:
    service = SERVICES[name]
    if is_step(service):
        assert service["healthcheck"] == {"disable": True}
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    if check["test"][1].startswith("python"):
        compile(check["test"][3], name, "exec")


@pytest.mark.parametrize("name", [n for n, s in SERVICES.items() if roles_of(s)])
def test_the_health_check_asks_where_the_node_answers(name: str) -> None:
    service = SERVICES[name]
    config = config_of(service)
    with_gateway = "gateway" in roles_of(service)
    place = config.listen.http if with_gateway else config.telemetry.http
    url = re.search(r"http://127\.0\.0\.1:(\d+)/ready", service["healthcheck"]["test"][3])
    assert url is not None
    assert place == f"0.0.0.0:{url[1]}"


@every_service
def test_every_variable_of_ours_is_a_known_key(name: str) -> None:
    service = SERVICES[name]
    if service["image"] != OURS:
        assert not any(key.startswith(ENV_PREFIX) for key in environment(service))
        return
    config = config_of(service)
    assert config.listen.auth == "tokens"
    # What is not below the volume, or the bucket's, could not be written.
    state = Path(environment(service)["XDG_STATE_HOME"])
    assert state.is_relative_to("/var/lib/lakehouse")


@every_service
def test_every_port_is_published_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        host, outside, inside = port.split(":")
        assert host == "127.0.0.1"
        assert outside == inside
        assert inside in ("3100", "3101")


@pytest.mark.parametrize("profile", sorted(PROFILES - {"ollama"}))
def test_a_profile_checks_its_bucket_before_a_node_opens_it(profile: str) -> None:
    here = {name: s for name, s in SERVICES.items() if profile in s["profiles"]}
    doctors = {name for name, s in here.items() if s.get("command") == ["doctor"]}
    assert len(doctors) == 1
    (doctor,) = doctors
    catalog = next(s for s in here.values() if "catalogd" in roles_of(s))
    assert catalog["depends_on"][doctor] == {"condition": "service_completed_successfully"}
    assert config_of(here[doctor]).buckets == config_of(catalog).buckets
    mounted = {volume.rpartition(":")[2]: volume for volume in catalog["volumes"]}
    url = config_of(catalog).buckets["primary"].url
    if url.startswith("file:"):
        checked = here[doctor]["volumes"][0]
        assert checked in catalog["volumes"]
        assert any(url.removeprefix("file://").startswith(place) for place in mounted) or (
            checked.endswith(":/var/lib/lakehouse")
        )


def test_the_split_roles_find_one_another() -> None:
    here = {name: s for name, s in SERVICES.items() if "split" in s["profiles"] and roles_of(s)}
    assert sorted(role for s in here.values() for role in roles_of(s)) == sorted(ROLES)
    for name, service in here.items():
        config = config_of(service)
        roles = roles_of(service)
        assert name == roles[0]
        assert config.node.secret_ref == "env:NODE_TOKEN"
        assert service["env_file"] == ["deploy/secrets/node.env"]
        node = type(config.node)(roles=roles, peers=config.node.peers)
        for contract, needed_by in missing_contracts(node).items():
            host, _, port = peer_address(node, contract, needed_by).partition(":")
            assert host in here
            assert config_of(here[host]).listen.grpc.endswith(f":{port}")


def test_every_node_says_where_it_is_to_whoever_would_take_over() -> None:
    for name, service in SERVICES.items():
        if "catalogd" in roles_of(service):
            assert config_of(service).node.advertise == f"{name}:3101"


@every_service
def test_dependencies_and_volumes_are_there(name: str) -> None:
    service = SERVICES[name]
    for other, how in service.get("depends_on", {}).items():
        assert set(SERVICES[other]["profiles"]) >= set(service["profiles"])
        done = "service_completed_successfully" if is_step(SERVICES[other]) else "service_healthy"
        assert how == {"condition": done}
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        if source.startswith("."):
            assert (ROOT / source).is_file()
        else:
            assert source in COMPOSE["volumes"]


def test_every_volume_is_used() -> None:
    used = {v.partition(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])}
    assert set(COMPOSE["volumes"]) == {source for source in used if not source.startswith(".")}


def test_no_secret_has_a_value_in_these_files() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for service in SERVICES.values():
        for key, value in environment(service).items():
            if re.search(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY", key):
                assert re.fullmatch(r"(env|file):\S+", value), key
    assert not re.search(r"\$\{", text), "a variable with a default would be a secret's default"


def test_secrets_are_made_at_random_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    made = []
    for folder in ("one", "two", "one"):
        command = ["sh", str(ROOT / "deploy" / "secrets.sh"), str(tmp_path / folder)]
        subprocess.run(command, check=True, capture_output=True)
        text = (tmp_path / folder / "s3.env").read_text()
        made.append(dict(line.split("=", 1) for line in text.splitlines()))
        for file in (tmp_path / folder).iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made[0] == made[2] != made[1]
    for keys in made:
        credentials = json.loads(keys["S3_CREDENTIALS"].strip("'"))
        assert credentials["access_key_id"] == keys["S3_ACCESS_KEY"]
        assert credentials["secret_access_key"] == keys["S3_SECRET_KEY"]
        assert len(keys["S3_SECRET_KEY"]) == 40
    files = {f for s in SERVICES.values() for f in s.get("env_file", [])}
    assert {Path(file).name for file in files} == {f.name for f in (tmp_path / "one").iterdir()}
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert all(f"{Path(file).parent}/" in ignored for file in files)


# ---------------------------------------------------------------- the image


def test_the_image_is_built_in_two_stages_from_a_pinned_one() -> None:
    bases = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", DOCKERFILE, re.MULTILINE)
    assert [stage for _, stage in bases] == ["build", ""]
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base, _ in bases)


def test_the_image_runs_as_nobody_and_takes_signals_itself() -> None:
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    # The list form: no shell between the signal and the node.
    entry, command = (
        json.loads(re.search(rf"^{word} (\[.*\])$", last, re.MULTILINE)[1])  # type: ignore[index]
        for word in ("ENTRYPOINT", "CMD")
    )
    assert (entry, command) == (["lakehouse"], ["up"])
    assert "STOPSIGNAL SIGTERM" in last
    assert "EXPOSE 3100 3101" in last
    check = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", last, re.MULTILINE)
    assert check is not None
    compile(json.loads(check[1])[2], "HEALTHCHECK", "exec")


def test_the_image_holds_what_the_lock_says_and_no_tool_of_ours() -> None:
    assert "--require-hashes --only-binary :all: -r deploy/requirements.lock" in DOCKERFILE
    compiled = r"--require-hashes \\\s+--no-build-isolation -r deploy/sources.lock"
    assert re.search(compiled, DOCKERFILE)
    every = _pins(ROOT / "requirements.lock")
    image = _pins(ROOT / "deploy" / "requirements.lock")
    assert len(image) > 30
    assert image.items() <= every.items()
    assert not {"pytest", "mypy", "moto", "hypothesis", "ruff"} & set(image)


def test_what_the_image_copies_is_let_into_its_build() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    let_in = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, rule) for rule in let_in), source
    assert "**/__pycache__" in rules


def _pins(lock: Path) -> dict[str, str]:
    """Package -> its line and hashes, to the letter."""
    found = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)
    return {block.split("==")[0]: block.strip() for block in found if "==" in block}


# ----------------------------------------------------------------- the unit

UNIT: Final = ROOT / "deploy" / "lakehouse.service"


def settings_of(section: str) -> dict[str, list[str]]:
    """Key -> values of a section of the unit."""
    text = UNIT.read_text().split(f"[{section}]\n")[1].split("\n[")[0]
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def test_the_unit_is_one(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        # Where systemd is not, at least every line is one.
        for line in UNIT.read_text().splitlines():
            assert re.fullmatch(r"|#.*|\[\w+\]|[A-Z]\w+=.*", line), line
        return
    # The program is not installed here; everything else must be as systemd wants it.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE)
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = subprocess.run(
        [tool, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_nobodys_and_writes_its_own_folders_only() -> None:
    service = settings_of("Service")
    wanted = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "CapabilityBoundingSet": "",
        "RestrictNamespaces": "yes",
        "StateDirectory": "lakehouse",
        "UMask": "0077",
    }
    assert {key: service[key] for key in wanted} == {key: [v] for key, v in wanted.items()}
    ours = dict(one.split("=", 1) for one in service["Environment"])
    config = load_config(None, {k: v for k, v in ours.items() if k.startswith(ENV_PREFIX)})
    places = {
        key: str(held.value)
        for key, held in config.values.items()
        if key.endswith(("_dir", "_folder", "_path")) and held.value
    }
    assert len(places) >= 4
    places |= {"primary": config.buckets["primary"].url.removeprefix("file://")}
    places |= {"state": ours["XDG_STATE_HOME"]}
    allowed = ("/var/lib/lakehouse/", "/var/cache/lakehouse/")
    assert {key: place for key, place in places.items() if not place.startswith(allowed)} == {}


def test_a_node_that_lost_its_store_is_not_started_again() -> None:
    service = settings_of("Service")
    never = {int(code) for code in service["RestartPreventExitStatus"][0].split()}
    assert EXIT_CODE[ErrorKind.FENCED] in never
    # What a bucket that is away for a while ends a start with must bring it back.
    assert EXIT_CODE[ErrorKind.UNAVAILABLE] not in never
    assert service["Restart"] == ["always"]
    assert settings_of("Unit")["StartLimitIntervalSec"] == ["0"]
    drain = load_config(None, {}).node.drain_seconds
    assert float(service["TimeoutStopSec"][0]) > 2 * drain


def test_the_files_are_in_the_repository() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    assert {"Dockerfile", ".dockerignore", "docker-compose.yml", "deploy/secrets.sh"} <= names
