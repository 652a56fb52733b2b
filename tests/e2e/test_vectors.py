"""Semantic search with the model that is shipped: by curl's eyes, through restarts and losses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.nodes import Node, running

pytestmark = pytest.mark.timeout(400)

TRADES = {
    "baker": "makes bread, rolls and cakes in an oven before dawn",
    "plumber": "mends pipes, taps and drains in houses",
    "pilot": "flies an aeroplane with passengers across the sea",
    "nurse": "cares for sick people in a hospital",
    "teacher": "explains mathematics to children at school",
    "carpenter": "builds tables and roofs of wood",
    "gardener": "plants flowers and cuts hedges",
    "fisher": "catches herring and cod with nets at night",
    "judge": "decides in court who is guilty",
    "violinist": "plays chamber music in an orchestra",
}
WAIT_SECONDS_MAX = 90.0


def csv(trades: dict[str, str]) -> bytes:
    lines = [f'{name},"{text}",{len(name)}' for name, text in trades.items()]
    return "\n".join(["name,does,letters", *lines, ""]).encode()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path / "node", tmp_path / "bucket")
    with running(one):
        one.start()
        yield one


def call(node: Node, method: str, path: str, status: int = 200, **how: Any) -> dict[str, Any]:
    answer = httpx.request(method, f"{node.url}{path}", timeout=60, **how)
    assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
    body: dict[str, Any] = answer.json()
    return body


def eventually(seen: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while not seen():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def build(node: Node) -> None:
    answer = node.ingest("trades", csv(TRADES), key="name")
    assert answer.status_code == 201, answer.text
    body = {"name": "work", "dataset": "trades", "columns": ["does"]}
    call(node, "POST", "/vectors/indexes", 202, json=body)
    eventually(lambda: state(node) == "ready", "the index was not built")


def state(node: Node) -> str:
    return str(call(node, "GET", "/vectors/indexes/work")["versions"][-1]["state"])


def search(node: Node, text: str, k: int = 3, **more: Any) -> list[str]:
    body = {"index": "work", "text": text, "k": k, **more}
    return [hit["key"][0] for hit in call(node, "POST", "/vectors/search", json=body)["hits"]]


def test_by_meaning_with_filters_and_changes(node: Node) -> None:
    build(node)
    assert search(node, "somebody who repairs a leaking tap")[0] == "plumber"
    assert search(node, "I have a fever")[0] == "nurse"
    hit = call(
        node,
        "POST",
        "/vectors/search",
        json={"index": "work", "text": "a net full of fish", "k": 1},
    )["hits"][0]
    assert hit["text"] == TRADES["fisher"]
    assert (hit["chunk"], hit["span"]) == (0, [0, len(TRADES["fisher"])])
    assert hit["version"] > 0

    # A filter never costs an answer: min(k, matches), however far away they are.
    short = {name for name in TRADES if len(name) == 5}
    assert set(search(node, "an aeroplane", k=10, filter="letters = 5")) == short
    assert search(node, "an aeroplane", filter="letters > 100") == []

    # A row that changes, one that goes, one that comes.
    rows = "/ingest/datasets/trades/rows"
    patch = {"key": "judge", "set": {"does": "repairs wrist watches and clocks"}}
    call(node, "POST", f"{rows}?mode=patch", json=patch)
    new = {"name": "diver", "does": "welds ships under water", "letters": 5}
    call(node, "POST", rows, json=[new])
    call(node, "DELETE", rows, json=["pilot"])
    assert search(node, "my clock stands still", k=1) == ["judge"]
    assert search(node, "under the sea with a welding torch", k=1) == ["diver"]
    everything = search(node, "an aeroplane", k=100)
    assert len(everything) == len(set(everything)) == len(TRADES)
    assert "pilot" not in everything
    index = call(node, "GET", "/vectors/indexes/work")
    # Ten at first, and the two that are new: the model was asked for nothing else.
    assert index["versions"][-1]["embedded_texts"] == len(TRADES) + 2

    # The vectors are a table like any other, and search is one in SQL.
    count = 'select count(*) from "vectors.work.v1"'
    for engine in ("datafusion", "duckdb"):
        assert node.sql(count, engine=engine) == [[len(TRADES)]]
        found = node.sql(
            "select t.name, t.letters from vector_search('work', 'a hospital', 2) v"
            " join trades t on t.name = v.name order by v.rank",
            engine=engine,
        )
        assert found[0] == ["nurse", 5]


def test_what_is_lost_is_made_anew(node: Node) -> None:
    build(node)
    questions = ("bread", "law", "music", "a broken roof")
    before = [search(node, text, k=5) for text in questions]
    children = embedders(node)
    assert children
    for child in children:
        os.kill(child, signal.SIGKILL)
    # A query that meets the loss is served by a new process, or says that it cannot be now.
    eventually(lambda: still_answers(node), "the embedding process did not come back")
    assert [search(node, text, k=5) for text in questions] == before

    children = embedders(node)
    node.kill()
    eventually(lambda: not any(map(alive, children)), "processes outlived kill -9 of their node")
    bucket = Path(node.env["LAKEHOUSE__BUCKETS__PRIMARY__URL"].removeprefix("file://"))
    shutil.rmtree(bucket / "_vectors", ignore_errors=True)
    for cache in (node.folder / "data").iterdir():
        shutil.rmtree(cache, ignore_errors=True)
    node.start()
    assert [search(node, text, k=5) for text in questions] == before
    children = embedders(node)
    assert children
    node.stop()
    eventually(lambda: not any(map(alive, children)), "processes were left behind")


def still_answers(node: Node) -> bool:
    body = {"index": "work", "text": "bread", "k": 1}
    answer = httpx.post(f"{node.url}/vectors/search", json=body, timeout=60)
    assert answer.status_code in (200, 429, 503, 504), answer.text
    return answer.status_code == 200


def embedders(node: Node) -> list[int]:
    """Processes that ``node`` started to embed."""
    assert node.process is not None
    shown = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    found = []
    for line in shown.splitlines():
        pid, parent, arguments = line.split(None, 2)
        ours = "lakehouse_embedder" in arguments or "lakehouse_sidecar" in arguments
        if ours and int(parent) == node.process.pid:
            found.append(int(pid))
    return found


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


BAD: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("/vectors/search", {"index": "work", "text": ""}, 400),
    ("/vectors/search", {"index": "work", "text": "x", "k": 0}, 400),
    ("/vectors/search", {"index": "work", "text": "x", "k": 1_000_000}, 400),
    ("/vectors/search", {"index": "work", "vector": [1.0, 2.0]}, 400),
    ("/vectors/search", {"index": "work", "vector": ["a"]}, 400),
    ("/vectors/search", {"index": "work", "text": "x", "filter": "nothing = 1"}, 400),
    ("/vectors/search", {"index": "work", "text": "x", "filter": "1 = 1; drop table x"}, 400),
    ("/vectors/search", {"index": "work", "text": "x", "model": "another"}, 409),
    ("/vectors/search", {"index": "werk", "text": "x"}, 404),
    ("/vectors/search", {"index": "work", "text": "x" * 1_100_000}, 400),
    ("/vectors/search", {"index": "work", "queries": [{"text": "x"}] * 100_000}, 400),
    ("/vectors/indexes", {"name": "a", "dataset": "trades", "columns": ["dose"]}, 404),
    ("/vectors/indexes", {"name": "a", "dataset": "trade", "columns": ["does"]}, 404),
    ("/vectors/indexes", {"name": "a", "dataset": "trades", "columns": []}, 400),
    (
        "/vectors/indexes",
        {"name": "a", "dataset": "trades", "columns": ["does"], "profile": "no"},
        404,
    ),
    ("/vectors/indexes", {"name": "work", "dataset": "trades", "columns": ["name"]}, 409),
)


def test_bad_input_is_told_clearly(node: Node) -> None:
    build(node)
    for path, body, status in BAD:
        problem = call(node, "POST", path, status, json=body)
        assert problem["kind"] in ("invalid", "not_found", "conflict"), problem
        assert "Traceback" not in str(problem)
    nan = b'{"index": "work", "vector": [NaN]}'
    headers = {"content-type": "application/json"}
    call(node, "POST", "/vectors/search", 400, content=nan, headers=headers)
    missing = {"name": "b", "dataset": "trades", "columns": ["does"], "profile": "odd"}
    call(node, "PUT", "/profiles/odd", 201, json={"model": "not-there"})
    refused = httpx.post(f"{node.url}/vectors/indexes", json=missing, timeout=60)
    assert refused.status_code == 404, refused.text
    assert "all-minilm" in refused.text
