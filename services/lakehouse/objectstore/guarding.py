"""What a bucket in trouble may cost: a deadline an attempt, bounded places, a circuit breaker.

Refused here means refused unsent (``answers.was_sent``), at once, with a hint; whoever holds a copy
elsewhere need not wait. An attempt that overruns its deadline is ``timeout``, and a write that did
is unknown as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.answers import StoreError
from lakehouse.objectstore.arguments import PART_BYTES
from lakehouse.objectstore.breaker import Admission
from lakehouse.objectstore.bulkhead import NoPlaceError
from lakehouse.objectstore.deadlines import size_unknown
from lakehouse.objectstore.health import BucketWatch
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, ObjectStore, OpenedObject
from lakehouse.objectstore.sources import Source
from lakehouse.objectstore.wrapping import ForwardingStore

R = TypeVar("R")

# A probe must fail soon, or the bucket is looked for too seldom; a slow bucket gets more.
_PROBE_SECONDS: Final = 2.0
_PROBE_LATENCIES: Final = 4.0
# An attempt that its caller gives up after so long was not answered by the bucket's fault.
_SILENCE_SECONDS: Final = 2.0
_UNKNOWN: Final = -1
_OPEN: Final = "the bucket does not answer: its circuit breaker is open"


class ObservedStore(ForwardingStore):
    """Tells the bucket's watch what became of every attempt, and refuses a bucket that was removed.

    For the ledger, which settles its own attempts and must not be refused by a breaker; its
    successes close that of the others all the same.
    """

    def __init__(self, inner: ObjectStore, watch: BucketWatch) -> None:
        super().__init__(inner)
        self.watch = watch

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        size = _UNKNOWN if byte_range is None else byte_range.end - byte_range.start
        return await self._go(size, lambda: self.inner.get(key, byte_range))

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self._go(len(data), lambda: self.inner.put(key, data, if_absent=if_absent))

    async def head(self, key: str) -> ObjectMeta:
        return await self._go(0, lambda: self.inner.head(key))

    async def delete(self, keys: Sequence[str]) -> None:
        await self._go(0, lambda: self.inner.delete(keys))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self._go(
            0, lambda: self.inner.list(prefix, start_after=start_after, limit=limit)
        )

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        browse = super().browse
        return await self._go(0, lambda: browse(prefix, after=after, limit=limit, folders=folders))

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        opening = super().open
        opened = await self._go(0, lambda: opening(key, byte_range))
        return replace(opened, chunks=self._rest(opened.chunks))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        chunks = super().stream(key)
        first = await self._go(PART_BYTES, lambda: anext(chunks, None))
        if first is not None:
            yield first
            async for chunk in self._rest(chunks):
                yield chunk

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        source = Source(chunks, self.watch.clock)
        put = super().put_stream
        return await self._go(PART_BYTES, lambda: put(key, source), source)

    async def _go(
        self, size_bytes: int, call: Callable[[], Awaitable[R]], source: Source | None = None
    ) -> R:
        """The answer to a request whose body has ``size_bytes`` (-1: the answer will tell).

        A streamed write has a ``source``, takes no place, and only its silences have a deadline.
        """
        watch = self.watch
        _check_kept(watch)
        watch.bulkhead.take()
        try:
            return await self._told(call, None, size_bytes, source)
        finally:
            watch.bulkhead.leave()

    async def _rest(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Chunks after the first. They take no place: a slow reader would hold it for hours."""
        watch = self.watch
        watch.enter()
        try:
            while True:
                chunk = await self._told(
                    lambda: anext(chunks, None), self._seconds(PART_BYTES), PART_BYTES, None
                )
                if chunk is None:
                    return
                yield chunk
        finally:
            watch.leave()

    def _seconds(self, size_bytes: int, probe: bool = False) -> float | None:
        return None

    async def _told(
        self,
        call: Callable[[], Awaitable[R]],
        seconds: float | None,
        size_bytes: int,
        source: Source | None,
    ) -> R:
        """The answer; the watch is told of it, or of what came in its place."""
        watch = self.watch
        watch.enter()
        began = watch.clock.monotonic()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                if seconds is None:
                    result = await call()
                elif source is not None:
                    result = await _fed(call, source, limit, seconds)
                elif size_bytes == _UNKNOWN:
                    with size_unknown(limit, watch.settings.bytes_per_second_min):
                        result = await call()
                else:
                    result = await call()
        except LakehouseError as error:
            if source is None or source.failure is not error:
                watch.failed(error, began, watch.clock.monotonic())
            raise
        except TimeoutError as error:
            if not limit.expired():
                raise
            now = watch.clock.monotonic()
            late = _late(watch.name, now - began)
            watch.failed(late, began, now)
            raise late from error
        except asyncio.CancelledError:
            now = watch.clock.monotonic()
            silence = now - began if source is None else min(now - began, source.silence())
            if silence >= _SILENCE_SECONDS:
                watch.failed(_late(watch.name, silence), began, now)
            raise
        else:
            watch.answered(began, watch.clock.monotonic())
            return result
        finally:
            watch.leave()


