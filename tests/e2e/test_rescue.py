"""A bucket fails: reads are answered from its copies and say so, writes fail, nothing is moved."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.gate import Gate
from e2e.nodes import PEOPLE_CSV, Node, running
from support_s3 import S3Oracle, S3Place, new_place

pytestmark = pytest.mark.timeout(400)

MOTO = Path(__file__).resolve().parents[1] / "chaos" / "moto_process.py"
SELECT = "select id, name, score from people{} order by id"
ROWS = [["007", "Jürgen", "12"], ["008", "Zoë", "N/A"]]
WAIT_SECONDS_MAX = 60.0


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


def new_node(folder: Path, place: S3Place, gate: Gate) -> Node:
    secret = {"access_key_id": place.access_key, "secret_access_key": place.secret_key}
    settings = {
        "LAKEHOUSE__BUCKETS__CLIENT_A__URL": place.settings().url,
        "LAKEHOUSE__BUCKETS__CLIENT_A__ENDPOINT": gate.url,
        "LAKEHOUSE__BUCKETS__CLIENT_A__SECRET_REF": "env:CLIENT_A",
        "LAKEHOUSE__BUCKETS__SPARE__URL": (folder / "spare").as_uri(),
        "LAKEHOUSE__RESCUE__BUCKET": "spare",
        "LAKEHOUSE__RESCUE__INTERVAL_SECONDS": "0.1",
        "LAKEHOUSE__RESCUE__PATIENCE_SECONDS": "1",
        "CLIENT_A": json.dumps(secret),
    }
    return Node(folder / "node", folder / "primary", settings=settings)


def until(what: Callable[[], Any]) -> Any:
    """What comes of ``what`` once it is true."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def rescue_info(node: Node) -> Any:
    return httpx.get(f"{node.url}/storage/buckets", timeout=30).json()["rescue"]


def covered(node: Node, objects: int) -> bool:
    info = rescue_info(node)
    return bool(info["objects"] == info["copied"] == objects)


def people(number: int) -> bytes:
    """Rows of their own for each: the read cache knows objects by their bytes."""
    return PEOPLE_CSV.replace(b"Ann", b"Ann%d" % number)


def ask(node: Node, number: int) -> httpx.Response:
    sql = {"sql": SELECT.format(number)}
    answer = httpx.post(f"{node.url}/query/sql", json=sql, timeout=60)
    assert answer.status_code == 200, answer.text + node.log
    assert answer.json()["rows"] == [*ROWS, ["010", f"Ann{number}", "7"]]
    return answer


def ingest(node: Node, dataset: str, body: bytes, **params: str) -> httpx.Response:
    return node.ingest(dataset, body, bucket="client_a", **params)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet"))


def journaled(node: Node) -> set[tuple[str, str, bool]]:
    """What the error journal has of the bucket: operation, outcome, whether it was the last."""
    answer = httpx.get(
        f"{node.url}/storage/errors", params={"bucket": "client_a", "limit": 1000}, timeout=30
    )
    errors = answer.json()["errors"]
    return {(one["operation"], one["outcome"], one["final"]) for one in errors}


def answers_again(node: Node, dataset: str) -> bool:
    """Whether its own bucket does: nothing else takes a write."""
    answer = ingest(node, dataset, b"id;name\r\n1;%s\r\n" % dataset.encode())
    assert answer.status_code in (201, 503, 504), answer.text
    return answer.status_code == 201


def test_a_bucket_fails_and_comes_back(tmp_path: Path, place: S3Place, gate: Gate) -> None:
    """One node all along: each phase reads a dataset that nobody has read before."""
    node = new_node(tmp_path, place, gate)
    oracle = S3Oracle(place)
    with running(node):
        node.start()
        for number in range(5):
            assert ingest(node, f"people{number}", people(number)).status_code == 201
        until(lambda: covered(node, 5))
        home = [key for key in S3Oracle.keys(oracle) if key.endswith(".parquet")]
        copies = tree(tmp_path / "spare")
        assert {f"rescue/client_a/{key}" for key in home} <= set(copies)
        assert ask(node, 0).json()["served_from"] == []

        gate.shut()
        answer = ask(node, 1)
        assert answer.json()["served_from"] == ["rescue/client_a"]
        assert answer.headers["lakehouse-served-from"] == "rescue/client_a"
        assert rescue_info(node)["served"] >= 1
        assert ("get", "rescued", True) in journaled(node)
        # What stands verified in the cache by now is flagged no more.
        assert "lakehouse-served-from" not in ask(node, 1).headers

        before = tree(tmp_path / "primary"), tree(tmp_path / "spare")
        for dataset, mode in (("people1", "append"), ("others", "create")):
            refused = ingest(node, dataset, people(99), mode=mode)
            assert refused.status_code in (503, 504), refused.text
        assert (tree(tmp_path / "primary"), tree(tmp_path / "spare")) == before
        assert {("put", "failed", True)} <= journaled(node)
        assert node.sql("select count(*) from people1") == [[3]]

        told = node.cli("sql", SELECT.format(2), "--format", "csv")
        assert told.returncode == 0, told.stderr
        assert "served from rescue/client_a" in told.stderr.decode()
        assert told.stdout.decode().splitlines()[0] == "id,name,score"

        gate.open()
        until(lambda: answers_again(node, "others"))
        until(lambda: covered(node, 6))
        gate.hang()
        began = time.monotonic()
        assert ask(node, 3).json()["served_from"] == ["rescue/client_a"]
        assert time.monotonic() - began < 20

        gate.hanging = False
        until(lambda: answers_again(node, "more"))
        assert ask(node, 4).json()["served_from"] == []
        until(lambda: covered(node, 7))
    oracle.close()


def test_what_is_purged_leaves_the_copies_and_a_lost_bucket_is_made_again_from_the_rest(
    tmp_path: Path,
) -> None:
    home, spare = tmp_path / "home", tmp_path / "spare"
    settings = {
        "LAKEHOUSE__BUCKETS__CLIENT_A__URL": home.as_uri(),
        "LAKEHOUSE__BUCKETS__SPARE__URL": spare.as_uri(),
        "LAKEHOUSE__RESCUE__BUCKET": "spare",
        "LAKEHOUSE__RESCUE__INTERVAL_SECONDS": "0.1",
    }
    node = Node(tmp_path / "node", tmp_path / "primary", settings=settings)
    with running(node):
        node.start()
        assert ingest(node, "people0", people(0)).status_code == 201
        until(lambda: covered(node, 1))
        kept = tree(spare)
        assert ingest(node, "people1", people(1)).status_code == 201
        until(lambda: covered(node, 2))
        for purge in ("false", "true"):
            gone = httpx.delete(
                f"{node.url}/catalog/datasets/people1", params={"purge": purge}, timeout=30
            )
            assert gone.status_code == 200, gone.text
        # The session that wrote it ends, and the catalog gives up what it wrote.
        assert node.stop() == 0
        objects = tree(home)
        shutil.rmtree(home)
        shutil.copytree(spare / "rescue" / "client_a", home)
        assert tree(home) == objects
        assert set(kept) < set(tree(spare))
        node.start()
        assert ask(node, 0).json()["served_from"] == []
        given_up = httpx.post(f"{node.url}/catalog/collect", timeout=30)
        assert given_up.json()["objects"], given_up.text
        until(lambda: tree(spare) == kept)
        assert rescue_info(node)["deletions"] >= 1
        checked = httpx.post(f"{node.url}/catalog/fsck", params={"deep": "true"}, timeout=60)
        assert checked.json()["findings"] == [], checked.text
