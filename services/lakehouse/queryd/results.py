"""The bytes of a result as they come from a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import orjson

from lakehouse.contracts.query import ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.queryd.pool import WorkerProcess
from lakehouse.queryd.wire import Frame

STALL_SECONDS_MAX: Final = 300.0


class Chunks(AsyncIterator[bytes]):
    """Chunks of one document. ``aclose`` before the end kills the query.

    While the reader is slow the query's own time does not run; a reader that stalls for five
    minutes loses the query.
    """

    def __init__(
        self, worker: WorkerProcess, stack: AsyncExitStack, kind: ResultFormat, clock: Clock
    ) -> None:
        self._worker = worker
        self._stack = stack
        self._lines = kind is ResultFormat.NDJSON
        self._clock = clock
        self._left = worker.deadline - clock.monotonic()
        self._line_open = False
        self._done = False
        self._loop = asyncio.get_running_loop()
        self._pause()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def _pause(self) -> None:
        self._left = max(0.0, self._worker.deadline - self._clock.monotonic())
        self._worker.deadline = self._clock.monotonic() + STALL_SECONDS_MAX

    async def __anext__(self) -> bytes:
        if self._done:
            raise StopAsyncIteration
        self._worker.deadline = self._clock.monotonic() + self._left
        try:
            kind, body = await self._worker.receive()
        except LakehouseError as error:
            gone = self._worker.stopped is not None or self._worker.process.poll() is not None
            self._worker.busy = gone
            await self.aclose()
            if not self._lines:
                raise
            return self._error_line(error)
        except BaseException:
            await self.aclose()
            raise
        if kind is Frame.END:
            self._worker.busy = False
            await self.aclose()
            raise StopAsyncIteration
        self._line_open = not body.endswith(b"\n")
        self._pause()
        return body

    def _error_line(self, error: LakehouseError) -> bytes:
        told = {"kind": error.kind.value, "message": error.message, **error.fields}
        lead = b"\n" if self._line_open else b""
        return lead + orjson.dumps({"error": told}) + b"\n"

    async def aclose(self) -> None:
        """End the query; idempotent."""
        if not self._done:
            self._done = True
            await self._stack.aclose()

    def __del__(self) -> None:
        if not self._done:
            gone = LakehouseError(ErrorKind.UNAVAILABLE, "the result was given up")
            self._worker.stop(gone)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._loop.create_task, self._stack.aclose())
