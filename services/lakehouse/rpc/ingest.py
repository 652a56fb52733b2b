"""Ingest over gRPC: the request, the body in chunks, and its end, in one stream of parts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from lakehouse.contracts import ingest as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import decode_answer, encode_answer
from lakehouse.rpc.calls import Peer, pieces, send_all
from lakehouse.rpc.convert import from_message, to_message
from lakehouse.rpc.methods import key_of, set_key
from lakehouse.rpc.serving import Call, Edge, Servicer
from lakehouse.v1.ingest_pb2 import IngestEnd, IngestPart

_HEAR_OUT_SECONDS: Final = 2.0
_SILENCE_SECONDS: Final = 0.1
_HEARD: Final = (
    TimeoutError,
    StopAsyncIteration,
    grpc.aio.AioRpcError,
    grpc.aio.UsageError,
    asyncio.InvalidStateError,
)


class IngestClient:
    """``IngestService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Ingest", c.IngestService)

    async def ingest(
        self, ctx: Context, request: c.IngestRequest, body: AsyncIterator[bytes]
    ) -> c.IngestReport:
        message = to_message(request)
        set_key(message, ctx.idempotency_key)
        call = self._peer.stream_in("ingest", ctx)
        await send_all(call, _parts(message, body))
        try:
            data = await call
        except grpc.aio.AioRpcError as error:
            raise self._peer.failure(error, "ingest", ctx) from error
        return await decode_answer(c.IngestReport, data)


async def _parts(request: Any, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield IngestPart(request=request).SerializeToString()
    size = 0
    async for chunk in body:
        size += len(chunk)
        for piece in pieces(chunk):
            yield IngestPart(chunk=piece).SerializeToString()
    yield IngestPart(end=IngestEnd(size_bytes=size)).SerializeToString()


class IngestServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.IngestService, edge: Edge) -> None:
        super().__init__("Ingest", c.IngestService, service, edge)
        self._ingest = service.ingest

    def streams(self) -> dict[str, Any]:
        return {"ingest": grpc.stream_unary_rpc_method_handler(self._handle)}

    async def _handle(self, messages: AsyncIterator[bytes], call: Call) -> Any:
        parts = aiter(messages)
        body = functools.partial(self._answer, parts)
        farewell = functools.partial(_hear_out, call, parts)
        return await self._edge.serve(call, self.methods["ingest"].path, body, farewell)

    async def _answer(self, parts: AsyncIterator[bytes], ctx: Context) -> bytes:
        first = _part(await anext(parts, b""))
        if first.WhichOneof("part") != "request":
            raise _out_of_order("the first part must be the request")
        request = from_message(c.IngestRequest, first.request)
        ctx = replace(ctx, idempotency_key=key_of(first.request))
        report = await self._ingest(ctx, request, _body(parts))
        return await encode_answer(report)


async def _hear_out(call: Call, parts: AsyncIterator[bytes]) -> None:
    """Before a refusal: tell the caller to stop, and take what is under way.

    A status that meets a message on its way in makes grpc's client forget the status, and the
    caller would not learn why it was refused, nor that nothing was committed.
    """
    with contextlib.suppress(*_HEARD):
        async with asyncio.timeout(_HEAR_OUT_SECONDS):
            await call.send_initial_metadata(())
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await anext(parts)


async def _body(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks up to the end. A stream without one was cut off: that is never a whole body."""
    size = 0
    async for data in messages:
        part = _part(data)
        which = part.WhichOneof("part")
        if which == "chunk":
            size += len(part.chunk)
            yield part.chunk
        elif which == "end":
            if part.end.HasField("size_bytes") and part.end.size_bytes != size:
                raise _cut_off(size, part.end.size_bytes)
            return
        else:
            raise _out_of_order("after the request only chunks and the end may come")
    raise _cut_off(size, None)


def _part(data: bytes) -> IngestPart:
    try:
        return IngestPart.FromString(data)
    except DecodeError as error:
        raise _out_of_order("these bytes are no IngestPart") from error


def _out_of_order(what: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID, what, hint="send the request, then the chunks of the body, then the end"
    )


def _cut_off(size: int, announced: int | None) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "the body was cut off before its end",
        received_bytes=size,
        announced_bytes=announced,
        hint="nothing was committed; send the whole body again, and an end as its last part",
    )
