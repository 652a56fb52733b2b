"""The contract of answers, called directly and over gRPC; the writer's words are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from contracts.world import READER, Doorkeeper
from lakehouse.contracts import rag as c
from lakehouse.contracts.retrievals import RetrievalRequest
from lakehouse.errors import ErrorKind, LakehouseError
from support_retrieval import Library, ScriptedWriter, library
from unit.rpc.loopback import loopback

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED = c.AnswerRequest("books", "where does the red fox run", k=2, model="scripted")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with library(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def rag(here: Library, transport: str) -> AsyncIterator[Any]:
    writer = here.writer
    writer.words, writer.failure, writer.endless = ScriptedWriter().words, None, False
    writer.stopped.clear()
    if transport == "direct":
        yield here.role.rag
        return
    async with loopback({"rag": here.role.rag}, Doorkeeper(None)) as there:
        yield there.client("Rag")


async def test_an_answer_cites_what_it_was_given(here: Library, rag: Any) -> None:
    here.writer.words = ["It runs ", "through the snow [1]", " and [2] and [9] and [1]."]
    stream = await rag.answer(READER, ASKED)
    parts = [part async for part in stream.parts]
    head, end = stream.header, parts[-1].end
    assert [one.number for one in head.context] == [1, 2]
    assert head.context[0].key == "[1]"
    assert head.context[0].text == "a red fox\nruns through the snow"
    assert (head.model, head.degraded) == ("scripted", False)
    assert end.answer == "".join(part.text for part in parts[:-1]) == "".join(here.writer.words)
    assert (end.cited, end.unknown) == ((1, 2), (9,))
    assert (end.done_reason, end.prompt_tokens, end.answer_tokens) == ("stop", 7, 3)
    kept = await here.role.retrievals.get(READER, RetrievalRequest(head.retrieval_id))
    assert kept.retrieval.purpose == "rag"
    assert [ref.key for ref in kept.retrieval.hits] == [one.key for one in head.context]


async def test_without_a_model_the_context_comes_with_the_refusal(here: Library, rag: Any) -> None:
    here.writer.words = []
    here.writer.failure = LakehouseError(ErrorKind.UNAVAILABLE, "no model here can write")
    with pytest.raises(LakehouseError) as caught:
        await rag.answer(READER, ASKED)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.fields["context"][0]["text"].startswith("a red fox")
    name = caught.value.fields["retrieval_id"]
    assert (await here.role.retrievals.get(READER, RetrievalRequest(name))).retrieval.id == name


async def test_no_model_is_named_anywhere(rag: Any) -> None:
    with pytest.raises(LakehouseError) as caught:
        await rag.answer(READER, replace(ASKED, model=""))
    assert caught.value.kind in (ErrorKind.UNAVAILABLE, ErrorKind.INVALID)
    assert caught.value.fields["context"]
    assert caught.value.fields["hint"]


async def test_a_model_that_breaks_off(here: Library, rag: Any) -> None:
    here.writer.failure = LakehouseError(ErrorKind.UNAVAILABLE, "the model broke off")
    stream = await rag.answer(READER, ASKED)
    said: list[str] = []

    async def read() -> None:
        async for part in stream.parts:
            said.append(part.text)

    with pytest.raises(LakehouseError) as caught:
        await read()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "".join(said) == "".join(here.writer.words)


async def test_who_goes_away_stops_the_model(here: Library, rag: Any) -> None:
    here.writer.endless = True
    stream = await rag.answer(READER, ASKED)
    await anext(stream.parts)
    await stream.parts.aclose()
    await asyncio.wait_for(here.writer.stopped.wait(), 10)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"question": " "}, ErrorKind.INVALID),
        ({"question": "x" * (c.QUESTION_BYTES_MAX + 1)}, ErrorKind.INVALID),
        ({"k": 0}, ErrorKind.INVALID),
        ({"k": c.CONTEXT_MAX + 1}, ErrorKind.INVALID),
        ({"index": "boks"}, ErrorKind.NOT_FOUND),
        ({"filter": "no such column = 1"}, ErrorKind.INVALID),
        ({"temperature": -1.0}, ErrorKind.INVALID),
        ({"tokens_max": -1}, ErrorKind.INVALID),
    ],
)
async def test_bad_questions(rag: Any, change: dict[str, Any], kind: ErrorKind) -> None:
    with pytest.raises(LakehouseError) as caught:
        await rag.answer(READER, replace(ASKED, **change))
    assert caught.value.kind is kind
