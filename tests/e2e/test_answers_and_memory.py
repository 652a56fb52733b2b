"""Answers and memory as a client of HTTP has them; the model behind the sidecar is scripted."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.nodes import Node, running
from e2e.test_vectors import call
from support_ollama import failing, served
from support_scripted_ollama import MODEL, Script, ScriptedOllama

pytestmark = pytest.mark.timeout(300)

WAIT_SECONDS_MAX = 20.0
TURNS: list[dict[str, Any]] = [
    {"text": "one team owns all shared storage", "who": "steve", "session": "s1", "tags": ["hdr"]},
    {"text": "rook copies files every night", "who": "leonardo", "session": "s1"},
    {"text": "lunch is at noon", "who": "steve", "at": "2026-02-15T12:00:00Z"},
]


@contextmanager
def in_a_thread(peer: ScriptedOllama) -> Iterator[str]:
    """The peer's URL; it answers on a loop of its own."""
    found: list[str] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with served(peer.app()) as url:
            found.append(url)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def peer() -> ScriptedOllama:
    return ScriptedOllama()


@pytest.fixture(scope="module")
def node(peer: ScriptedOllama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("answers")
    with in_a_thread(peer) as url:
        settings = {
            "LAKEHOUSE__EMBEDDING__OLLAMA_URL": url,
            "LAKEHOUSE__RAG__MODEL": MODEL,
            "LAKEHOUSE__PROFILES__CONVERSATION__MODEL": MODEL,
        }
        one = Node(folder / "node", Path(folder / "bucket"), settings=settings)
        with running(one):
            one.start()
            remember(one, "herd", TURNS)
            yield one


def remember(node: Node, memory: str, turns: list[dict[str, Any]], status: int = 201) -> Any:
    body = "\n".join(json.dumps(turn) for turn in turns)
    headers = {"content-type": "application/x-ndjson"}
    path = f"/memory/{memory}/turns"
    return call(node, "POST", path, status, content=body, headers=headers)


def recall(node: Node, text: str, **more: Any) -> dict[str, Any]:
    return call(node, "POST", "/memory/herd/recall", json={"text": text, **more})


def eventually(seen: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while not seen():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def test_turns_are_remembered_recalled_and_caught_up_with(node: Node) -> None:
    again = remember(node, "herd", TURNS[:2], 200)
    assert (again["remembered"], again["duplicates"], again["created"]) == (0, 2, False)
    found = recall(node, "who copies files", k=2)
    assert found["hits"][0]["turn"]["text"] == TURNS[1]["text"]
    assert found["hits"][0]["turn"]["who"] == "leonardo"
    eventually(
        lambda: httpx.get(f"{node.url}/retrievals/{found['retrieval_id']}").status_code == 200,
        "the retrieval was not remembered",
    )
    by_steve = recall(node, "storage", who="steve", tags=["hdr"])
    assert [hit["turn"]["text"] for hit in by_steve["hits"]] == [TURNS[0]["text"]]
    page = call(node, "GET", "/memory/herd/catch-up", params={"limit": 2})
    assert [turn["text"] for turn in page["turns"]] == [turn["text"] for turn in TURNS[:2]]
    rest = call(node, "GET", "/memory/herd/catch-up", params={"cursor": page["cursor"]})
    assert [turn["text"] for turn in rest["turns"]] == [TURNS[2]["text"]]
    listed = call(node, "GET", "/memory")
    assert [(one["name"], one["turns"]) for one in listed["memories"]] == [("herd", 3)]
    plain = node.ingest("plain", b"id,text\n1,a\n", key="id")
    assert plain.status_code == 201
    remember(node, "plain", TURNS, 409)
    assert node.sql('select count(*) from "herd"') == [[3]]


def test_an_answer_whole_and_word_by_word(node: Node, peer: ScriptedOllama) -> None:
    peer.script = Script(("Rook ", "[1] does", " [8]."))
    ask = {"index": "herd", "question": "who copies files", "mode": "text", "k": 2}
    whole = call(node, "POST", "/vectors/rag", json=ask)
    assert whole["answer"] == "Rook [1] does [8]."
    assert [one["text"] for one in whole["citations"]] == [TURNS[1]["text"]]
    assert whole["unknown"] == [8]
    kept = call(node, "GET", f"/retrievals/{whole['retrieval_id']}")
    assert kept["purpose"] == "rag"
    with httpx.stream("POST", f"{node.url}/vectors/rag", json={**ask, "stream": True}) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [next(iter(line)) for line in lines] == ["header", "text", "text", "text", "end"]
    assert "".join(line["text"] for line in lines[1:4]) == whole["answer"]


def test_no_model_that_writes(node: Node, peer: ScriptedOllama) -> None:
    ask = {"index": "herd", "question": "who copies files", "mode": "text"}
    peer.refuse = lambda: failing(400, '"scripted" does not support generate')
    try:
        error = call(node, "POST", "/vectors/rag", 503, json=ask)
    finally:
        peer.refuse = lambda: None
    assert error["context"][0]["text"] == TURNS[1]["text"]
    call(node, "GET", f"/retrievals/{error['retrieval_id']}")
    other = call(node, "POST", "/vectors/rag", 404, json={**ask, "model": "other"})
    assert other["models"] == [f"{MODEL}:latest"]
    assert other["context"] == error["context"]


@pytest.mark.parametrize("before", [0, 1])
def test_a_client_that_goes_away_stops_the_model(
    node: Node, peer: ScriptedOllama, before: int
) -> None:
    script = peer.script = Script(("a", "b"), wait_before=before)
    stopped = peer.stopped
    ask = {"index": "herd", "question": "who", "mode": "text", "stream": True}
    count = len(peer.asked)
    try:
        with httpx.stream("POST", f"{node.url}/vectors/rag", json=ask, timeout=1) as answer:
            words = answer.iter_lines()
            assert "header" in next(words)
            assert json.loads(next(words)) == {"text": "a"}
    except httpx.ReadTimeout:
        assert before == 0
    assert len(peer.asked) == count + 1
    try:
        eventually(lambda: peer.stopped == stopped + 1, "the model went on")
    finally:
        script.gate.set()


def test_memory_outlives_the_node(node: Node) -> None:
    before = call(node, "GET", "/memory/herd/catch-up")
    node.kill()
    node.start()
    assert call(node, "GET", "/memory/herd/catch-up")["turns"] == before["turns"]
    assert remember(node, "herd", TURNS, 200)["duplicates"] == len(TURNS)
    assert recall(node, "who copies files", mode="text")["hits"][0]["turn"]["who"] == "leonardo"
