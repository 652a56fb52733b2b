"""Secrets of a node show nowhere: logs of all libraries at debug, errors, values, replies."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from lakehouse.cli.main import cli
from lakehouse.errors import LakehouseError
from lakehouse.kit import telemetry
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.node.buckets import live_secrets, open_buckets
from lakehouse.node.config import Config, load_config
from lakehouse.node.lifecycle import Node
from lakehouse.objectstore.identity import init_store
from support_peer import Peer, serving

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
SECRET = "canary/secret+of the=keys"
ROTATED = "canary/rotated+of the=keys"
SESSION = "canary//session+token==" * 4
SERVICE = "lh_canary1.canaryservicetoken0123456789"
BEARER = "lh_canary2.canarybearertoken0123456789"
# Where only half of it shows it shows too: what a URL or JSON would make of it is looked for.
FORMS = ("canary/", "canary%2F", "canary\\/", "canaryservice", "canarybearer")


def keys(secret: str) -> str:
    return json.dumps(
        {"access_key_id": "key-id", "secret_access_key": secret, "session_token": SESSION}
    )


class Everything(logging.Handler):
    """Every record of every library, in the words of the configured formatter."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(formatter)
        self.lines: list[str] = []
        self.raw: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.raw.append(f"{record.name} {record.getMessage()}")


@pytest.fixture(params=["text", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[Everything]:
    root = logging.getLogger()
    held, level = root.handlers[:], root.level
    own = logging.getLogger("lakehouse").level
    telemetry.configure_logging("debug", request.param)
    formatter = root.handlers[0].formatter
    assert formatter is not None
    everything = Everything(formatter)
    root.handlers[:] = [everything]
    root.setLevel(logging.DEBUG)
    yield everything
    root.handlers[:] = held
    root.setLevel(level)
    logging.getLogger("lakehouse").setLevel(own)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving(Peer()) as peer:
        peer.keys = {"key-id": SECRET}
        yield peer


@pytest.fixture
def config(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    write(tmp_path, SECRET)
    monkeypatch.setenv("CANARY_TOKEN", SERVICE)
    for key, value in {
        "GATEWAY__HTTP": "127.0.0.1:0",
        "GATEWAY__GRPC": "127.0.0.1:0",
        "NODE__STATE_DIR": str(tmp_path / "state"),
        "NODE__SECRET_REF": "env:CANARY_TOKEN",
        "NODE__DRAIN_SECONDS": "0.1",
        "BUCKETS__PRIMARY__URL": "s3://bucket/lake",
        "BUCKETS__PRIMARY__ENDPOINT": peer.endpoint,
        "BUCKETS__PRIMARY__SECRET_REF": f"file:{tmp_path}/keys",
    }.items():
        monkeypatch.setenv(f"LAKEHOUSE__{key}", value)
    monkeypatch.chdir(tmp_path)
    return load_config(None, dict(os.environ))


def write(folder: Path, secret: str) -> None:
    new = folder / "keys.new"
    new.touch(0o600)
    new.write_text(keys(secret))
    new.rename(folder / "keys")


def assert_hidden(what: str, text: str) -> None:
    for form in FORMS:
        at = text.find(form)
        assert at < 0, f"{what}: {text[max(0, at - 60) : at + 40]}"


async def test_no_secret_shows_anywhere(
    config: Config, peer: Peer, log: Everything, tmp_path: Path
) -> None:
    shown: dict[str, str] = {}
    assert live_secrets(config) >= {SECRET, SESSION, SERVICE}
    buckets = open_buckets(config, CLOCK, IDS)
    await init_store(buckets.get("primary"), CLOCK, IDS)
    await buckets.close()
    node = Node(config)
    await node.start()
    try:
        url = f"http://{node.http_address}"
        headers = {"authorization": f"Bearer {BEARER}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            made = await client.post("/ingest/datasets/people", content=b"id,name\n1,Ann\n")
            assert made.status_code == 201, made.text
            write(tmp_path, ROTATED)
            peer.keys = {"key-id": ROTATED}
            for path in (
                "/storage/buckets",
                "/storage/errors",
                "/metrics",
                "/ready",
                "/catalog/datasets",
                "/storage/buckets",
            ):
                answer = await client.get(path)
                assert answer.status_code == 200, (path, answer.text)
                shown[path] = answer.text
            # Now keys that nobody takes: the errors that people meet.
            peer.keys = {}
            shown["refused"] = (await client.post("/ingest/datasets/more", content=b"id\n1\n")).text
            shown["down"] = (await client.get("/storage/buckets")).text
            peer.keys = {"key-id": ROTATED}
    finally:
        await node.stop()
    for what, text in shown.items():
        assert_hidden(what, text)
    assert_hidden("log", "\n".join(log.lines))
    names = {line.partition(" ")[0].partition(".")[0] for line in log.raw}
    assert {"lakehouse", "botocore", "urllib3"} <= names
    # The library that knows the token does print it, so the filter is what hides it.
    assert any(SESSION in line for line in log.raw)


async def test_errors_and_values_show_none(config: Config, log: Everything) -> None:
    buckets = open_buckets(config, CLOCK, IDS)
    assert_hidden("settings", repr([buckets.settings(name) for name in buckets.names()]))
    assert_hidden("config", repr(config))
    wrong = buckets.get("primary")
    Path(config.buckets["primary"].secret_ref.removeprefix("file:")).write_text(
        json.dumps({"access_key_id": SECRET, "wrong": SESSION})
    )
    with pytest.raises(LakehouseError) as caught:
        await wrong.get("key")
    chain: BaseException | None = caught.value
    while chain is not None:
        assert_hidden("error", f"{chain!r} {chain} {getattr(chain, 'fields', '')}")
        chain = chain.__cause__ or chain.__context__
    await buckets.close()
    assert_hidden("log", "\n".join(log.lines))


def test_the_configuration_shows_references_alone(config: Config) -> None:
    for form in ((), ("--json",)):
        shown = CliRunner().invoke(cli, ["config", *form], catch_exceptions=False)
        assert shown.exit_code == 0, shown.output
        assert_hidden("config", shown.output)
        assert "env:CANARY_TOKEN" in shown.output
