"""An answer over gRPC: what was retrieved, then words in order; over when its caller is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from lakehouse.contracts.rag import (
    AnswerEnd,
    AnswerHeader,
    AnswerPart,
    AnswerRequest,
    AnswerStream,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from unit.rpc.loopback import context, loopback
from unit.rpc.samples import sample

HEADER: AnswerHeader = sample(AnswerHeader)
REQUEST: AnswerRequest = sample(AnswerRequest)
PARTS = (AnswerPart("They "), AnswerPart("mend [1]"), AnswerPart(end=sample(AnswerEnd)))


@dataclass
class Writer:
    """Answers with ``parts``, then fails with ``error``, or writes no more for ever."""

    parts: tuple[AnswerPart, ...] = ()
    error: LakehouseError | None = None
    refusal: LakehouseError | None = None
    endless: bool = False
    asked: list[tuple[Context, AnswerRequest]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, ctx: Context, request: AnswerRequest) -> AnswerStream:
        self.asked.append((ctx, request))
        if self.refusal is not None:
            raise self.refusal
        return AnswerStream(HEADER, self._written())

    async def _written(self) -> AsyncIterator[AnswerPart]:
        try:
            for part in self.parts:
                yield part
            if self.error is not None:
                raise self.error
            if self.endless:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


async def test_an_answer_arrives_whole_and_in_order() -> None:
    writer = Writer(PARTS)
    async with loopback({"rag": writer}) as there:
        stream = await there.client("Rag").answer(context(), REQUEST)
        told = tuple([part async for part in stream.parts])
    assert (stream.header, told) == (HEADER, PARTS)
    assert writer.asked[0][1] == REQUEST


async def test_an_error_in_mid_answer_is_typed() -> None:
    error = LakehouseError(ErrorKind.UNAVAILABLE, "the model broke off", hint="ask again")
    async with loopback({"rag": Writer(PARTS[:1], error)}) as there:
        stream = await there.client("Rag").answer(context(), REQUEST)
        assert await anext(stream.parts) == PARTS[0]
        with pytest.raises(LakehouseError) as caught:
            await anext(stream.parts)
    assert (caught.value.kind, caught.value.fields) == (error.kind, error.fields)


async def test_a_refusal_carries_what_was_retrieved() -> None:
    context_found = [{"number": 1, "text": "a gloss", "key": "[7]"}]
    refusal = LakehouseError(
        ErrorKind.UNAVAILABLE, "no model", retrieval_id="01J", context=context_found
    )
    async with loopback({"rag": Writer(refusal=refusal)}) as there:
        with pytest.raises(LakehouseError) as caught:
            await there.client("Rag").answer(context(), REQUEST)
    assert caught.value.fields == {"retrieval_id": "01J", "context": context_found}


@pytest.mark.parametrize("read", [0, 1])
async def test_closing_the_parts_stops_the_model(read: int) -> None:
    writer = Writer(PARTS[:1], endless=True)
    async with loopback({"rag": writer}) as there:
        stream = await there.client("Rag").answer(context(), REQUEST)
        for _ in range(read):
            await anext(stream.parts)
        await stream.parts.aclose()  # type: ignore[attr-defined]
        with pytest.raises(StopAsyncIteration):
            await anext(stream.parts)
        await asyncio.wait_for(writer.closed.wait(), 5)
