"""A feed over gRPC: whole, in order, bounded in its parts, and over when its caller is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest

from lakehouse.contracts.journal import FeedRequest, FeedStream
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.events import JournalEvent
from lakehouse.model.identity import Context
from lakehouse.rpc.journal import PART_EVENTS_MAX, JournalClient
from unit.rpc.loopback import CLOCK, context, loopback
from unit.rpc.samples import sample

EVENT: JournalEvent = sample(JournalEvent)
REQUEST = FeedRequest("people", 3, True)


@dataclass
class Teller:
    """A journal whose feed tells ``groups``, then fails with ``error``, or waits for ever."""

    groups: tuple[tuple[JournalEvent, ...], ...] = ()
    error: LakehouseError | None = None
    endless: bool = False
    asked: list[tuple[Context, FeedRequest]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def feed(self, ctx: Context, request: FeedRequest) -> FeedStream:
        self.asked.append((ctx, request))
        return FeedStream("People", self._told())

    async def _told(self) -> AsyncIterator[tuple[JournalEvent, ...]]:
        try:
            for group in self.groups:
                yield group
            if self.error is not None:
                raise self.error
            if self.endless:
                await asyncio.Event().wait()
        finally:
            self.closed.set()

    def __getattr__(self, name: str) -> Any:
        return None


async def test_a_feed_arrives_whole_and_in_order() -> None:
    many = tuple(replace(EVENT, ordinal=n) for n in range(PART_EVENTS_MAX + 3))
    teller = Teller(groups=((EVENT,), many))
    async with loopback({"journal": teller}) as there:
        stream = await there.client("Journal").feed(context(), REQUEST)
        told = [group async for group in stream.groups]
    assert stream.dataset == "People"
    assert teller.asked[0][1] == REQUEST
    assert [len(group) for group in told] == [1, PART_EVENTS_MAX, 3]
    assert sum(told, ()) == (EVENT, *many)


async def test_an_error_in_mid_feed_is_typed() -> None:
    error = LakehouseError(ErrorKind.UNAVAILABLE, "the server is stopping", hint="come back")
    async with loopback({"journal": Teller(((EVENT,),), error)}) as there:
        stream = await there.client("Journal").feed(context(), REQUEST)
        assert await anext(stream.groups) == (EVENT,)
        with pytest.raises(LakehouseError) as caught:
            await anext(stream.groups)
    assert (caught.value.kind, caught.value.fields) == (error.kind, error.fields)


@pytest.mark.parametrize("read", [0, 1])
async def test_closing_the_groups_ends_the_feed(read: int) -> None:
    teller = Teller(((EVENT,),), endless=True)
    async with loopback({"journal": teller}) as there:
        stream = await there.client("Journal").feed(context(), REQUEST)
        for _ in range(read):
            await anext(stream.groups)
        await stream.groups.aclose()  # type: ignore[attr-defined]
        with pytest.raises(StopAsyncIteration):
            await anext(stream.groups)
        await asyncio.wait_for(teller.closed.wait(), 5)


async def test_a_feed_without_its_dataset_is_refused() -> None:
    async def nothing(data: bytes, call: Any) -> None:
        return None

    server = grpc.aio.server()
    handlers = {"Feed": grpc.unary_stream_rpc_method_handler(nothing)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("lakehouse.v1.Journal", handlers),)
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(LakehouseError) as caught:
                await JournalClient(channel, CLOCK).feed(context(), REQUEST)
        assert caught.value.kind is ErrorKind.INTERNAL
    finally:
        await server.stop(0)
