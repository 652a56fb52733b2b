"""The journal over gRPC; a feed is a stream of parts, each with the events of one commit."""

from __future__ import annotations

import functools
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from lakehouse.contracts import journal as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.model.events import JournalEvent
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import unreadable
from lakehouse.rpc.calls import Chunks, Peer, receive
from lakehouse.rpc.convert import from_message, parse, to_message
from lakehouse.rpc.serving import Call, Edge, Servicer, close_chunks
from lakehouse.v1.journal_pb2 import FeedPart

PART_EVENTS_MAX = 1_000


class JournalClient:
    """``JournalService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Journal", c.JournalService)

    async def events(self, ctx: Context, request: c.EventsRequest) -> c.EventsResult:
        return await self._peer.unary("events", ctx, request, c.EventsResult)

    async def history(self, ctx: Context, request: c.HistoryRequest) -> c.HistoryResult:
        return await self._peer.unary("history", ctx, request, c.HistoryResult)

    async def feed(self, ctx: Context, request: c.FeedRequest) -> c.FeedStream:
        failure = functools.partial(self._peer.failure, method="feed", ctx=ctx)
        with self._peer.span("feed"):
            call = self._peer.stream_out("feed", ctx, to_message(request).SerializeToString())
            first = _part(await receive(call, failure) or b"")
        if not first.dataset:
            call.cancel()
            raise LakehouseError(ErrorKind.INTERNAL, "the peer sent a feed without its dataset")
        return c.FeedStream(first.dataset, Chunks(call, _events, failure))


def _events(data: bytes) -> tuple[JournalEvent, ...]:
    return tuple(from_message(JournalEvent, one) for one in _part(data).events)


def _part(data: bytes) -> FeedPart:
    try:
        return FeedPart.FromString(data)
    except DecodeError as error:
        raise unreadable(FeedPart, "the peer's answer cannot be read", error) from error


class JournalServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.JournalService, edge: Edge) -> None:
        super().__init__("Journal", c.JournalService, service, edge)
        self._feed = service.feed

    def streams(self) -> dict[str, Any]:
        return {"feed": grpc.unary_stream_rpc_method_handler(self._handle)}

    async def _handle(self, data: bytes, call: Call) -> Any:
        body = functools.partial(self._answer, data, call)
        return await self._edge.serve(call, self.methods["feed"].path, body)

    async def _answer(self, data: bytes, call: Call, ctx: Context) -> None:
        """The name of the dataset at once, then commit by commit as fast as the caller reads."""
        stream = await self._feed(ctx, parse(c.FeedRequest, data)[0])
        try:
            await call.write(FeedPart(dataset=stream.dataset).SerializeToString())
            async for group in stream.groups:
                for start in range(0, len(group), PART_EVENTS_MAX):
                    part: Any = [to_message(one) for one in group[start : start + PART_EVENTS_MAX]]
                    await call.write(FeedPart(events=part).SerializeToString())
        finally:
            await close_chunks(stream.groups)
