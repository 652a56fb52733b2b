"""Retrievals on their way into the log: noted at once, composed a moment later, kept by the log.

A search hands over what it has anyway and goes on. A task composes records a few at a time, between
whatever else the loop does, and offers them to the log, which has them in the local spool within 20
ms and in the bucket within a second. So a process that is killed loses what the last quarter of a
second brought, and a bucket that does not answer costs nothing but room in the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lakehouse.appendlog.event import LogEvent
from lakehouse.appendlog.log import AppendLog
from lakehouse.appendlog.reading import Damage
from lakehouse.appendlog.settings import LogSettings, SpoolBounds
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import days_before, to_micros
from lakehouse.kit.figures import Readout
from lakehouse.ledger.access import Access
from lakehouse.model.retrieval import Retrieval
from lakehouse.objectstore.port import ObjectStore
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.figures import RecordFigures
from lakehouse.vectord.records.place import LAYOUT, Place, local_folder
from lakehouse.vectord.records.values import Record, compose, read_event, record_of
from lakehouse.vectord.retrieval.searched import Searched

__all__ = ["Recorder", "Seen"]

log = logging.getLogger(__name__)

COMPOSE_SECONDS: Final = 0.1
"""Noted retrievals wait so long for others, to be composed together."""
HITS_WAITING_MAX: Final = 500_000
"""Hits of retrievals that wait; beyond, dropped: their texts are held meanwhile."""
KEEP_SECONDS: Final = 15.0
UPKEEP_SECONDS: Final = 300.0

_RECENT: Final = 256
_FEW_HITS: Final = 100
# Characters of a record's texts: they are hashed at about a gigabyte a second.
_TEXT_MAX: Final = 128 * 1024
_AT_ONCE: Final = 3
_LARGE_MAX: Final = 64
_REOPEN_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0
_HASTE_SECONDS: Final = 1.0
_BUDGET_SECONDS: Final = 8.0
_SPOOL_BYTES_MAX: Final = 128 * 1024 * 1024
# One retrieval is looked up by reading the object that has it.
_MERGED_BYTES_MAX: Final = 8 * 1024 * 1024
_DAY_MS: Final = 86_400_000
# A log that nothing was added to only grows older: a look a day is enough.
_ROUNDS_IDLE: Final = 288


@dataclass(frozen=True, slots=True)
class Seen:
    """A retrieval that was found here. ``flushed``: the log has it."""

    retrieval: Retrieval
    flushed: bool


class Recorder:
    """Belongs to one event loop.

    Args:
        store: in place of the primary.
    """

    def __init__(self, parts: VectorParts, store: ObjectStore | None = None) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._most = max(1, parts.retrievals.queue_max)
        self.place = Place(parts, store)
        self._waiting: deque[Searched] = deque()
        self._hits = 0
        self._large: dict[str, Searched] = {}
        self._recent: OrderedDict[str, Searched] = OrderedDict()
        self._wake = asyncio.Event()
        self._taking = asyncio.Lock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._log: AppendLog | None = None
        self._refusal = "it was not opened yet"
        self._closed = False
        self._settled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()

    # -- taking

    def note(self, searched: Sequence[Searched]) -> None:
        """Best-effort: never waits, never raises; what is dropped is counted."""
        waiting = self._waiting
        for one in searched:
            hits = self._hits + len(one.hits.hits)
            if self._closed or len(waiting) >= self._most or hits > HITS_WAITING_MAX:
                self._dropped["closed" if self._closed else "queue_full"] += 1
                continue
            waiting.append(one)
            self._hits = hits
        self._wake.set()

    async def keep(self, searched: Sequence[Searched]) -> None:
        """Durable: returns once it is in the log. Raises ``unavailable`` or ``unknown``."""
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                opened = await self._opened()
                records = [await _recorded(one) for one in searched]
                if not records:
                    return
                for one in records:
                    if one.body is not None:
                        await self.place.put(one.id, one.body)
                await opened.append([one.event for one in records])
        except TimeoutError as error:
            raise _not_kept(ErrorKind.UNKNOWN, "the log did not answer in time") from error
        except (TypeError, ValueError) as error:
            raise _not_kept(ErrorKind.UNAVAILABLE, str(error)) from error
        except LakehouseError as error:
            open_end = error.kind is ErrorKind.UNKNOWN
            kind = ErrorKind.UNKNOWN if open_end else ErrorKind.UNAVAILABLE
            raise _not_kept(kind, str(error)) from error
        self._counts["kept"] += len(records)

    # -- telling

    @property
    def dropped(self) -> int:
        """Retrievals that are lost since the process began."""
        there = 0 if self._log is None else self._log.status().dropped_total
        return self._dropped.total() + there

    async def seen(self, known: str) -> Seen | None:
        """The retrieval of id ``known`` if this process has it in memory, or in its spool."""
        if self._tasks:
            await self._until_settled(_HASTE_SECONDS)
        opened = self._log
        pending = 0 if opened is None else opened.status().pending
        waiting = next((one for one in self._waiting if one.id == known), None)
        there = waiting or self._large.get(known) or self._recent.get(known)
        if there is not None:
            flushed = known in self._recent and not pending
            if _takes_long(there):
                return Seen(await run_blocking(compose, there), flushed)
            return Seen(compose(there), flushed)
        if opened is None or not pending:
            return None
        for each in await opened.waiting():
            if each.event.get("id") == known:
                return Seen(await self.whole(each), False)
        return None

    async def whole(self, found: LogEvent) -> Retrieval:
        """The retrieval of an event, with all of its hits. Raises ``corrupt``."""
        sha256 = found.event.get("object_sha256")
        if isinstance(sha256, str):
            return await self.place.get(str(found.event.get("id")), sha256)
        if len(found.event.get("hits") or ()) > _FEW_HITS:
            return await run_blocking(read_event, found.event)
        return read_event(found.event)

    async def scan(
        self,
        since: datetime | None,
        until: datetime | None,
        before_seq: int | None = None,
        on_damage: Callable[[Damage], None] | None = None,
    ) -> AsyncIterator[LogEvent]:
        """Events of the log, newest first. Raises ``unavailable`` where it cannot be read."""
        opened = await self._opened()
        events = opened.scan(since, until, 0, before_seq, newest_first=True, on_damage=on_damage)
        async for one in events:
            yield one

    async def flush(self, seconds: float = _HASTE_SECONDS) -> None:
        """Have what was noted in the log, if that is done within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                opened = await self._opened()
                await self._take(opened)
                if self._sending:
                    await asyncio.wait(self._sending)  # which ends none of them, as gather does
                await opened.flush()
        except (TimeoutError, LakehouseError) as error:
            reason = str(error) or f"not done within {seconds:g} s"
            log.info("retrievals wait to be written", extra={"reason": reason})

    def figures(self) -> Iterable[Readout]:
        """What became of retrievals since the start."""
        opened = self._log
        dropped = Counter(self._dropped)
        waiting = len(self._waiting) + len(self._large)
        if opened is not None:
            status = opened.status()
            dropped.update(status.dropped)
            waiting += status.pending
        yield from RecordFigures(self._counts, dropped, waiting).readouts()

    # -- living

    async def start(self) -> None:
        """Open the log; waits for nothing beyond this machine. Idempotent."""
        if self._tasks or self._closed:
            return
        opened = self._open()
        self._tasks = [
            asyncio.create_task(self._run(opened), name="log of retrievals"),
            asyncio.create_task(self._compose(), name="retrievals"),
        ]
        for task in self._tasks:
            task.add_done_callback(_ended)

    async def close(self) -> None:
        """Write what waits, for 5 s at most if the primary answers; the rest is in the spool.
        Idempotent."""
        if self._closed:
            return
        if self._waiting:
            # What was noted before anybody began to write.
            await self.start()
        self._closed = True
        if self._tasks:
            await self._until_settled(_CLOSE_SECONDS)
        opened = self._log
        if opened is not None:
            await self._take(opened)
        self._dropped["closed"] += len(self._waiting)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=_HASTE_SECONDS)
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            self._dropped["closed"] += sum(each.cancelled() for each in late)
        self._log = None
        if opened is not None:
            away = opened.status().unavailable_since is not None
            await opened.close(_HASTE_SECONDS if away else _CLOSE_SECONDS)
            self._dropped.update(opened.status().dropped)

    def abandon(self) -> None:
        """End at once, as the process does when it is killed."""
        self._closed = True
        for task in (*self._tasks, *self._sending):
            task.cancel()
        if self._log is not None:
            self._log.abandon()

    async def _opened(self) -> AppendLog:
        """The log, with what an earlier process had left in the spool."""
        await self.start()
        if not self._closed:
            await self._settled.wait()
        if self._log is None or self._closed:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "the log of retrievals is not open",
                cause="the process is at its end" if self._closed else self._refusal,
            )
        return self._log

    async def _until_settled(self, seconds: float) -> None:
        """Wait for the log to be open, or refused; for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()

    async def _compose(self) -> None:
        while True:
            await self._wake.wait()
            await self._clock.sleep(COMPOSE_SECONDS)
            self._wake.clear()
            if self._log is not None:
                await self._take(self._log)

    async def _take(self, opened: AppendLog) -> None:
        """Compose what waits, a few at a time: a search that comes meanwhile waits for no more,
        less than a third of a millisecond."""
        async with self._taking:
            done = 0
            while self._waiting:
                one = self._waiting[0]
                try:
                    self._offer(opened, one, await _recorded(one))
                except (TypeError, ValueError) as error:
                    self._dropped["invalid"] += 1
                    log.warning("a retrieval cannot be written", extra={"reason": str(error)[:200]})
                self._waiting.popleft()
                self._hits -= len(one.hits.hits)
                done += 1
                if done % _AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _offer(self, opened: AppendLog, one: Searched, record: Record) -> None:
        self._counts["noted"] += 1
        if record.body is None:
            # Whoever is told an id asks for it soon or seldom.
            self._recent[one.id] = one
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
            opened.offer([record.event])
            return
        if len(self._large) >= _LARGE_MAX:
            self._dropped["objects_full"] += 1
            return
        self._large[one.id] = one
        task = asyncio.create_task(self._send(opened, record.event, record.body))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, opened: AppendLog, event: dict[str, Any], body: bytes) -> None:
        """The object first: an event names nothing that is not there."""
        known = str(event["id"])
        try:
            await self.place.put(known, body)
            opened.offer([event])
        except LakehouseError as error:
            self._dropped["object"] += 1
            log.warning("a large retrieval is not remembered", extra={"reason": str(error)})
        finally:
            del self._large[known]

    async def _run(self, opened: AppendLog) -> None:
        """Start the log, and make another where the primary refuses this one."""
        while True:
            try:
                await opened.start()
                self._settled.set()
                break
            except LakehouseError as error:
                self._log, self._refusal = None, str(error)
                self._dropped.update(opened.status().dropped)
                told = {"reason": str(error)}
                log.error("the log of retrievals cannot be opened", extra=told)
                self._settled.set()
            await self._clock.sleep(_REOPEN_SECONDS)
            opened = self._open()
        rounds, flushed = 0, -1
        while True:
            await self._clock.sleep(UPKEEP_SECONDS)
            status = opened.status()
            if status.flushed + status.appended != flushed or rounds % _ROUNDS_IDLE == 0:
                await self.tidy()
            rounds, flushed = rounds + 1, status.flushed + status.appended

    async def tidy(self) -> None:
        """Merge small batches, give up old ones; what fails of it is tried again next time."""
        try:
            opened = await self._opened()
            await opened.compact()
            days = self._parts.retrievals.retention_days
            if days:
                before = days_before(self._clock.now_us(), days)
                await opened.retain(before)
                await self._clear(opened, before)
        except LakehouseError as error:
            log.warning("the log of retrievals could not be tidied", extra={"reason": str(error)})

    async def _clear(self, opened: AppendLog, before: datetime) -> None:
        """Delete the objects of events that the log no longer has, a day after the last of them:
        batches go as a whole, and hold what was written late as well."""
        async for one in opened.scan():
            before = min(before, datetime.fromisoformat(str(one.event["at"])))
            break
        await self.place.clear(to_micros(before) // 1000 - _DAY_MS)

    def _open(self) -> AppendLog:
        settings = LogSettings(
            spool_folder=local_folder(self._parts),
            spool=SpoolBounds(bytes_max=_SPOOL_BYTES_MAX),
            merged_bytes_max=_MERGED_BYTES_MAX,
            ring_events=0,
            ring_batches=1,
            append_budget_seconds=_BUDGET_SECONDS,
        )
        parts = self._parts
        access = Access(self.place.log, LAYOUT, parts.clock, parts.ids, settings.chain())
        # Made here and started in a task: it takes what comes while it looks for the newest batch.
        self._log = AppendLog(access, LAYOUT, parts.writer, settings)
        self._wake.set()
        return self._log


async def _recorded(one: Searched) -> Record:
    if _takes_long(one):
        return await run_blocking(record_of, one)
    return record_of(one)


def _takes_long(one: Searched) -> bool:
    """To compose: every text has a digest."""
    hits = one.hits.hits
    return len(hits) > _FEW_HITS or sum([len(hit.text) for hit in hits]) > _TEXT_MAX


def _not_kept(kind: ErrorKind, cause: str) -> LakehouseError:
    return LakehouseError(
        kind,
        "the retrieval is not remembered for certain",
        cause=cause[:300],
        hint="search again, or without record=durable",
    )


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the log of retrievals ended", exc_info=error)
