"""What a bucket in trouble may cost: a deadline an attempt, bounded places, a circuit breaker.

Refused here means refused unsent (``answers.was_sent``), at once, with a hint; whoever holds a copy
elsewhere need not wait. An attempt that overruns its deadline is ``timeout``, and a write that did
is unknown as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Token
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.answers import UNSENT, StoreError
from lakehouse.objectstore.arguments import PART_BYTES
from lakehouse.objectstore.breaker import Admission
from lakehouse.objectstore.bulkhead import NoPlaceError
from lakehouse.objectstore.deadlines import Deadline, size_told, size_told_to
from lakehouse.objectstore.health import BucketWatch
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, ObjectStore, OpenedObject
from lakehouse.objectstore.sources import Source
from lakehouse.objectstore.wrapping import ForwardingStore

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
        with self._passage(size) or await self._placed(size):
            return await self.inner.get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        with self._passage(len(data)) or await self._placed(len(data)):
            return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        with self._passage() or await self._placed():
            return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        with self._passage() or await self._placed():
            await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        with self._passage() or await self._placed():
            return await self.inner.list(prefix, start_after=start_after, limit=limit)

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        with self._passage() or await self._placed():
            return await super().browse(prefix, after=after, limit=limit, folders=folders)

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        with self._passage() or await self._placed():
            opened = await super().open(key, byte_range)
        return replace(opened, chunks=self._rest(opened.chunks))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        chunks = super().stream(key)
        with self._passage(PART_BYTES) or await self._placed(PART_BYTES):
            first = await anext(chunks, None)
        if first is not None:
            yield first
            async for chunk in self._rest(chunks):
                yield chunk

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        """Takes no place, for a slow source would hold it for hours; time runs only while the
        store has something to send."""
        source = Source(chunks, self.watch.clock)
        with self._streamed(source):
            return await super().put_stream(key, source)

    async def _rest(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Chunks after the first; they take no place, for a slow reader would hold it."""
        watch = self.watch
        watch.enter()
        try:
            while True:
                with Passage(watch, self._seconds(PART_BYTES)):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk
        finally:
            watch.leave()

    def _passage(self, size_bytes: int = 0) -> Passage | None:
        """The way to the store for a request whose body has ``size_bytes`` (-1: the answer will
        tell); None where it has to be waited for (``_placed``)."""
        self.watch.check_kept()
        self.watch.bulkhead.take()
        return Passage(self.watch, None, placed=True)

    async def _placed(self, size_bytes: int = 0) -> Passage:
        raise AssertionError("observed attempts wait for nothing")

    def _streamed(self, source: Source) -> Passage:
        self.watch.check_kept()
        return Passage(self.watch, None, source=source)

    def _seconds(self, size_bytes: int, probe: bool = False) -> float | None:
        return None


class GuardedStore(ObservedStore):
    """As ``ObservedStore``, within bounds: deadline, places, breaker.

    Raises, beyond what ``inner`` does: ``unavailable`` unsent (breaker open, no place; with
    ``retry_after_seconds``), ``timeout`` for an attempt over its deadline.
    """

    def _passage(self, size_bytes: int = 0) -> Passage | None:
        watch = self.watch
        watch.check_kept()
        probe = not watch.closed and self._admitted()
        if not (probe or watch.bulkhead.free):
            return None
        watch.bulkhead.take()
        passage = Passage(watch, self._seconds(size_bytes, probe), placed=True, probe=probe)
        if size_bytes == _UNKNOWN:
            passage.learn_size()
        return passage

    async def _placed(self, size_bytes: int = 0) -> Passage:
        try:
            async with asyncio.timeout(self.watch.settings.attempt_seconds):
                await self.watch.bulkhead.wait()
        except NoPlaceError as error:
            full = "too many requests wait for the bucket"
            raise self._refused(full if error.full else _OPEN) from error
        except TimeoutError as error:
            raise self._refused("no place among the bucket's requests became free") from error
        except asyncio.CancelledError as error:
            error.add_note(UNSENT)
            raise
        passage = Passage(self.watch, self._seconds(size_bytes), placed=True)
        if size_bytes == _UNKNOWN:
            passage.learn_size()
        return passage

    def _streamed(self, source: Source) -> Passage:
        self.watch.check_kept()
        probe = not self.watch.closed and self._admitted()
        return Passage(self.watch, self._seconds(PART_BYTES, probe), source=source, probe=probe)

    def _seconds(self, size_bytes: int, probe: bool = False) -> float | None:
        settings = self.watch.settings
        seconds = settings.attempt_seconds
        if probe:
            slow = self.watch.latency_seconds * _PROBE_LATENCIES
            seconds = min(seconds, max(_PROBE_SECONDS, slow))
        return seconds + size_bytes / settings.bytes_per_second_min if size_bytes > 0 else seconds

    def _admitted(self) -> bool:
        """True for the one that may probe; raises ``unavailable`` for all others."""
        admission = self.watch.breaker.admit(self.watch.clock.monotonic())
        if admission is Admission.REFUSED:
            raise self._refused(_OPEN)
        return admission is Admission.PROBE

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


