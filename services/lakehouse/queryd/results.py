"""The bytes of a result as they come from a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import orjson

from lakehouse.contracts.query import ResultFormat
from lakehouse.errors import LakehouseError
from lakehouse.queryd.process import Inbox
from lakehouse.queryd.wire import FRAME_BYTES_MAX, Frame


class Chunks(AsyncIterator[bytes]):
    """Chunks of one document. ``aclose`` before the end kills the query.

    The worker runs ahead of the reader by what the inbox holds, and is free once it has said all;
    while the inbox is full the query's own time does not run (``pool`` bounds that wait).
    """

    def __init__(self, inbox: Inbox, stack: ExitStack, kind: ResultFormat) -> None:
        self._inbox = inbox
        self._stack = stack
        self._lines = kind is ResultFormat.NDJSON
        self._line_open = False
        self._done = False
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._done:
            raise StopAsyncIteration
        try:
            kind, body = await self._inbox.get()
        except LakehouseError as error:
            await self.aclose()
            if not self._lines:
                raise
            return self._error_line(error)
        except BaseException:
            await self.aclose()
            raise
        if kind is Frame.END:
            await self.aclose()
            raise StopAsyncIteration
        self._line_open = not body.endswith(b"\n")
        return body

    def whole(self) -> bytes | None:
        """The rest of the document if it has come to its end and is small, else None."""
        rest = None if self._done else self._inbox.take_all(FRAME_BYTES_MAX)
        if rest is not None:
            self._done = True
            self._stack.close()
        return rest

    def _error_line(self, error: LakehouseError) -> bytes:
        told = {"kind": error.kind.value, "message": error.message, **error.fields}
        lead = b"\n" if self._line_open else b""
        return lead + orjson.dumps({"error": told}) + b"\n"

    async def aclose(self) -> None:
        """End the query; idempotent."""
        self._done = True
        self._inbox.clear()
        self._stack.close()

    def __del__(self) -> None:
        if not self._done and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stack.close)
