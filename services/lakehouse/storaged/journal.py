"""The error journal: every failed attempt at a bucket, where it can be read while buckets are down.

It is an append log at ``_errors/bucket_errors/`` of the primary, written by storaged's process
alone; others report to it. An attempt is in memory at once, in the local spool within 20 ms, in the
log within a second while the primary answers. The three overlap; readers see each attempt once, by
its id. The journal's own requests go through a handle that reports to no journal: what fails of
them is counted, and is never an entry that has to be written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lakehouse.appendlog.log import AppendLog
from lakehouse.appendlog.settings import LogSettings, SpoolBounds
from lakehouse.contracts.storage import ErrorsRequest, ErrorsResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock, days_before, to_datetime
from lakehouse.kit.ids import Ids
from lakehouse.ledger.access import Access
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.health import BucketHealth
from lakehouse.objectstore.port import ObjectStore
from lakehouse.storaged.errors import Event, Selection, to_event
from lakehouse.storaged.figures import JournalState
from lakehouse.storaged.reach import LAYOUT, Primary, Prove, Reach
from lakehouse.storaged.settings import JournalSettings

log = logging.getLogger(__name__)

SCAN_SECONDS: Final = 30.0
"""What of the log could not be read by then is left out of the answer."""

FIRST_SECONDS: Final = 10.0
"""A log whose first batch has not come by then counts as not to be read."""

UNSURE_SECONDS: Final = 1.0
"""The same where the primary was asked whether it is there and has not answered yet."""

UPKEEP_SECONDS: Final = 300.0
"""Between looks at whether there are batches to merge and old ones to give up."""

# A log that nothing was added to only grows older: a look a day is enough.
_ROUNDS_IDLE: Final = 288

EARLY_MAX: Final = 8192
"""Attempts that are held while there is no log to give them to."""

_RING_BATCHES: Final = 32
_REOPEN_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0
# What waits is written within five seconds of the primary's return: one request that is not
# answered, and the longest pause.
_BACKOFF_SECONDS_MAX: Final = 1.0
_SPOOLED_SECONDS: Final = 1.0
_TAKEN_AT_ONCE: Final = 1_000
_TAKEN_IN_A_ROW: Final = 256
# While the primary is down an answer has 100 ms: what only the disk has is read if there is time.
_SPOOL_READ_MAX: Final = 20_000
_HASTE_SECONDS: Final = 0.04
# Clocks of the machines that report: what came in later than this may bear an earlier time.
_SKEW: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """Where the journal is kept.

    Attributes:
        store: the primary, by a handle that reports to no journal and does not retry by itself.
        writer: names this process in what it writes.
        health: how the primary fares, of all that this process sees of it.
        prove: raises while it is not known that the store there is ours; nothing is written until
            it has returned once.
    """

    store: ObjectStore
    writer: str
    health: Callable[[], BucketHealth]
    prove: Prove


class Journal:
    """The ``FailureSink`` of storaged's process, and what other processes report to.

    Takes attempts from the first moment; until ``start`` they are in memory alone.
    """

    def __init__(self, settings: JournalSettings, clock: Clock, ids: Ids) -> None:
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._room = max(1, settings.errors_ring)
        self._early: deque[Event] = deque()
        self._arrived_us: deque[int] = deque(maxlen=self._room)
        self._held_all = False
        self._newest_then = -1
        self._began_us = clock.now_us()
        self._dropped = 0
        self._scanning = asyncio.Lock()
        self._log: AppendLog | None = None
        self._reach: Reach | None = None
        self._task: asyncio.Task[None] | None = None

    # -- taking

    def failed(self, attempt: FailedAttempt) -> None:
        """Remember it; never blocks, never raises."""
        self._take(to_event(attempt))

    async def report(self, attempts: Sequence[FailedAttempt], dropped: int) -> None:
        """Take over what another process saw; returns once it is in the spool, if there is one.

        Raises ``unavailable`` while this process itself cannot keep up.
        """
        await self._spooled()
        for number, attempt in enumerate(attempts, start=1):
            self._take(to_event(attempt))
            if number % _TAKEN_IN_A_ROW == 0:
                await asyncio.sleep(0)
        await self._spooled()
        # Last: a report that fails comes again, and its attempts have ids, but this has none.
        self._dropped += dropped

    def _take(self, event: Event) -> None:
        if self._log is not None:
            self._arrived_us.append(self._clock.now_us())
            self._log.offer([dict(event)])
            return
        if len(self._early) >= EARLY_MAX:
            self._early.popleft()
            self._dropped += 1
        self._early.append(event)

    async def _spooled(self) -> None:
        until = self._clock.monotonic() + _SPOOLED_SECONDS
        while (opened := self._log) is not None:
            status = opened.status()
            if status.pending <= status.spooled:
                return
            if self._clock.monotonic() > until:
                raise LakehouseError(
                    ErrorKind.UNAVAILABLE,
                    "the error journal cannot keep up with what comes in",
                    pending=status.pending,
                )
            await self._clock.sleep(0.005)

    # -- telling

    def state(self) -> JournalState:
        """What became of the attempts so far."""
        status = None if self._log is None else self._log.status()
        failures = 0 if self._reach is None else self._reach.failures
        if status is None:
            return JournalState(0, len(self._early), self._dropped, failures)
        dropped = self._dropped + status.dropped_total
        return JournalState(status.flushed, status.pending, dropped, failures)

    async def errors(self, request: ErrorsRequest) -> ErrorsResult:
        """Raises ``invalid`` for a limit, a time or a cursor that is none; nothing else."""
        found, began = Selection(request), self._clock.monotonic()
        opened = self._log
        primary = await self._reach.look() if self._reach is not None else Primary()
        complete = primary.down_since is None
        if opened is None:
            await run_blocking(found.take, list(self._early))
        else:
            ring = [one.event for one in opened.recent(self._room)]
            await run_blocking(found.take, ring)
            if not self._holds(request.since, len(ring)):
                if complete or self._clock.monotonic() - began < _HASTE_SECONDS:
                    await self._take_spooled(opened, found, is_down=not complete)
                seconds = FIRST_SECONDS if primary.sure else UNSURE_SECONDS
                if complete:
                    # One at a time: a journal of a bad month is seconds of work.
                    async with self._scanning:
                        complete = await self._scan(opened, request, found, seconds)
        page, following = await run_blocking(found.page)
        status = None if opened is None else opened.status()
        return ErrorsResult(
            errors=page,
            counts=found.counts(),
            dropped=self._dropped + (0 if status is None else status.dropped_total),
            spooled=0 if status is None else status.pending,
            primary_unavailable_since=primary.down_since,
            complete=complete,
            next=following,
            journal_failures=0 if self._reach is None else self._reach.failures,
        )

    def _holds(self, since: datetime | None, in_memory: int) -> bool:
        """Whether whatever happened from ``since`` on is in memory."""
        if in_memory < self._room and self._held_all and self._wrote_all():
            return True
        if since is None:
            return False
        full = len(self._arrived_us) == self._room
        held_us = self._arrived_us[0] if full else self._began_us
        return since >= to_datetime(held_us) + _SKEW

    def _wrote_all(self) -> bool:
        """Whether every batch since the start is ours: who lost the store to this process, or takes
        it over, may write what it still had."""
        reach = self._reach
        return reach is not None and reach.newest <= self._newest_then + reach.store.batches

    async def _take_spooled(self, opened: AppendLog, found: Selection, *, is_down: bool) -> None:
        pending = opened.status().pending
        if pending <= self._room or (is_down and pending > _SPOOL_READ_MAX):
            # Either in memory too, or more than can be read within the time an answer has.
            return
        waiting = [one.event for one in await opened.waiting()]
        await run_blocking(found.take, waiting)

    async def _scan(
        self, opened: AppendLog, request: ErrorsRequest, found: Selection, seconds: float
    ) -> bool:
        """Take what the log has, if its first batch comes within ``seconds``; whether all of it
        could be read."""
        damages: list[object] = []
        source = opened.scan(request.since, request.until, on_damage=damages.append)
        taken: list[Event] = []
        try:
            async with asyncio.timeout(seconds) as limit:
                async for one in source:
                    if not taken:
                        limit.reschedule(asyncio.get_running_loop().time() + SCAN_SECONDS)
                    taken.append(one.event)
                    if len(taken) >= _TAKEN_AT_ONCE:
                        await run_blocking(found.take, taken)
                        taken = []
        except (TimeoutError, LakehouseError) as error:
            log.warning("the error journal could not be read", extra={"reason": str(error)})
            damages.append(error)
        await run_blocking(found.take, taken)
        return not damages

    # -- living

    async def start(self, place: JournalPlace) -> None:
        """Begin to spool and to write; waits for nothing that is not on this machine."""
        self._reach = Reach(place.store, place.health, self._clock, place.prove)
        opened = self._open(self._reach, place)
        self._task = asyncio.create_task(self._run(opened, place), name="error journal")
        self._task.add_done_callback(_ended)

    async def close(self) -> None:
        """Write what waits, for 5 s at most if the primary answers; the rest is in the spool."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        opened, self._log = self._log, None
        if self._reach is None or opened is None:
            return
        primary = await self._reach.look()
        seconds = _CLOSE_SECONDS if primary.sure else UNSURE_SECONDS
        await opened.close(seconds if primary.down_since is None else 0)
        await self._reach.close()

    async def _run(self, opened: AppendLog, place: JournalPlace) -> None:
        """Start the log, and make another where the primary refuses this one."""
        while True:
            try:
                await opened.start()
                break
            except LakehouseError as error:
                self._log = None
                self._dropped += opened.status().dropped_total
                log.error("the error journal cannot be opened", extra={"reason": str(error)})
            await self._clock.sleep(_REOPEN_SECONDS)
            assert self._reach is not None
            opened = self._open(self._reach, place)
        status = opened.status()
        assert self._reach is not None
        self._newest_then = status.newest - self._reach.store.batches
        self._held_all = status.newest < _RING_BATCHES and status.unavailable_since is None
        rounds, flushed = 0, -1
        while True:
            await self._clock.sleep(UPKEEP_SECONDS)
            status = opened.status()
            if status.flushed != flushed or rounds % _ROUNDS_IDLE == 0:
                await self._tidy(opened)
            rounds, flushed = rounds + 1, status.flushed

    async def _tidy(self, opened: AppendLog) -> None:
        """Merge small batches, give up old ones; what fails of it is tried again next time."""
        try:
            await opened.compact()
            days = self._settings.errors_retention_days
            if days:
                await opened.retain(days_before(self._clock.now_us(), days))
        except LakehouseError as error:
            log.warning("the error journal could not be tidied", extra={"reason": str(error)})

    def _open(self, reach: Reach, place: JournalPlace) -> AppendLog:
        settings = LogSettings(
            spool_folder=self._settings.errors_spool_dir,
            spool=SpoolBounds(events_max=self._settings.errors_spool_events_max),
            ring_events=self._room,
            ring_batches=_RING_BATCHES,
            backoff_seconds_max=_BACKOFF_SECONDS_MAX,
        )
        access = Access(reach.store, LAYOUT, self._clock, self._ids, settings.chain())
        # Made here and started in a task: it takes what comes while it looks for the newest batch,
        # which may take long on a primary that does not answer.
        opened = self._log = AppendLog(access, LAYOUT, place.writer, settings)
        early, self._early = self._early, deque()
        for event in early:
            self._take(event)
        return opened


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the error journal stopped writing", exc_info=error)
