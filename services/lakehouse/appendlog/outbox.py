"""The best-effort way out: memory, then the spool, then wherever ``send`` takes a segment.

``offer`` neither waits nor fails and may be called from any thread. A task writes what was offered
to the spool within ``spool_seconds`` and has each segment sent within ``flush_seconds``, in order,
again and again until it is taken. Nothing is dropped without being counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from lakehouse.appendlog.event import encode_event
from lakehouse.appendlog.settings import LogSettings
from lakehouse.appendlog.spool import Segment, Spool
from lakehouse.errors import LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.ledger.machine import JsonObject

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Send = Callable[[Segment], Awaitable[None]]

_RETRY_SECONDS: Final = 0.25
_RETRY_SECONDS_MAX: Final = 2.0
_HURRY_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """Figures of an outbox; times are microseconds, ``None`` for never.

    Attributes:
        pending: events that wait, on disk or not; spooled: those of them that are in the spool.
        dropped: by reason: ``memory_full``, ``spool_full``, ``invalid``, ``closed``, ``damaged``,
            ``not_spooled``.
        failing_since_us: first failure to send since the last success.
    """

    pending: int
    spooled: int
    sent: int
    dropped: dict[str, int]
    spool_failures: int
    recovered: int
    last_sent_us: int | None
    failing_since_us: int | None
    last_error: str


class Outbox:
    """Owns ``spool``. ``send`` gets one sealed segment at a time; when it returns the segment is
    forgotten, when it raises LakehouseError the segment is sent again a little later."""

    def __init__(
        self, spool: Spool, send: Send, clock: Clock, ids: Ids, settings: LogSettings
    ) -> None:
        self._spool = spool
        self._send = send
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._fresh: deque[bytes] = deque()
        self._dropped: Counter[str] = Counter()
        self._sent = 0
        self._last_sent: int | None = None
        self._failing_since: int | None = None
        self._last_error = ""
        self._closed = False
        self._asleep = True
        self._wake = asyncio.Event()
        self._filled = asyncio.Event()
        self._written = asyncio.Event()
        self._hurried = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._disk = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._progress: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Recover the spool, then write and send until ``close``."""
        await run_blocking(self._spool.start)
        self._tasks = [
            asyncio.create_task(self._write_task(), name="log spool"),
            asyncio.create_task(self._sync_task(), name="log fsync"),
            asyncio.create_task(self._send_task(), name="log flush"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def offer(self, events: Sequence[JsonObject]) -> int:
        """Take ``events``; how many were accepted. An event without ``id`` and ``at`` gets them."""
        return sum(self.offer_line(event) is not None for event in events)

    def offer_line(self, event: JsonObject) -> bytes | None:
        """Take one event; its line, ``None`` if it was dropped."""
        if self._closed:
            self._dropped["closed"] += 1
            return None
        if len(self._fresh) >= self._settings.unspooled_events_max:
            self._dropped["memory_full"] += 1
            return None
        try:
            known = isinstance(event, dict) and event.get("id") is not None
            fresh = "" if known else self._ids.ulid()
            line = encode_event(event, self._clock.now_us(), fresh).data
        except LakehouseError:
            self._dropped["invalid"] += 1
            return None
        if len(line) > self._settings.spool.segment_bytes_max:
            self._dropped["invalid"] += 1
            return None
        self._fresh.append(line)
        if self._asleep:
            self._asleep = False
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                self._asleep = True  # the loop is gone: the process is at its end
        return line

    def drop(self, reason: str, count: int) -> None:
        """Count what somebody else dropped, a process that forwards to this one, say."""
        self._dropped[reason] += count

    def status(self) -> OutboxStatus:
        spooled = self._spool.events
        dropped = self._dropped + self._spool.dropped
        return OutboxStatus(
            pending=len(self._fresh) + spooled,
            spooled=spooled,
            sent=self._sent,
            dropped=dict(dropped),
            spool_failures=self._spool.failures,
            recovered=self._spool.recovered,
            last_sent_us=self._last_sent,
            failing_since_us=self._failing_since,
            last_error=self._last_error,
        )

    async def aim(self, segment: Segment, n: int) -> None:
        """Remember, for a start after a crash, that ``segment`` is about to go to slot ``n``."""
        await self._on_disk(self._spool.aim, segment, n)

    async def waiting(self) -> list[bytes]:
        """The lines that were not sent yet, oldest first."""
        spooled = await self._on_disk(self._spool.lines)
        return spooled + list(self._fresh)

    async def flush(self) -> None:
        """Return once everything offered so far was sent. Raises what sending raised last; it is
        tried again all the same."""
        target = self._sent + self.status().pending
        while self._sent < target and self.status().pending:
            self._hurried.set()
            self._wake.set()
            moved: asyncio.Future[None] = self._loop.create_future()
            self._progress.add(moved)
            try:
                await moved
            finally:
                self._progress.discard(moved)

    async def close(self, seconds: float) -> None:
        """Take no more, send what waits for at most ``seconds``; the rest stays in the spool."""
        if self._closed:
            return
        self._closed = True
        flushing = asyncio.ensure_future(self._flush_all())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        await asyncio.wait([flushing, timer], return_when=asyncio.FIRST_COMPLETED)
        for task in (flushing, timer, *self._tasks):
            task.cancel()
        await asyncio.gather(flushing, timer, *self._tasks, return_exceptions=True)
        await self._on_disk(self._spool_fresh)
        await self._on_disk(self._spool.close)

    def abandon(self) -> None:
        """End at once; what is in the spool is there for the next start."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._spool.abandon()

    async def _flush_all(self) -> None:
        while self.status().pending:
            try:
                await self.flush()
            except LakehouseError:
                await self._clock.sleep(_RETRY_SECONDS)

    async def _on_disk(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """One call of the spool at a time, to its end also if nobody waits any more."""
        async with self._disk:
            call = asyncio.ensure_future(run_blocking(function, *args, **kwargs))
            try:
                return await asyncio.shield(call)
            except asyncio.CancelledError:
                await asyncio.wait([call])
                raise

    async def _write_task(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._hurried.is_set():
                await self._clock.sleep(self._settings.spool_seconds)
            self._asleep = True
            await self._on_disk(self._spool_fresh)
            self._filled.set()
            self._written.set()

    async def _sync_task(self) -> None:
        """While a bucket is down nothing is sealed: what is written is fsynced all the same."""
        while True:
            await self._written.wait()
            await self._clock.sleep(self._settings.flush_seconds * 0.75)
            self._written.clear()
            if self._spool.dirty:
                await self._on_disk(self._spool.sync)

    def _spool_fresh(self) -> None:
        """Into the spool with what was offered; until it is there it counts as in memory."""
        count = len(self._fresh)
        self._spool.write([self._fresh[place] for place in range(count)])
        for _ in range(count):
            self._fresh.popleft()

    async def _send_task(self) -> None:
        failures = 0
        while True:
            segment = await self._next_segment()
            try:
                await self._send(segment)
            except LakehouseError as error:
                failures += 1
                self._failed(error)
                pause = min(_RETRY_SECONDS * 2 ** min(failures, 8), _RETRY_SECONDS_MAX)
                await self._clock.sleep(pause * (0.5 + self._ids.uniform() / 2))
                continue
            failures = 0
            await self._on_disk(self._spool.done, segment)
            self._sent += segment.events
            self._last_sent, self._failing_since = self._clock.now_us(), None
            self._moved(None)

    async def _next_segment(self) -> Segment:
        """The oldest segment, once it is full, old enough, or asked for."""
        while True:
            segment = await self._on_disk(self._due) if self._spool.events else None
            if segment is not None:
                return segment
            if self._spool.events:
                # Half of the time is for noticing, writing and sending: all of it is promised.
                await self._pause(self._settings.flush_seconds / 4)
            else:
                self._filled.clear()
                if not self._fresh:
                    self._hurried.clear()
                    self._moved(None)
                await self._filled.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait, less if somebody is in a hurry."""
        if self._hurried.is_set():
            await self._clock.sleep(_HURRY_SECONDS)
            return
        waits = [
            asyncio.ensure_future(self._clock.sleep(seconds)),
            asyncio.ensure_future(self._hurried.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _due(self) -> Segment | None:
        spool = self._spool
        age = self._clock.monotonic() - spool.opened_at
        due = self._hurried.is_set() or age >= self._settings.flush_seconds / 2
        if spool.open_events and due and not spool.segments:
            spool.seal()  # what comes behind others fills until it is its turn
        return spool.first()

    def _failed(self, error: LakehouseError) -> None:
        self._last_error = str(error)
        if self._failing_since is None:
            self._failing_since = self._clock.now_us()
            log.warning("offered events cannot be sent", extra={"reason": str(error)})
        self._moved(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A defect ended a task: said, for from now on events wait in the spool."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._last_error = repr(error)
            log.error("a task of a log's outbox ended", exc_info=error)

    def _moved(self, error: LakehouseError | None) -> None:
        for waiter in self._progress:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
