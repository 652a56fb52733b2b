"""Lance tables on a real S3 server: built, searched, appended to, deleted from, lost and found."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.nodes import Node, running
from e2e.test_vectors import call, eventually
from support_s3 import S3Oracle, S3Place, place_of_environment

pytestmark = [pytest.mark.s3, pytest.mark.timeout(600)]

ROWS = 700
POINTS = 4_000
DIMENSIONS = 64
WHAT = ("bread", "roof", "net", "court", "violin", "aeroplane", "fever", "hedge", "tap", "school")
WHERE = (
    "harbour",
    "valley",
    "attic",
    "cellar",
    "market",
    "station",
    "garden",
    "tower",
    "bridge",
    "mill",
)
HOW = (
    "quietly",
    "badly",
    "often",
    "twice",
    "cheaply",
    "slowly",
    "proudly",
    "by",
    "night",
    "together",
)
QUESTIONS = ("a broken roof in the attic", "music by night", "illness", "flying over the bridge")


def text(n: int) -> str:
    what, where, how = WHAT[n % 10], WHERE[n // 10 % 10], HOW[n // 100 % 10]
    return f"{n}: the {what} at the {where}, {how}"


def csv(numbers: range) -> bytes:
    return "\n".join(["id,says,third", *(f'{n},"{text(n)}",{n % 3}' for n in numbers)]).encode()


@pytest.fixture
def place() -> S3Place:
    return place_of_environment()


@pytest.fixture
def node(tmp_path: Path, place: S3Place) -> Node:
    secret = {"access_key_id": place.access_key, "secret_access_key": place.secret_key}
    settings = {
        "LAKEHOUSE__BUCKETS__PRIMARY__URL": place.settings().url,
        "LAKEHOUSE__BUCKETS__PRIMARY__ENDPOINT": place.endpoint,
        "LAKEHOUSE__BUCKETS__PRIMARY__SECRET_REF": "env:MY_S3",
        "MY_S3": json.dumps(secret),
        # A profile of the configuration alone.
        "LAKEHOUSE__PROFILES__TABLES__VECTOR_BACKEND": "lance",
        "LAKEHOUSE__PROFILES__TABLES__EXACT_ROWS_MAX": "300",
        "LAKEHOUSE__PROFILES__TABLES__CHUNKING__METHOD": "none",
    }
    return Node(tmp_path / "node", tmp_path / "unused", settings=settings)


def ask(node: Node, question: str, k: int = 10, **more: Any) -> tuple[list[int], str]:
    """Keys of the hits, and what they were served by."""
    body = {"index": "said", "text": question, "k": k, **more}
    found = call(node, "POST", "/vectors/search", json=body)
    return [hit["key"][0] for hit in found["hits"]], found["served_by"]


def answers(node: Node) -> list[tuple[list[int], list[int]]]:
    return [
        (ask(node, each)[0], ask(node, each, k=5, filter="third = 1 AND id > 400")[0])
        for each in QUESTIONS
    ]


def version(node: Node, name: str) -> dict[str, Any]:
    found: dict[str, Any] = call(node, "GET", f"/vectors/indexes/{name}")["versions"][-1]
    return found


def built(node: Node) -> None:
    """Both are ready, and most of each is in a table; some rows may stay beside it."""
    eventually(lambda: version(node, "said")["state"] == "ready", "it is never built")
    eventually(lambda: ask(node, QUESTIONS[0])[1].startswith("lance"), "no table of texts serves")
    eventually(lambda: near(node, 0)[1].startswith("lance"), "no table of points serves")
    for name, rows in (("said", ROWS), ("points", POINTS)):
        tables = version(node, name)["structures"]
        assert {one["kind"] for one in tables} == {"lance"}
        assert sum(one["rows"] for one in tables) > 0.75 * rows


def points() -> Any:
    """Around some centres, of length 1."""
    draw = np.random.default_rng(7)
    centres = draw.standard_normal((40, DIMENSIONS), np.float32)
    found = centres[np.arange(POINTS) % 40] + 0.5 * draw.standard_normal(
        (POINTS, DIMENSIONS), np.float32
    )
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def put_points(node: Node) -> None:
    body = {"name": "points", "dimensions": DIMENSIONS, "profile": "tables"}
    call(node, "POST", "/vectors/indexes", 201, json=body)
    rows = [{"id": str(at), "vector": row} for at, row in enumerate(points().tolist())]
    for at in range(0, POINTS, 1_000):
        call(node, "POST", "/vectors/indexes/points/vectors", json=rows[at : at + 1_000])


def near(node: Node, at: int) -> tuple[list[int], str]:
    """The ten nearest to the point ``at``, and what they were served by."""
    body = {"index": "points", "vector": points()[at].tolist(), "k": 10}
    found = call(node, "POST", "/vectors/search", json=body)
    return [int(hit["key"]) for hit in found["hits"]], found["served_by"]


def check_recall(node: Node) -> None:
    """Against comparing all: of what is asked for, nearly all, and no fewer."""
    found = wanted = 0
    for question in QUESTIONS:
        for condition in ("", "third = 2"):
            right, by = ask(node, question, exact=True, filter=condition)
            assert by == "exact"
            got, _ = ask(node, question, filter=condition)
            assert len(got) == len(set(got)) == 10
            found, wanted = found + len({*right} & {*got}), wanted + 10
    vectors = points()
    for at in range(0, POINTS, 400):
        nearest = np.argsort(-(vectors @ vectors[at]), kind="stable")[:10]
        got_points, _ = near(node, at)
        assert len(got_points) == 10
        found, wanted = found + len({*nearest.tolist()} & {*got_points}), wanted + 10
    assert found >= 0.95 * wanted
    print("recall", found / wanted)


def test_lance_tables_live_on_a_real_server(node: Node, place: S3Place) -> None:
    oracle = S3Oracle(place)
    with running(node):
        assert node.cli("init").returncode == 0
        node.start()
        assert node.ingest("sayings", csv(range(ROWS)), key="id").status_code == 201
        body = {"name": "said", "dataset": "sayings", "columns": ["says"], "profile": "tables"}
        call(node, "POST", "/vectors/indexes", 202, json=body)
        put_points(node)
        built(node)
        check_recall(node)

        # Appended and deleted: seen at once, beside the table.
        more = [{"id": 9_000, "says": "the sailor mends his trousers", "third": 1}]
        rows = "/ingest/datasets/sayings/rows"
        call(node, "POST", rows, json=more)
        first = ask(node, QUESTIONS[0])[0]
        call(node, "DELETE", rows, json=[first[0]])
        hits, by = ask(node, "sailor with needle and thread", k=1)
        assert (hits, by) == ([9_000], "lance+exact")
        assert first[0] not in ask(node, QUESTIONS[0], k=100)[0]
        before = answers(node)

        # Another process without a cache: the table comes out of the bucket.
        tables = {name: version(node, name)["structures"] for name in ("said", "points")}
        node.kill()
        for cache in (node.folder / "data").iterdir():
            shutil.rmtree(cache, ignore_errors=True)
        node.start()
        built(node)
        assert answers(node) == before
        assert tables == {name: version(node, name)["structures"] for name in tables}
        for table in itertools.chain(*tables.values()):
            assert nearest_by_stock(place, table["key"]) == table["rows"]

        # Without the objects: made anew, with the same rows.
        node.kill()
        client = place.client()
        there = oracle.keys()
        lost = [key for key in there if key.startswith("_vectors/")]
        assert any(".lance/data/" in key for key in lost)
        for key in lost:
            client.delete_object(Bucket=place.bucket, Key=f"{place.prefix}/{key}")
        node.start()
        built(node)
        check_recall(node)
        assert first[0] not in ask(node, QUESTIONS[0], k=100)[0]
        assert ask(node, "sailor with needle and thread", k=1)[0] == [9_000]
        anew = oracle.keys()
        assert any(".lance/data/" in key for key in anew)
        assert place.secret_key not in node.log
    client.close()
    oracle.close()


def nearest_by_stock(place: S3Place, key: str) -> int:
    """Rows of the table in the bucket, opened there by the library as it is."""
    import lance

    options = {
        "aws_endpoint": place.endpoint,
        "aws_access_key_id": place.access_key,
        "aws_secret_access_key": place.secret_key,
        "aws_region": "us-east-1",
        "allow_http": "true",
        "aws_virtual_hosted_style_request": "false",
    }
    url = f"s3://{place.bucket}/{place.prefix}/{key.rstrip('/')}"
    table = lance.dataset(url, storage_options=options)
    vector = table.take([0]).column("vector")[0].as_py()
    nearest = table.to_table(
        nearest={"column": "vector", "q": vector, "k": 1}, columns=["entity", "_distance"]
    )
    assert nearest.column("entity")[0] == table.take([0], columns=["entity"]).column(0)[0]
    return int(table.count_rows())
