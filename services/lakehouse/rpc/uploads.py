"""A request and the body that belongs to it, in one stream of parts: both sides of such a call.

A part is a message with the fields ``request``, ``chunk`` and ``end`` (which may state the size).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.rpc.calls import pieces
from lakehouse.rpc.serving import Call

_HEAR_OUT_SECONDS: Final = 2.0
_SILENCE_SECONDS: Final = 0.1
_HEARD: Final = (
    TimeoutError,
    StopAsyncIteration,
    grpc.aio.AioRpcError,
    grpc.aio.UsageError,
    asyncio.InvalidStateError,
)


async def parts_of(
    part: Any, request: Any, body: AsyncIterator[bytes]
) -> AsyncGenerator[bytes, None]:
    """The messages of a call: the request, the chunks of ``body``, the end with its size."""
    yield part(request=request).SerializeToString()
    size = 0
    async for chunk in body:
        size += len(chunk)
        for piece in pieces(chunk):
            yield part(chunk=piece).SerializeToString()
    yield part(end={"size_bytes": size}).SerializeToString()


async def request_of(part: Any, parts: AsyncIterator[bytes]) -> Any:
    """The request, which is the first part. Raises ``invalid``."""
    first = _read(part, await anext(parts, b""))
    if first.WhichOneof("part") != "request":
        raise _out_of_order("the first part must be the request")
    return first.request


async def body_of(part: Any, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks up to the end. A stream without one was cut off: that is never a whole body."""
    size = 0
    async for data in parts:
        read = _read(part, data)
        which = read.WhichOneof("part")
        if which == "chunk":
            size += len(read.chunk)
            yield read.chunk
        elif which == "end":
            if read.end.HasField("size_bytes") and read.end.size_bytes != size:
                raise _cut_off(size, read.end.size_bytes)
            return
        else:
            raise _out_of_order("after the request only chunks and the end may come")
    raise _cut_off(size, None)


async def hear_out(call: Call, parts: AsyncIterator[bytes]) -> None:
    """Before a refusal: tell the caller to stop, and take what is under way.

    A status that meets a message on its way in makes grpc's client forget the status, and the
    caller would not learn why it was refused, nor that nothing was done.
    """
    with contextlib.suppress(*_HEARD):
        async with asyncio.timeout(_HEAR_OUT_SECONDS):
            await call.send_initial_metadata(())
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await anext(parts)


def _read(part: Any, data: bytes) -> Any:
    try:
        return part.FromString(data)
    except DecodeError as error:
        raise _out_of_order(f"these bytes are no {part.DESCRIPTOR.name}") from error


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
        hint="nothing was kept of it; send the whole body again, and an end as its last part",
    )
