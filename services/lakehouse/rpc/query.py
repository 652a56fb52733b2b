"""Queries over gRPC: the header first, then the document in chunks, in one stream of parts."""

from __future__ import annotations

import functools
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from lakehouse.contracts import query as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import decode_answer, unreadable
from lakehouse.rpc.calls import Chunks, Peer, pieces, receive
from lakehouse.rpc.convert import parse, to_message
from lakehouse.rpc.serving import Call, Edge, Servicer, close_chunks
from lakehouse.v1.query_pb2 import QueryPart


class QueryClient:
    """``QueryService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Query", c.QueryService)

    async def run(self, ctx: Context, request: c.QueryRequest) -> c.QueryStream:
        failure = functools.partial(self._peer.failure, method="run", ctx=ctx)
        with self._peer.span("run"):
            call = self._peer.stream_out("run", ctx, to_message(request).SerializeToString())
            first = _part(await receive(call, failure) or b"")
        if first.WhichOneof("part") != "header":
            call.cancel()
            raise LakehouseError(ErrorKind.INTERNAL, "the peer sent a result without a header")
        header = await decode_answer(c.QueryHeader, first.header.SerializeToString())
        return c.QueryStream(header, Chunks(call, _chunk_of, failure))

    async def running(self, ctx: Context, request: c.RunningRequest) -> c.RunningResult:
        return await self._peer.unary("running", ctx, request, c.RunningResult)

    async def cancel(self, ctx: Context, request: c.CancelRequest) -> c.CancelResult:
        return await self._peer.unary("cancel", ctx, request, c.CancelResult)


def _chunk_of(data: bytes) -> bytes:
    return _part(data).chunk


def _part(data: bytes) -> QueryPart:
    try:
        return QueryPart.FromString(data)
    except DecodeError as error:
        raise unreadable(QueryPart, "the peer's answer cannot be read", error) from error


class QueryServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.QueryService, edge: Edge) -> None:
        super().__init__("Query", c.QueryService, service, edge)
        self._run = service.run

    def streams(self) -> dict[str, Any]:
        return {"run": grpc.unary_stream_rpc_method_handler(self._handle)}

    async def _handle(self, data: bytes, call: Call) -> Any:
        body = functools.partial(self._answer, data, call)
        return await self._edge.serve(call, self.methods["run"].path, body)

    async def _answer(self, data: bytes, call: Call, ctx: Context) -> None:
        """Write the result as fast as the caller reads it; a caller that goes away stops it."""
        stream = await self._run(ctx, parse(c.QueryRequest, data)[0])
        try:
            header: Any = to_message(stream.header)
            await call.write(QueryPart(header=header).SerializeToString())
            async for chunk in stream.chunks:
                for piece in pieces(chunk):
                    await call.write(QueryPart(chunk=piece).SerializeToString())
        finally:
            await close_chunks(stream.chunks)