class GuardedStore(ObservedStore):
    """As ``ObservedStore``, within bounds: deadline, places, breaker.

    Raises, beyond what ``inner`` does: ``unavailable`` unsent (breaker open, no place; with
    ``retry_after_seconds``), ``timeout`` for an attempt over its deadline.
    """

    async def _go(
        self, size_bytes: int, call: Callable[[], Awaitable[R]], source: Source | None = None
    ) -> R:
        watch = self.watch
        _check_kept(watch)
        admission = Admission.PASS
        if not watch.closed:
            admission = watch.breaker.admit(watch.clock.monotonic())
            if admission is Admission.REFUSED:
                raise self._refused(_OPEN)
        probe = admission is Admission.PROBE
        try:
            if source is None and not probe and not watch.bulkhead.free:
                await self._place()
            else:
                watch.bulkhead.take()
            try:
                return await self._told(call, self._seconds(size_bytes, probe), size_bytes, source)
            finally:
                watch.bulkhead.leave()
        finally:
            if probe:
                watch.breaker.probed(watch.clock.monotonic())

    def _seconds(self, size_bytes: int, probe: bool = False) -> float | None:
        settings = self.watch.settings
        seconds = settings.attempt_seconds
        if probe:
            slow = self.watch.latency_seconds * _PROBE_LATENCIES
            seconds = min(seconds, max(_PROBE_SECONDS, slow))
        return seconds + max(size_bytes, 0) / settings.bytes_per_second_min

    async def _place(self) -> None:
        """Wait for a place; raises ``unavailable`` where there will be none in time."""
        try:
            async with asyncio.timeout(self.watch.settings.attempt_seconds):
                await self.watch.bulkhead.wait()
        except NoPlaceError as error:
            full = "too many requests wait for the bucket"
            raise self._refused(full if error.full else _OPEN) from error
        except TimeoutError as error:
            raise self._refused("no place among the bucket's requests became free") from error

    def _refused(self, message: str) -> StoreError:
        watch = self.watch
        wait = watch.breaker.wait_seconds(watch.clock.monotonic())
        error = StoreError(
            ErrorKind.UNAVAILABLE,
            message,
            bucket=watch.name,
            retry_after_seconds=max(1, round(wait)),
            hint="nothing was sent; see /storage/errors for what went wrong before",
        )
        error.sent = False
        return error


async def _fed(
    call: Callable[[], Awaitable[R]], source: Source, limit: asyncio.Timeout, seconds: float
) -> R:
    """A streamed write: while it waits for its source no time runs."""
    loop = asyncio.get_running_loop()

    def asked(waiting: bool) -> None:
        if not limit.expired():
            limit.reschedule(None if waiting else loop.time() + seconds)

    source.asked = asked
    try:
        return await call()
    finally:
        source.asked = None


def _check_kept(watch: BucketWatch) -> None:
    if watch.removed:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the bucket was removed",
            what="bucket",
            bucket=watch.name,
        )


def _late(bucket: str, seconds: float) -> StoreError:
    return StoreError(
        ErrorKind.TIMEOUT,
        "the object store did not answer in time",
        bucket=bucket,
        cause=f"no answer within {seconds:.1f} s",
    )
