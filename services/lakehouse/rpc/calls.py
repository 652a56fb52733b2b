"""The calling side: contract values in, contract values out, every failure a LakehouseError."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, TypeVar

import grpc

from lakehouse.errors import LakehouseError
from lakehouse.kit import tracing
from lakehouse.kit.clock import Clock
from lakehouse.kit.tracing import Span, SpanKind
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import decode_answer, encode
from lakehouse.rpc.context import metadata_of, timeout_of
from lakehouse.rpc.errors import from_rpc
from lakehouse.rpc.methods import Method, methods_of

CHUNK_BYTES_MAX: Final = 1 << 20
"""Chunks of a stream are cut to this, well below the 4 MiB that any gRPC peer takes."""

T = TypeVar("T")

_AIO: Final[Any] = grpc.aio  # the stubs do not know EOF


def pieces(chunk: bytes) -> Iterator[bytes]:
    """``chunk`` in pieces of at most ``CHUNK_BYTES_MAX``; nothing for an empty one."""
    if len(chunk) <= CHUNK_BYTES_MAX:
        if chunk:
            yield chunk
        return
    view = memoryview(chunk)
    for start in range(0, len(view), CHUNK_BYTES_MAX):
        yield bytes(view[start : start + CHUNK_BYTES_MAX])


class Peer:
    """One contract at the other end of a channel. The channel is the caller's to close."""

    def __init__(self, channel: Any, clock: Clock, noun: str, protocol: object) -> None:
        # A ``grpc.aio.Channel``; its stubs want serializers that may be left out.
        self._channel = channel
        self._clock = clock
        self._methods = methods_of(noun, protocol)
        self._unary: dict[str, Any] = {
            name: self._channel.unary_unary(method.path) for name, method in self._methods.items()
        }

    async def unary(self, name: str, ctx: Context, request: object, answer: type[T]) -> T:
        """Call method ``name`` and wait for its answer."""
        if tracing.tracer is None:
            return await self._call(name, ctx, request, answer)
        with self.span(name):
            return await self._call(name, ctx, request, answer)

    def span(self, name: str) -> AbstractContextManager[Span]:
        """The span of a call of method ``name``, for the time until its first answer."""
        path = self._methods[name].path[1:]
        service, _, method = path.partition("/")
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        return tracing.span(path, SpanKind.CLIENT, about)

    async def _call(self, name: str, ctx: Context, request: object, answer: type[T]) -> T:
        method = self._methods[name]
        message = await encode(request, ctx.idempotency_key)
        timeout = timeout_of(ctx, self._clock)
        try:
            data = await self._unary[name](message, metadata=metadata_of(ctx), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise self.failure(error, method, ctx) from error
        return await decode_answer(answer, data)

    def stream_in(self, name: str, ctx: Context) -> Any:
        """Begin a call that sends many messages and gets one answer."""
        timeout = timeout_of(ctx, self._clock)
        call = self._channel.stream_unary(self._methods[name].path)
        return call(metadata=metadata_of(ctx), timeout=timeout)

    def stream_out(self, name: str, ctx: Context, message: bytes) -> Any:
        """Begin a call that sends one message and gets many answers."""
        timeout = timeout_of(ctx, self._clock)
        call = self._channel.unary_stream(self._methods[name].path)
        return call(message, metadata=metadata_of(ctx), timeout=timeout)

    def failure(
        self, error: grpc.aio.AioRpcError, method: Method | str, ctx: Context
    ) -> LakehouseError:
        """The typed error of a failed call."""
        known = self._methods[method] if isinstance(method, str) else method
        return from_rpc(error, known.path, ctx.idempotency_key, known.changes)


async def send_all(call: Any, messages: AsyncGenerator[bytes, None]) -> None:
    """Write ``messages`` to a call as fast as the peer takes them, then half-close.

    An error of the source cancels the call and is raised here: the peer never sees a short stream
    as a whole one. A call that has ended meanwhile is not an error: its answer says why. A peer
    that has heard enough says so by the head of its answer, and nothing more is written.
    """
    heard = asyncio.ensure_future(call.initial_metadata())
    try:
        async with contextlib.aclosing(messages):
            async for message in messages:
                if heard.done():
                    break
                try:
                    await call.write(message)
                except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
                    return
        await call.done_writing()
    except BaseException:
        call.cancel()
        raise
    finally:
        heard.cancel()
        await asyncio.gather(heard, return_exceptions=True)


class Chunks(Generic[T]):
    """The parts of an answer as they come, each as ``chunk_of`` reads it; ``aclose``, or letting go
    of it, cancels the call."""

    def __init__(self, call: Any, chunk_of: Callable[[bytes], T], failure: Any) -> None:
        self._call = call
        self._chunk_of = chunk_of
        self._failure = failure
        self._closed = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        data = None if self._closed else await receive(self._call, self._failure)
        if data is None:
            raise StopAsyncIteration
        return self._chunk_of(data)

    async def aclose(self) -> None:
        """End the call; the peer is told to stop. Nothing comes after it."""
        self._closed = True
        self._call.cancel()

    def __del__(self) -> None:
        # The call sits in reference cycles of the library's and would run on until their turn.
        if not self._call.done():
            self._call.cancel()


async def receive(call: Any, failure: Any) -> bytes | None:
    """The next message of a call, None at its end; ``failure`` types the error of a status."""
    try:
        data = await call.read()
    except grpc.aio.AioRpcError as error:
        raise failure(error) from error
    return None if data is _AIO.EOF else data
