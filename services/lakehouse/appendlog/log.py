"""The append log: two classes of events in, a ring and a range of time out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final

from lakehouse.appendlog.batch import Header, Position, make_body, read_batch
from lakehouse.appendlog.compaction import Compactor, CompactReport, RetainReport
from lakehouse.appendlog.event import Line, LogEvent, decode_event, encode_event, line_of
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.outbox import Outbox
from lakehouse.appendlog.queue import Appended, AppendQueue, Load, unavailable, unknown
from lakehouse.appendlog.reading import Damage, LogReader, Window
from lakehouse.appendlog.ring import Ring, SeenIds
from lakehouse.appendlog.settings import LogSettings
from lakehouse.appendlog.spool import Segment, Spool
from lakehouse.appendlog.status import LogStatus
from lakehouse.appendlog.writer import SlotWriter
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock, to_datetime, to_micros
from lakehouse.kit.ids import Ids
from lakehouse.ledger import chain
from lakehouse.ledger.access import Access
from lakehouse.ledger.machine import JsonObject
from lakehouse.objectstore.port import ObjectStore

log = logging.getLogger(__name__)

_BIG_EVENTS: Final = 512
_IN_A_ROW: Final = 32
_WRITER_LENGTH_MAX: Final = 128
_FLUSH_BUDGET_SECONDS: Final = 5.0
DEFAULT_SETTINGS: Final = LogSettings()


class AppendLog:
    """One log as one process writes and reads it; made by ``open_log``.

    An event is a JSON object. ``at`` (RFC 3339 with a zone) is its time and is added where it is
    missing; events with the same ``id`` (text) are one event for readers.
    """

    def __init__(
        self, access: Access, layout: LogLayout, writer: str, settings: LogSettings
    ) -> None:
        self._access = access
        self._layout = layout
        self._settings = settings
        self._writer = SlotWriter(access, layout, writer)
        self._queue = AppendQueue(settings)
        self._ring = Ring(settings.ring_events)
        self._seen = SeenIds(settings.ids_remembered)
        self._work = asyncio.Event()
        self._slot = asyncio.Lock()
        self._closing = False
        self._sending: Load | None = None
        self._figures: Counter[str] = Counter()
        self._last_flush_us: int | None = None
        self._unavailable_since_us: int | None = None
        self._last_error = ""
        spool = Spool(settings.spool_folder, settings.spool, access.clock, access.ids)
        self._outbox = Outbox(spool, self._send, access.clock, access.ids, settings)
        self._tasks: list[asyncio.Task[None]] = []

    async def append(self, events: Sequence[JsonObject]) -> Appended:
        """Durable: returns once every event is in the log, in this order.

        Callers share batches; a call larger than a batch spreads over several and is not atomic
        over them. One that goes away cancels nothing. Raises ``invalid`` (an event that is no JSON
        object, or too large; nothing was written), ``unavailable`` (nothing was written),
        ``unknown`` (it may be there now or later), or what the store refused with.
        """
        if not events:
            raise LakehouseError(ErrorKind.INVALID, "there is no event to append")
        self._check_open()
        now_us = self._access.clock.now_us()
        if len(events) > _BIG_EVENTS:
            lines = await run_blocking(_encode, events, now_us)
        else:
            lines = _encode(events, now_us)
        self._check_open()
        future = self._queue.add(lines)
        self._work.set()
        return await asyncio.shield(future)

    def offer(self, events: Sequence[JsonObject]) -> int:
        """Best-effort: takes the events and returns how many; the others are dropped and counted.

        Never waits, never raises; may be called from any thread. An event without ``id`` gets one;
        one whose ``id`` is known is accepted and not stored again. In the spool within
        ``spool_seconds``, in the log within ``flush_seconds`` while the bucket answers.
        """
        accepted = 0
        for event in events:
            known = event.get("id") if isinstance(event, dict) else None
            if known is not None and known in self._seen:
                self._figures["repeated"] += 1
                accepted += 1
                continue
            line = self._outbox.offer_line(event)
            if line is not None:
                self._remember(line, known)
                accepted += 1
        return accepted

    def drop(self, reason: str, count: int) -> None:
        """Count events that a process which forwards to this one had to drop."""
        self._outbox.drop(reason, count)

    async def flush(self) -> None:
        """Return once everything offered before is in the log. Raises ``unavailable`` if the last
        attempt failed; it goes on by itself."""
        await self._outbox.flush()

    def recent(
        self, limit: int, where: Callable[[JsonObject], bool] | None = None
    ) -> list[LogEvent]:
        """At most ``limit`` of the events in memory, newest first, those that are not in the log
        yet among them (``seq`` 0). After a restart: the newest batches and what was spooled."""
        return self._ring.newest(limit, where)

    async def waiting(self) -> list[LogEvent]:
        """Offered events that are not in the log yet, oldest first: memory and spool."""
        lines = await self._outbox.waiting()
        return [LogEvent(0, event) for line in lines if (event := decode_event(line)) is not None]

    def scan(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        after_seq: int = 0,
        before_seq: int | None = None,
        newest_first: bool = False,
        on_damage: Callable[[Damage], None] | None = None,
    ) -> AsyncIterator[LogEvent]:
        """Events with ``since <= at < until`` and ``after_seq < seq < before_seq``, by ``seq``.

        What cannot be read is left out, told to ``on_damage`` with its key, and counted. Raises
        ``unavailable`` and the like when the store does not answer.
        """
        window = Window(
            None if since is None else to_micros(since),
            None if until is None else to_micros(until),
            after_seq,
            before_seq,
            newest_first,
        )

        def damaged(damage: Damage) -> None:
            self._figures["damaged"] += 1
            if on_damage is not None:
                on_damage(damage)

        return LogReader(self._access, self._layout, self._settings, damaged).scan(window)

    async def compact(self, *, dry_run: bool = False) -> CompactReport:
        """Merge old batches into larger objects; with ``dry_run`` only say what would be done.

        Linear in what is new, harmless beside another one and beside readers. Repeated until there
        is nothing to merge it costs a byte one rewrite a tier.
        """
        return await Compactor(self._access, self._layout, self._settings).compact(dry_run)

    async def retain(self, before: datetime) -> RetainReport:
        """Delete the batches written before ``before``: by the time of the batch, not of its
        events; whole objects only, and never the newest batch."""
        return await Compactor(self._access, self._layout, self._settings).retain(to_micros(before))

    def status(self) -> LogStatus:
        outbox, figures = self._outbox.status(), self._figures
        since = [
            one for one in (self._unavailable_since_us, outbox.failing_since_us) if one is not None
        ]
        return LogStatus(
            newest=-1 if self._writer.at is None else self._writer.at.n,
            appended=figures["appended"],
            queued=len(self._queue),
            flushed=figures["flushed"],
            pending=outbox.pending,
            spooled=outbox.spooled,
            recovered=outbox.recovered,
            repeated=figures["repeated"],
            dropped=outbox.dropped,
            spool_failures=outbox.spool_failures,
            damaged=figures["damaged"],
            settling=self._writer.settling,
            last_flush=None if self._last_flush_us is None else to_datetime(self._last_flush_us),
            unavailable_since=to_datetime(min(since)) if since else None,
            last_error=self._last_error,
        )

    async def start(self) -> None:
        """Called by ``open_log``."""
        await self._outbox.start()
        for line in await self._outbox.waiting():
            self._remember(line)
        try:
            await self._look_back()
        except LakehouseError as error:
            if not error.retryable:
                await self.close(0)
                raise
            self._failed(error)
            self._tasks.append(asyncio.create_task(self._catch_up(), name="log catch-up"))
        self._tasks.append(asyncio.create_task(self._append_task(), name="log append"))

    async def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for at most ``seconds``; what was offered stays in the spool for the
        next start, durable appends still open are ``unknown`` or ``unavailable``. Idempotent."""
        self._closing = True
        clock, deadline = self._access.clock, self._access.clock.monotonic() + seconds
        while (len(self._queue) or self._sending is not None) and clock.monotonic() < deadline:
            await clock.sleep(0.005)
        await self._outbox.close(max(deadline - clock.monotonic(), 0.0))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._queue.fail(unavailable("the log is closed"))
        if self._sending is not None:
            self._sending.fail(unknown())

    def abandon(self) -> None:
        """End at once, as the process does when it is killed: nothing is written any more."""
        for task in self._tasks:
            task.cancel()
        self._outbox.abandon()

    def _check_open(self) -> None:
        if self._closing:
            raise unavailable("the log is closing")
        if self._writer.settling:
            raise unavailable("the log is settling a batch whose outcome is not known")

    def _remember(self, line: bytes, known: object = None) -> None:
        if known is not None and not self._settings.ring_events:
            self._seen.add(known)
            return
        event = decode_event(line)
        if event is not None and self._seen.add(event.get("id")):
            self._ring.extend([LogEvent(0, event)])

    async def _append_task(self) -> None:
        while True:
            await self._work.wait()
            if not len(self._queue):
                self._work.clear()
                continue
            async with self._slot:
                # Only now: while another batch was in flight this one filled.
                load = self._queue.take()
                if load.lines:
                    self._sending = load
                    await self._append(load)
                    self._sending = None

    async def _append(self, load: Load) -> None:
        def open_outcome() -> None:
            load.fail(unknown())
            self._unsettled()

        put_id = self._access.ids.ulid()
        try:
            if len(load.lines) > _BIG_EVENTS:
                body = await run_blocking(make_body, put_id, load.lines)
            else:
                body = make_body(put_id, load.lines)
            header = await self._writer.write(
                body, self._settings.append_budget_seconds, open_outcome
            )
        except LakehouseError as error:
            self._failed(error)
            load.fail(error)
            return
        self._wrote(header, "appended")
        load.succeed(header)
        self._ring.extend(load.newest(header, self._settings.ring_events))

    async def _send(self, segment: Segment) -> None:
        """Put a segment of offered events into the log, once, whatever was before a crash."""
        lines: list[Line] = []
        for place, data in enumerate(segment.lines or (), start=1):
            if (line := line_of(data)) is not None:
                lines.append(line)
            if place % _IN_A_ROW == 0:
                await asyncio.sleep(0)  # whoever is served by this loop waits for no more
        if not lines:
            return
        async with self._slot:

            async def aim(n: int) -> None:
                await self._outbox.aim(segment, n)

            body = await run_blocking(make_body, segment.put_id, lines)
            budget = min(self._settings.append_budget_seconds, _FLUSH_BUDGET_SECONDS)
            try:
                header = await self._writer.write(
                    body, budget, self._unsettled, aim, segment.aimed_at
                )
            except LakehouseError as error:
                self._failed(error)
                # Whoever waited behind it for the bucket need not wait as long once more.
                self._queue.fail(unavailable("the log cannot be reached"))
                raise
            self._wrote(header, "flushed")

    def _unsettled(self) -> None:
        self._failed(unknown())
        self._queue.fail(unavailable("the log is settling another batch"))

    def _wrote(self, header: Header, figure: str) -> None:
        self._figures[figure] += header.count
        self._last_flush_us = self._access.clock.now_us()
        self._unavailable_since_us = None

    def _failed(self, error: LakehouseError) -> None:
        self._last_error = str(error)
        if self._unavailable_since_us is None:
            self._unavailable_since_us = self._access.clock.now_us()

    async def _look_back(self) -> None:
        """The newest batch, and the ring from the newest few: one LIST of one key, a few GETs."""
        newest = await chain.newest(self._access)
        if newest is None:
            await self._writer.look()
            return
        first = max(newest - self._settings.ring_batches + 1, 0)
        keys = [self._layout.slot(n) for n in range(first, newest + 1)]
        found = await asyncio.gather(
            *(self._access.store.get(key) for key in keys), return_exceptions=True
        )
        events: list[LogEvent] = []
        for key, data in zip(keys, found, strict=True):
            if isinstance(data, LakehouseError) and data.kind is not ErrorKind.NOT_FOUND:
                raise data
            if isinstance(data, bytes):
                try:
                    batch = await run_blocking(read_batch, data, key)
                except LakehouseError as error:
                    if error.kind is not ErrorKind.CORRUPT:
                        raise
                    self._figures["damaged"] += 1
                    continue
                events += batch.events()
                self._writer.at = Position.of(batch.header)
        if self._writer.at is None or self._writer.at.n != newest:
            await self._writer.look()
        for one in events:
            self._seen.add(one.event.get("id"))
        self._ring.fill(events)

    async def _catch_up(self) -> None:
        """The store did not answer at start: look back as soon as it does."""
        attempt = 0
        while True:
            await self._access.clock.sleep(self._access.backoff_seconds(attempt))
            attempt += 1
            try:
                async with self._slot:
                    await self._look_back()
            except LakehouseError as error:
                self._failed(error)
                continue
            self._unavailable_since_us = None
            return


def _encode(events: Sequence[JsonObject], now_us: int) -> list[Line]:
    return [encode_event(event, now_us) for event in events]


async def open_log(
    store: ObjectStore,
    prefix: str,
    writer: str,
    clock: Clock,
    ids: Ids,
    settings: LogSettings = DEFAULT_SETTINGS,
) -> AppendLog:
    """The log below ``prefix`` (no trailing slash), open for reading and writing.

    A store that does not answer is no error: events are spooled and the log catches up.

    Args:
        store: without retries of its own for conditional writes (``Buckets.raw``).
        writer: names the process in its batches, at most 128 characters.

    Raises ``corrupt`` (the newest batches are missing), ``conflict`` (written by a newer version),
    ``forbidden`` and the like.
    """
    if not 0 < len(writer) <= _WRITER_LENGTH_MAX:
        raise LakehouseError(ErrorKind.INVALID, "a writer's name has 1 to 128 characters")
    settings.check()
    layout = LogLayout(prefix)
    access = Access(store, layout, clock, ids, settings.chain())
    opened = AppendLog(access, layout, writer, settings)
    try:
        await opened.start()
    except BaseException:  # also cancelled: the spool's lock must not outlive the attempt
        opened.abandon()
        raise
    return opened
