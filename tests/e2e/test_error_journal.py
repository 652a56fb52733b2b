"""The primary fails at night: one call tells the story, and nothing of it is lost afterwards."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.gate import Gate
from e2e.nodes import PEOPLE_CSV, Node, free_ports, running
from e2e.test_rescue import MOTO, until
from support_s3 import S3Oracle, S3Place, new_place

pytestmark = pytest.mark.timeout(400)

LOG = "_errors/bucket_errors/c/"


@pytest.fixture
def place() -> Iterator[S3Place]:
    with subprocess.Popen(
        [sys.executable, str(MOTO)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield new_place(process.stdout.readline().strip(), "moto", "moto-takes-any")
        process.communicate()


@pytest.fixture
def gate(place: S3Place) -> Iterator[Gate]:
    one = Gate("127.0.0.1", int(place.endpoint.rpartition(":")[2]))
    yield one
    one.shut()


def settings_of(place: S3Place, gate: Gate) -> dict[str, str]:
    secret = {"access_key_id": place.access_key, "secret_access_key": place.secret_key}
    return {
        "LAKEHOUSE__BUCKETS__PRIMARY__URL": place.settings().url,
        "LAKEHOUSE__BUCKETS__PRIMARY__ENDPOINT": gate.url,
        "LAKEHOUSE__BUCKETS__PRIMARY__SECRET_REF": "env:MY_S3",
        "MY_S3": json.dumps(secret),
    }


def story(node: Node, **asked: str) -> dict[str, Any]:
    answer = httpx.get(f"{node.url}/storage/errors", params=asked, timeout=30)
    assert answer.status_code == 200, answer.text + node.log
    body: dict[str, Any] = answer.json()
    return body


def seconds_of(node: Node) -> float:
    """How long the quickest of a few calls takes: others use this machine too."""
    took = []
    with httpx.Client(base_url=node.url, timeout=30) as client:
        client.get("/storage/errors")
        for _ in range(10):
            began = time.monotonic()
            assert client.get("/storage/errors?since=1h").status_code == 200
            took.append(time.monotonic() - began)
    return min(took)


def in_bucket(place: S3Place) -> dict[str, Any]:
    """The attempts in the log by id, read by another SDK without any code of ours."""
    oracle = S3Oracle(place)
    found = {}
    for key in sorted(oracle.keys()):
        if key.startswith(LOG):
            _, *lines = (oracle.read(key) or b"").splitlines()
            for event in map(json.loads, lines):
                assert event["id"] not in found, "an attempt is in the log twice"
                found[event["id"]] = event
    oracle.close()
    return found


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_the_whole_story_while_the_primary_is_down(
    tmp_path: Path, place: S3Place, gate: Gate, silent: bool
) -> None:
    short = {"LAKEHOUSE__STORAGE__ATTEMPT_SECONDS": "1"} if silent else {}
    node = Node(tmp_path / "n", tmp_path / "unused", settings=settings_of(place, gate) | short)
    with running(node):
        made = node.cli("init")
        assert made.returncode == 0, made.stderr.decode()
        node.start()
        assert node.ingest("people", PEOPLE_CSV).status_code == 201
        before = story(node)
        assert (before["primary_unavailable_since"], before["complete"]) == (None, True)

        gate.hang() if silent else gate.shut()
        headers = {"X-Request-Id": "the-night", "Lakehouse-Timeout": "5"}
        url = f"{node.url}/ingest/datasets/people?mode=append"
        refused = httpx.post(url, content=b"id;name\n1;x\n", headers=headers, timeout=60)
        assert refused.status_code in (503, 504), refused.text
        until(lambda: story(node, op="put")["errors"])
        assert seconds_of(node) < 0.1
        down = story(node, limit="1000")
        assert down["primary_unavailable_since"] is not None
        assert down["complete"] is False
        assert down["spooled"] >= len(down["errors"]) - len(before["errors"]) > 0
        assert down["dropped"] == 0
        written = [one for one in down["errors"] if one["operation"] == "put"]
        assert {one["bucket"] for one in written} == {"primary"}
        assert {one["error_kind"] for one in written} <= {"unavailable", "timeout"}
        mine = [one for one in down["errors"] if one["request_id"] == "the-night"]
        assert {one["actor"] for one in mine} == {"local"}
        assert sum(count["attempts"] for count in down["counts"]) >= len(down["errors"])

        gate.open()
        took = time.monotonic()
        until(lambda: story(node)["spooled"] == 0)
        assert time.monotonic() - took < 5 + (1 if silent else 0)
        until(lambda: story(node)["primary_unavailable_since"] is None)
        # A request that hung meanwhile may end after the rest was kept, and is told then.
        after = until(lambda: _complete(story(node, limit="1000")))
        ids = [one["id"] for one in after["errors"]]
        assert len(ids) == len(set(ids))
        assert {one["id"] for one in down["errors"]} <= set(ids)
        until(lambda: story(node)["spooled"] == 0)
        kept = in_bucket(place)
        assert {one["id"] for one in down["errors"]} <= set(kept)
        assert not any(key.startswith("_errors") for key in (e["key"] for e in kept.values()))

        node.kill()
        node.start()
        again = until(lambda: _with(story(node, limit="1000"), ids))
        assert again["complete"] is True


def _complete(body: dict[str, Any]) -> dict[str, Any] | None:
    return body if body["complete"] else None


def _with(body: dict[str, Any], ids: list[str]) -> dict[str, Any] | None:
    found = [one["id"] for one in body["errors"]]
    assert len(found) == len(set(found))
    return body if set(ids) <= set(found) else None


def test_by_every_way_in(tmp_path: Path, place: S3Place, gate: Gate) -> None:
    settings = {
        key.replace("PRIMARY", "EU"): value for key, value in settings_of(place, gate).items()
    }
    node = Node(tmp_path / "node", tmp_path / "primary", settings=settings)
    with running(node):
        node.start()
        gate.shut()
        assert httpx.post(f"{node.url}/storage/buckets/eu/probe", timeout=60).status_code == 503
        body = until(lambda: _of_bucket(story(node, bucket="eu")))
        one = body["errors"][-1]
        lines = httpx.get(
            f"{node.url}/storage/errors?bucket=eu", headers={"Accept": "application/x-ndjson"}
        )
        assert one["id"] in {json.loads(line)["id"] for line in lines.text.splitlines()}
        table = httpx.get(f"{node.url}/storage/errors?bucket=eu", headers={"Accept": "text/csv"})
        assert one["id"] in {row["id"] for row in csv.DictReader(io.StringIO(table.text))}
        shown = node.cli("storage", "errors", "--bucket", "eu", "--since", "1h", "--json")
        assert shown.returncode == 0, shown.stderr.decode()
        assert one["id"] in {each["id"] for each in json.loads(shown.stdout)["errors"]}
        people = node.cli("storage", "errors", "--bucket", "eu")
        assert b"unavailable" in people.stdout, people.stderr.decode()
        shown = node.cli("storage", "buckets")
        assert b"NO" in shown.stdout, shown.stderr.decode()
        added = node.cli("storage", "add", "more", "memory://more")
        assert b"invalid" in added.stderr, added.stderr.decode()
        removed = node.cli("storage", "remove", "eu")
        assert b"forbidden" in removed.stderr, removed.stderr.decode()
        probed = node.cli("storage", "probe", "primary")
        assert probed.returncode == 0, probed.stderr.decode()
        for engine in ("datafusion", "duckdb"):
            rows = node.sql(
                "select id, at, key, final, sent, latency_ms from system.bucket_errors"
                " where bucket = 'eu' and at > now() - interval '1 hour' order by at",
                engine=engine,
            )
            assert one["id"] in {row[0] for row in rows}
            joined = node.sql(
                "select b.name, b.reachable, count(*) as n from system.buckets b join"
                " system.bucket_errors e on e.bucket = b.name where final group by 1, 2",
                engine=engine,
            )
            assert joined[0][:2] == ["eu", False]
        assert "moto-takes-any" not in lines.text + node.log


def _of_bucket(body: dict[str, Any]) -> dict[str, Any] | None:
    return body if body["errors"] else None


def test_what_other_processes_see_is_told_to_the_one_that_keeps_the_journal(
    tmp_path: Path, place: S3Place, gate: Gate
) -> None:
    eu = {key.replace("PRIMARY", "EU"): value for key, value in settings_of(place, gate).items()}
    keeper_ports, reader_ports = free_ports(2), free_ports(2)
    bucket = tmp_path / "primary"
    keeper = Node(tmp_path / "keeper", bucket, keeper_ports, eu)
    peer = f"127.0.0.1:{keeper_ports[1]}"
    peers = {f"LAKEHOUSE__NODE__PEERS__{r}": peer for r in ("CATALOGD", "STORAGED")}
    reader = Node(tmp_path / "reader", bucket, reader_ports, eu | peers)
    with running(keeper, reader):
        keeper.launch("serve", "--roles", "catalogd,storaged")
        reader.launch("serve", "--roles", "gateway,ingestd,queryd,vectord")
        reader.wait_ready()
        until(lambda: _answers(reader))
        made = reader.ingest("there", PEOPLE_CSV, bucket="eu")
        assert made.status_code == 201, made.text + reader.log
        gate.shut()
        refused = reader.ingest("there", b"id;name;phone;score\n1;x;2;3\n", mode="append")
        assert refused.status_code >= 500, refused.text
        body = until(lambda: _of_bucket(story(reader, bucket="eu", op="put")))
        assert {one["bucket"] for one in body["errors"]} == {"eu"}
        told = len(story(reader, bucket="eu", limit="1000")["errors"])
        keeper.kill()
        reader.ingest("there", b"id;name;phone;score\n4;x;2;3\n", mode="append")
        keeper.launch("serve", "--roles", "catalogd,storaged")
        until(lambda: _answers(reader))
        after = until(lambda: _of_bucket(story(reader, bucket="eu", limit="1000")))
        ids = [one["id"] for one in after["errors"]]
        assert len(ids) == len(set(ids)) >= told


def test_storaged_alone_starts_and_serves_while_the_primary_is_down(
    tmp_path: Path, place: S3Place, gate: Gate
) -> None:
    direct = settings_of(place, gate) | {"LAKEHOUSE__BUCKETS__PRIMARY__ENDPOINT": place.endpoint}
    rest = Node(tmp_path / "rest", tmp_path / "unused", settings=direct)
    peers = {
        f"LAKEHOUSE__NODE__PEERS__{role}": rest.grpc
        for role in ("CATALOGD", "INGESTD", "QUERYD", "VECTORD")
    }
    node = Node(tmp_path / "n", tmp_path / "unused", settings=settings_of(place, gate) | peers)
    with running(rest, node):
        made = rest.cli("init")
        assert made.returncode == 0, made.stderr.decode()
        gate.shut()
        rest.launch("serve", "--roles", "catalogd,ingestd,queryd,vectord")
        node.launch("serve", "--roles", "gateway,storaged")
        probe = until(lambda: _probed(node))
        assert probe.status_code == 503, probe.text
        ready = httpx.get(f"{node.url}/ready", timeout=30)
        assert "primary" in ready.text
        down = story(node)
        assert down["primary_unavailable_since"] is not None
        assert (down["complete"], down["dropped"]) == (False, 0)
        assert {one["bucket"] for one in down["errors"]} == {"primary"}
        gate.open()
        until(lambda: story(node)["spooled"] == 0)
        assert {one["id"] for one in down["errors"]} <= set(in_bucket(place))
        assert until(lambda: story(node)["complete"])
        node.wait_ready()


def _probed(node: Node) -> httpx.Response | None:
    """The answer to a probe, once whoever knows the callers' tokens is there too."""
    try:
        answer = httpx.post(f"{node.url}/storage/buckets/primary/probe", timeout=60)
    except httpx.TransportError:
        return None
    return answer if "primary" in answer.text else None


def _answers(node: Node) -> bool:
    return httpx.get(f"{node.url}/storage/errors", timeout=30).status_code == 200
