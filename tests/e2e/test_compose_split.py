"""The profile split of docker-compose.yml, its containers as processes: same commands, same
variables, same order; only addresses and places are this machine's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from e2e.nodes import (
    END_SECONDS_MAX,
    PEOPLE_CSV,
    PROGRAM,
    START_SECONDS_MAX,
    Node,
    free_ports,
    running,
)

pytestmark = pytest.mark.timeout(300)

ROOT: Final = Path(__file__).resolve().parents[2]
SERVICES: Final[dict[str, Any]] = {
    name: service
    for name, service in yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
        "services"
    ].items()
    if "split" in service["profiles"]
}
IMAGE: Final = dict(
    re.findall(
        r"(LAKEHOUSE__\w+)=(\S+)", re.sub(r"(?m)^\s*#.*$", "", (ROOT / "Dockerfile").read_text())
    )
)


class Container(Node):
    """A service of the compose file as a process."""

    def __init__(self, name: str, folder: Path, ports: dict[str, dict[str, int]]) -> None:
        service = SERVICES[name]
        super().__init__(folder / name, folder / "bucket", (0, 0))
        self.command = list(service["command"])
        self.after = [n for n in service.get("depends_on", {}) if n != "split-doctor"]
        given = IMAGE | {k: str(v) for k, v in (service.get("environment") or {}).items()}
        own = ports[name]
        # A service that does not mount the bucket must do without it.
        mounts = any(volume.endswith(":/bucket") for volume in service.get("volumes", []))
        bucket = folder / ("bucket" if mounts else "nowhere")
        for key, value in given.items():
            value = value.replace("file:///bucket", bucket.as_uri())
            value = re.sub(r"^0\.0\.0\.0:(\d+)$", lambda m: f"127.0.0.1:{own[m[1]]}", value)
            value = re.sub(r"^(\w+):(\d+)$", lambda m: f"127.0.0.1:{ports[m[1]][m[2]]}", value)
            given[key] = value
        self.http_port = own["3100" if "gateway" in self.command else "3102"]
        state = {"XDG_STATE_HOME": str(folder / name / "state")}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE")}
        self.env = kept | given | state

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """``docker compose run --rm NAME COMMAND``"""
        return subprocess.run(
            [*PROGRAM, *command],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=END_SECONDS_MAX,
        )


@contextmanager
def containers(folder: Path) -> Iterator[dict[str, Container]]:
    inside = ("3100", "3101", "3102")
    free = iter(free_ports(len(SERVICES) * len(inside)))
    ports = {name: {port: next(free) for port in inside} for name in SERVICES}
    made = {name: Container(name, folder, ports) for name in SERVICES}
    with running(*made.values()):
        yield made


def token(container: Container, name: str, scope: str) -> str:
    done = container.run("token", "create", name, "--scope", scope, "--json")
    assert done.returncode == 0, done.stderr
    made: str = json.loads(done.stdout)["token"]
    return made


def up(containers: dict[str, Container]) -> None:
    """As compose does: each service once those are healthy on which it depends."""
    waiting = {name: one for name, one in containers.items() if one.command[0] == "serve"}
    healthy: set[str] = set()
    until = time.monotonic() + START_SECONDS_MAX
    while waiting or len(healthy) < 6:
        assert time.monotonic() < until, {n: c.log for n, c in containers.items() if c.process}
        for name in [n for n, one in waiting.items() if set(one.after) <= healthy]:
            waiting[name].launch(*waiting.pop(name).command)
        for name, one in containers.items():
            if one.process is not None and name not in healthy:
                assert one.process.poll() is None, one.log
                try:
                    answer = httpx.get(f"{one.url}/ready", timeout=2)
                except httpx.TransportError:
                    continue
                healthy |= {name} if answer.status_code == 200 else set()
        time.sleep(0.05)


def changes(client: httpx.Client) -> None:
    """Rows change in one process, by a predicate that another one reads, told by a feed."""
    answer = client.put("/ingest/datasets/people/key", json={"columns": ["id"]})
    assert answer.status_code == 200, answer.text
    where = "/ingest/datasets/people/rows?mode=patch&where=id%20is%20not%20null&reason=test"
    answer = client.post(where, json={"name": "Zoe"})
    assert answer.json()["updated"] >= 2, answer.text
    answer = client.post("/query/sql", json={"sql": "select distinct name from people"})
    assert answer.json()["rows"] == [["Zoe"]], answer.text
    feed = client.get(
        f"/journal/feed?dataset=people&after={answer.json()['versions']['people'] - 1}"
    )
    told = [json.loads(line) for line in feed.text.splitlines()]
    assert {(one["field"], one["new"], one["reason"]) for one in told} == {("name", "Zoe", "test")}


def meanings(client: httpx.Client) -> None:
    """An index is built in one process, asked for through others, and remembered."""
    body: dict[str, Any] = {"name": "who", "dataset": "people", "columns": ["name", "phone"]}
    answer = client.post("/vectors/indexes", json=body)
    assert answer.status_code == 202, answer.text
    answer = client.post("/vectors/indexes/who/build", json={"wait_seconds": 60})
    assert answer.json()["versions"][-1]["state"] == "ready", answer.text
    body = {"index": "who", "text": "unknown", "mode": "hybrid", "filter": "id <> '007'", "k": 5}
    answer = client.post("/vectors/search", json={**body, "record": "durable"})
    found = answer.json()
    assert [hit["key"] for hit in found["hits"]][:1] == [["008"]], answer.text
    assert len(found["hits"]) == 2
    again = client.post(f"/retrievals/{found['retrieval_id']}/replay").json()
    assert (again["same"], len(again["hits"])) == (True, 2), again
    search = "hybrid_search('who', 'unknown', 1)"
    sql = f"select p.id, h.text_rank from {search} h join people p using (id)"
    answer = client.post("/query/sql", json={"sql": sql})
    assert answer.json()["rows"] == [["008", 1]], answer.text
    sql = f"select purpose, k from system.retrievals where id = '{found['retrieval_id']}'"
    assert client.post("/query/sql", json={"sql": sql}).json()["rows"] == [["search", 5]]
    answer = client.post("/memory/talks/turns", json={"text": "the crane is broken"})
    assert answer.status_code == 201, answer.text
    answer = client.post("/memory/talks/recall", json={"text": "crane", "also": ["who"]})
    assert answer.json()["hits"][0]["turn"]["text"] == "the crane is broken", answer.text


def test_the_profile_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    with containers(tmp_path) as made:
        checked = made["split-doctor"].run(*made["split-doctor"].command)
        assert checked.returncode == 0, checked.stderr
        # Before there is a token for the roles nothing starts, and says why.
        made["ingestd"].launch(*made["ingestd"].command)
        assert made["ingestd"].wait_end() == 66
        assert "NODE_TOKEN" in made["ingestd"].log
        made["ingestd"].process = None
        own = token(made["catalogd"], "roles", "operator")
        admin = token(made["catalogd"], "admin", "operator")
        for one in made.values():
            one.env["NODE_TOKEN"] = own
        up(made)
        gateway = made["gateway"]
        assert httpx.get(f"{gateway.url}/catalog/datasets").status_code == 401
        headers = {"authorization": f"Bearer {admin}"}
        client = httpx.Client(base_url=gateway.url, headers=headers, timeout=60)
        with client:
            answer = client.post(
                "/ingest/datasets/people", content=PEOPLE_CSV, headers={"content-type": "text/csv"}
            )
            assert answer.status_code == 201, answer.text
            answer = client.post("/query/sql", json={"sql": "select count(*) as n from people"})
            assert answer.json()["rows"] == [[3]], answer.text
            changes(client)
            meanings(client)
            assert client.get("/storage/buckets").status_code == 200
            ready = client.get("/ready").json()
            assert ready["details"]["peer_catalogd"] == "ready"
        for name in ("catalogd", "storaged", "ingestd", "queryd", "vectord"):
            # A role's figures take a token too, and are its own.
            assert httpx.get(f"{made[name].url}/metrics").status_code == 401
            page = httpx.get(f"{made[name].url}/metrics", headers=headers).text
            roles = made[name].command[-1]
            assert f'roles="{roles}"' in page
            assert name in roles.split(",")
        assert own.partition(".")[2] not in "".join(one.log for one in made.values() if one.process)
        for name in ("gateway", "vectord", "queryd", "ingestd", "storaged", "catalogd"):
            assert made[name].stop() == 0