class Passage:
    """One attempt on its way; the watch is told what became of it.

    Args:
        seconds: its deadline; None for none.
        placed: it holds a place of the bulkhead.
        probe: it is the breaker's.
        source: of a streamed write; what it raises is its own failure.
    """

    __slots__ = (
        "_began",
        "_deadline",
        "_placed",
        "_probe",
        "_seconds",
        "_source",
        "_token",
        "_watch",
    )

    def __init__(
        self,
        watch: BucketWatch,
        seconds: float | None,
        *,
        placed: bool = False,
        probe: bool = False,
        source: Source | None = None,
    ) -> None:
        self._watch = watch
        self._seconds = seconds
        self._placed = placed
        self._probe = probe
        self._source = source
        self._token: Token[Callable[[int], None] | None] | None = None
        self._began = watch.clock.monotonic()
        self._deadline: Deadline | None = None
        watch.users += 1
        if seconds is not None:
            self._deadline = watch.deadlines.start(seconds)
            if source is not None:
                source.asked = self._asked

    def learn_size(self) -> None:
        """Let the adapter say how long the answer is, and grant the time for it."""
        self._token = size_told_to(self._sized)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        watch = self._watch
        now = watch.clock.monotonic()
        late = self._deadline is not None and watch.deadlines.ended(self._deadline, error)
        if self._token is not None:
            size_told(self._token)
        if self._placed:
            watch.bulkhead.leave()
        if self._source is not None:
            self._source.asked = None
        try:
            if error is None:
                watch.answered(self._began, now)
            elif late:
                failure = _late(watch.name, now - self._began)
                watch.failed(failure, self._began, now)
                raise failure from error
            else:
                self._failed(error, now)
        finally:
            if self._probe:
                watch.breaker.probed(now)
            watch.leave()

    def _failed(self, error: BaseException, now: float) -> None:
        source, watch = self._source, self._watch
        if source is not None and source.failure is error:
            return
        if isinstance(error, LakehouseError):
            watch.failed(error, self._began, now)
        elif isinstance(error, asyncio.CancelledError):
            silence = now - self._began
            if source is not None:
                silence = min(silence, source.silence())
            if silence >= _SILENCE_SECONDS:
                watch.failed(_late(watch.name, silence), self._began, now)

    def _asked(self, waiting: bool) -> None:
        if self._deadline is not None and not self._deadline.expired:
            self._watch.deadlines.move(self._deadline, None if waiting else self._seconds)

    def _sized(self, size_bytes: int) -> None:
        if self._deadline is not None:
            seconds = size_bytes / self._watch.settings.bytes_per_second_min
            self._watch.deadlines.add(self._deadline, seconds)


def _late(bucket: str, seconds: float) -> StoreError:
    return StoreError(
        ErrorKind.TIMEOUT,
        "the object store did not answer in time",
        bucket=bucket,
        cause=f"no answer within {seconds:.1f} s",
    )
