"""Answers: JSON by orjson with the version that was read, and results that stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from http import HTTPStatus
from typing import Any, Final, TypeVar, cast

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

JSON_TYPE: Final = "application/json"
VERSION_HEADER: Final = "Lakehouse-Version"
_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY


def reply(
    content: object, version: int | None = None, status: int = HTTPStatus.OK.value
) -> Response:
    """``content`` (dataclasses, dicts, aware times, arrays of numbers) as JSON; ``version`` of the
    store goes into the header Lakehouse-Version."""
    headers = {} if version is None else {VERSION_HEADER: str(version)}
    return Response(orjson.dumps(content, option=_OPTIONS), status, headers, JSON_TYPE)


def made(content: object, version: int, created: bool) -> Response:
    """201 where the call made something, 200 where it was there before."""
    status = HTTPStatus.CREATED if created else HTTPStatus.OK
    return reply(content, version, status.value)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``; it is cancelled if the client goes away first.

    The request's body must have been read to its end.

    Raises:
        ClientDisconnect: the client went away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await stop(watching, working)


class ChunkedReply(Response):
    """Chunks as they come, one in flight; ``chunks`` is closed whatever happens.

    An error in mid-stream leaves the body without its end. A client that goes away closes
    ``chunks`` at once, also while the next one is awaited. ``at_once``: the head goes out before
    the first chunk is there, which may be long in coming.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        media_type: str,
        headers: dict[str, str],
        status: int = HTTPStatus.OK.value,
        *,
        at_once: bool = False,
    ) -> None:
        self.chunks = chunks
        self.at_once = at_once
        self.status_code = status
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole = _whole(self.chunks)
        if whole is not None:
            # It has all come: there is nothing to wait for, and so nobody to watch meanwhile.
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": whole, "more_body": False})
            return
        pumping = asyncio.ensure_future(self._pump(send))
        watching = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((pumping, watching), return_when=asyncio.FIRST_COMPLETED)
            if not pumping.done():
                raise ClientDisconnect
            pumping.result()
        finally:
            await stop(watching, pumping)
            await _close(self.chunks)

    async def _pump(self, send: Send) -> None:
        start: dict[str, Any] = {"type": "http.response.start", "status": self.status_code}
        # The first chunk is awaited before the status goes out: what fails before any row is
        # still a problem document.
        chunk = b"" if self.at_once else await _next_full(self.chunks)
        await send({**start, "headers": self.raw_headers})
        if self.at_once:
            chunk = await _next_full(self.chunks)
        while chunk:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await _next_full(self.chunks)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _next_full(chunks: AsyncIterator[bytes]) -> bytes:
    """The next chunk that has bytes; b"" at the end."""
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def stop(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait until it has ended; nothing is raised."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen, whoever else looks at it


def _whole(chunks: AsyncIterator[bytes]) -> bytes | None:
    """All of ``chunks``, if they can tell that they are few and there; then they are closed."""
    take = getattr(chunks, "whole", None)
    return None if take is None else cast("bytes | None", take())


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
