"""The routes of answers and memory: what they ask for, what they say, what ends them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from lakehouse.contracts import memory as m
from lakehouse.contracts import rag as g
from lakehouse.contracts.as_of import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode
from unit.gateway.fakes import VERSION, World
from unit.gateway.recording import AT
from unit.gateway.retrieval_fakes import TEXT, FakeRag, turn

ASK = {"index": "tickets", "question": "why?"}
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
AWAY = LakehouseError(ErrorKind.UNAVAILABLE, "the model went away", model="m")


async def asked(world: World, accept: str = "*/*", **body: Any) -> httpx.Response:
    async with world.client("read") as client:
        return await client.post("/vectors/rag", json={**ASK, **body}, headers={"Accept": accept})


ASKED: list[tuple[dict[str, Any], g.AnswerRequest]] = [
    ({}, g.AnswerRequest("tickets", "why?")),
    (
        {
            "k": 3,
            "mode": "text",
            "filter": "a = 1",
            "number": 2,
            "also": ["posts"],
            "rerank": "vectors",
            "as_of": "tag:march",
            "model": "qwen3",
            "instructions": "be brief",
            "tokens_max": 90,
            "temperature": 0,
            "record": "best_effort",
            "stream": True,
        },
        g.AnswerRequest(
            "tickets",
            "why?",
            3,
            SearchMode.TEXT,
            "a = 1",
            2,
            ("posts",),
            Rerank.VECTORS,
            AsOf(tag="march"),
            "qwen3",
            "be brief",
            90,
            0.0,
            RecordClass.BEST_EFFORT,
        ),
    ),
]


@pytest.mark.parametrize(("body", "expected"), ASKED)
async def test_what_is_asked(body: dict[str, Any], expected: g.AnswerRequest) -> None:
    world = World()
    answer = await asked(world, **body)
    assert answer.status_code == 200, answer.text
    assert world.rag.last("answer")[1] == expected
    assert answer.headers["lakehouse-version"] == str(VERSION)


async def test_an_answer_has_its_citations() -> None:
    world = World()
    told = (await asked(world)).json()
    assert told["answer"] == "It is the roof [1]."
    assert [one["key"] for one in told["context"]] == [[7], "face-1"]
    assert told["citations"] == told["context"][:1]
    assert told["citations"][0] == {
        "number": 1,
        "index": "tickets",
        "key": [7],
        "chunk": 2,
        "span": [3, 8],
        "version": 790,
        "score": 0.0325,
        "text": TEXT,
        "shortened": False,
    }
    assert (told["unknown"], told["retrieval_id"], told["model"]) == ([9], "R7", "qwen3:0.6b")
    assert (told["done_reason"], told["behind"], told["degraded"]) == ("stop", True, False)
    assert (told["prompt_tokens"], told["answer_tokens"], told["seconds"]) == (90, 6, 0.5)
    assert world.rag.closed == 1


FORMS: list[tuple[dict[str, Any], str, str]] = [
    ({"stream": True}, "*/*", LINES),
    ({"stream": True}, "application/json", LINES),
    ({"stream": True}, "application/json, text/event-stream;q=0.5", EVENTS),
    ({"stream": True}, EVENTS, EVENTS),
    ({}, EVENTS, EVENTS),
    ({}, LINES, LINES),
    ({}, "application/json", "application/json"),
]


@pytest.mark.parametrize(("body", "accept", "media"), FORMS)
async def test_the_form_that_is_wanted(body: dict[str, Any], accept: str, media: str) -> None:
    answer = await asked(World(), accept, **body)
    assert answer.headers["content-type"].partition(";")[0] == media


async def test_a_form_that_there_is_not() -> None:
    world = World()
    answer = await asked(world, "image/png")
    assert (answer.status_code, world.rag.calls) == (406, [])


def parts(answer: httpx.Response) -> list[dict[str, Any]]:
    """The parts of a stream, whichever of both it is."""
    if answer.headers["content-type"].startswith(LINES):
        return [json.loads(line) for line in answer.text.splitlines()]
    told = []
    for block in answer.text.removesuffix("\n\n").split("\n\n"):
        event, data = block.split("\n")
        part = json.loads(data.removeprefix("data: "))
        assert list(part) == [event.removeprefix("event: ")]
        told.append(part)
    return told


@pytest.mark.parametrize("media", [LINES, EVENTS])
async def test_words_as_they_come(media: str) -> None:
    world = World()
    whole = (await asked(world)).json()
    told = parts(await asked(world, media))
    assert [next(iter(part)) for part in told] == ["header", "text", "text", "text", "end"]
    assert [part["text"] for part in told[1:4]] == list(world.rag.words)
    assert {**told[0]["header"], **told[-1]["end"]} == whole
    assert world.rag.closed == 2


@pytest.mark.parametrize("media", [LINES, EVENTS])
async def test_an_error_midway_is_told(media: str) -> None:
    world = World()
    world.rag.midway = AWAY
    answer = await asked(world, media)
    told = parts(answer)
    assert answer.status_code == 200
    assert [next(iter(part)) for part in told] == ["header", "text", "text", "text", "error"]
    error = {"kind": "unavailable", "message": "the model went away", "model": "m"}
    assert told[-1]["error"] == error
    assert world.rag.closed == 1


async def test_an_error_midway_of_a_whole_answer() -> None:
    world = World()
    world.rag.midway = AWAY
    answer = await asked(world)
    assert (answer.status_code, answer.json()["detail"]) == (503, "the model went away")
    assert world.rag.closed == 1


class Cut(FakeRag):
    """Words, and no end."""

    async def _parts(self) -> AsyncIterator[g.AnswerPart]:
        yield g.AnswerPart("It ")


@pytest.mark.parametrize("media", ["application/json", LINES, EVENTS])
async def test_an_answer_without_an_end_is_an_error(media: str) -> None:
    world = World()
    world.rag = Cut()
    answer = await asked(world, media)
    if media == "application/json":
        assert (answer.status_code, answer.json()["retrieval_id"]) == (503, "R7")
    else:
        assert parts(answer)[-1]["error"]["retrieval_id"] == "R7"


@pytest.mark.parametrize("media", ["application/json", LINES, EVENTS])
async def test_without_a_model_the_error_carries_what_was_retrieved(media: str) -> None:
    world = World()
    where = {"number": 1, "text": TEXT, "version": 790}
    context: Any = [{**where, "key": "[7]", "start": 3, "end": 8}, "else"]
    world.rag.failing["answer"] = LakehouseError(
        ErrorKind.UNAVAILABLE, "no model answers", retrieval_id="R7", context=context
    )
    answer = await asked(world, media)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["retrieval_id"] == "R7"
    assert answer.json()["context"] == [{**where, "key": [7], "span": [3, 8]}, "else"]


class Slow(FakeRag):
    """A word, and then nothing for as long as it is waited for."""

    async def _parts(self) -> AsyncIterator[g.AnswerPart]:
        try:
            yield g.AnswerPart("It ")
            await asyncio.Event().wait()
        finally:
            self.closed += 1


@pytest.mark.parametrize("media", ["application/json", LINES])
async def test_a_client_that_goes_away_stops_the_model(media: str) -> None:
    world = World()
    world.rag = Slow()
    body = json.dumps(ASK).encode()
    received: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if received:
            return received.pop(0)
        while media == LINES and len(sent) < 3:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/vectors/rag",
        "raw_path": b"/vectors/rag",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"authorization", b"Bearer read"), (b"accept", media.encode())],
    }
    await asyncio.wait_for(world.app(scope, receive, send), 10)
    assert world.rag.closed == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"question": ""}, "body.question"),
        ({"question": "x" * (100 * 1024 + 1)}, "body.question"),
        ({"k": 0}, "body.k"),
        ({"k": 51}, "body.k"),
        ({"mode": "both"}, "body.mode"),
        ({"temperature": -1}, "body.temperature"),
        ({"tokens_max": -1}, "body.tokens_max"),
        ({"as_of": "yesterday"}, "as_of"),
        ({"prompt": "x"}, "body.prompt"),
    ],
)
async def test_questions_that_are_none(body: dict[str, Any], words: str) -> None:
    world = World()
    answer = await asked(world, **body)
    assert (answer.status_code, world.rag.calls) == (400, []), answer.text
    assert words in answer.json()["detail"]


async def test_a_question_of_100_kb_is_taken() -> None:
    world = World()
    answer = await asked(world, question="x" * (100 * 1024))
    assert answer.status_code == 200, answer.text[:500]


TURNS = "/memory/support/turns"
SAID = {"text": "It leaks", "who": "ann", "session": "s", "at": "2026-11-21T11:30:00+02:00"}
WAS_SAID = m.Turn("It leaks", "ann", "s", AT, ("a", "b"))
ONE_LINE = json.dumps({**SAID, "tags": ["a", "b"]})
BODIES: list[tuple[str, str, tuple[m.Turn, ...]]] = [
    (ONE_LINE, "application/json", (WAS_SAID,)),
    (ONE_LINE, LINES, (WAS_SAID,)),
    (f"[{ONE_LINE}]", "", (WAS_SAID,)),
    (json.dumps(json.loads(ONE_LINE), indent=1), "application/json", (WAS_SAID,)),
    (f'{ONE_LINE}\n\n{{"text": "b"}}\r\n', LINES, (WAS_SAID, m.Turn("b"))),
    (f'{ONE_LINE}\n{{"text": "b"}}', "application/x-www-form-urlencoded", (WAS_SAID, m.Turn("b"))),
    ("\n".join(['{"text": "%s"}' % ("x" * 1000)] * 200), LINES, (m.Turn("x" * 1000),) * 200),
]


@pytest.mark.parametrize(("body", "media", "turns"), BODIES, ids=range(len(BODIES)))
async def test_turns(body: str, media: str, turns: tuple[m.Turn, ...]) -> None:
    world = World()
    async with world.client("write") as client:
        headers = {"Content-Type": media, "Idempotency-Key": "k1"}
        answer = await client.post(TURNS, content=body, headers=headers)
        world.memory.created = False
        again = await client.post(f"{TURNS}?profile=short", content=body)
    assert (answer.status_code, again.status_code) == (201, 200), answer.text
    (_, ctx, first), (_, _, second) = world.memory.calls
    assert first == m.RememberRequest("support", turns)
    assert second == m.RememberRequest("support", turns, "short")
    assert ctx.idempotency_key == "k1"
    assert answer.json()["remembered"] == len(turns)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "body"),
        ("[]", "body"),
        ("{", "body"),
        ("7", "body"),
        ('{"text": ""}', "body.0.text"),
        ('{"text": "a"}\n{"txt": "b"}', "body.1."),
        ('{"text": "a"}\n{"text": "b"', "body"),
        ('{"text": "a", "at": "yesterday"}', "body.0.at"),
        ('{"text": "a", "at": "2026-01-01T00:00:00"}', "body.0.at"),
        ('{"text": "a", "at": "0001-01-01T00:00:00+14:00"}', "body.0.at"),
        ('{"text": "a", "tags": "b"}', "body.0.tags"),
        ('{"text": "a", "id": "b"}', "body.0.id"),
        ("[" + ",".join(['{"text": "a"}'] * 10_001) + "]", "10000"),
    ],
    ids=lambda value: value[:40],
)
async def test_turns_that_are_none(body: str, words: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.post(TURNS, content=body)
    assert (answer.status_code, world.memory.calls) == (400, []), answer.text
    assert words in answer.json()["detail"], answer.text
    assert answer.json()["hint"]


async def test_turns_in_another_form_and_too_many() -> None:
    async with World().client() as client:
        media = await client.post(TURNS, content="a", headers={"Content-Type": "text/csv"})
    async with World(GatewaySettings(json_bytes_max=100)).client() as client:
        large = await client.post(TURNS, content=b'{"text": "' + b"x" * 200 + b'"}')
    assert (media.status_code, large.status_code) == (415, 413)


async def test_recall() -> None:
    world = World()
    body = {
        "text": "roof",
        "k": 3,
        "mode": "text",
        "session": "s",
        "who": "w",
        "tags": ["a"],
        "since": "2026-11-01T00:00:00Z",
        "until": "2026-11-02T02:00:00+02:00",
        "also": ["tickets"],
        "record": "durable",
    }
    async with world.client("read") as client:
        answer = await client.post("/memory/support/recall", json=body)
        await client.post("/memory/support/recall", json={"text": "roof"})
    (_, _, full), (_, _, bare) = world.memory.calls
    assert full == m.RecallRequest(
        "support",
        "roof",
        3,
        SearchMode.TEXT,
        "s",
        "w",
        ("a",),
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 2, tzinfo=UTC),
        ("tickets",),
        RecordClass.DURABLE,
    )
    assert bare == m.RecallRequest("support", "roof")
    told = answer.json()
    assert [one["key"] for one in told["hits"]] == [["ab"], [7]]
    assert (told["hits"][0]["turn"]["who"], told["hits"][1]["turn"]) == ("ann", None)
    assert (told["retrieval_id"], told["behind"], told["degraded"]) == ("R7", True, False)


async def test_a_recall_reaches_back_by_a_duration_as_catching_up_does() -> None:
    world = World()
    async with world.client("read") as client:
        path, body = "/memory/support/recall", {"text": "roof", "since": "7d", "until": "1h"}
        assert (await client.post(path, json=body)).status_code == 200
        never = await client.post(path, json={"text": "roof", "since": None})
        for wrong in ("tomorrow", "2026-11-01", "2026-11-01T00:00:00", "x" * 65, 5):
            answer = await client.post(path, json={"text": "roof", "until": wrong})
            assert answer.status_code == 400, wrong
            assert "until" in answer.json()["detail"]
    first, second = (call[2] for call in world.memory.calls)
    apart = first.until - first.since - (timedelta(days=7) - timedelta(hours=1))
    assert timedelta(0) <= apart < timedelta(seconds=30)  # what passed between two looks at a clock
    assert (never.status_code, second.since, second.until) == (200, None, None)


async def test_catching_up_and_the_list() -> None:
    world = World()
    path = "/memory/support/catch-up"
    query = "since=2026-11-01T00:00:00Z&session=s&who=w&tag=a&tag=b&limit=7&cursor=c"
    async with world.client("read") as client:
        answer = await client.get(f"{path}?{query}")
        await client.get(path)
        listed = await client.get("/memory?limit=2&cursor=x")
    since = datetime(2026, 11, 1, tzinfo=UTC)
    asked = [call[2] for call in world.memory.calls]
    assert asked == [
        m.CatchUpRequest("support", since, "s", "w", ("a", "b"), 7, "c"),
        m.CatchUpRequest("support"),
        m.MemoriesRequest(2, "x"),
    ]
    told = answer.json()
    assert (told["cursor"], told["more"]) == ("on", True)
    assert told["turns"][0]["text"] == turn().text
    assert (listed.json()["memories"][0]["turns"], listed.json()["next"]) == (3, "more")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/memory/a%2Fb/recall"),
        ("GET", "/memory/a%2Fb/catch-up"),
        ("GET", "/retrievals/a%2Fb"),
    ],
)
async def test_a_slash_in_a_name(method: str, path: str) -> None:
    async with World().client() as client:
        answer = await client.request(method, path)
    assert (answer.status_code, "slash" in answer.json()["detail"]) == (400, True)
