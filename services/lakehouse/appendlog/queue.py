"""Durable appends that wait for a batch: callers share one, a large call spreads over several."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from lakehouse.appendlog.batch import Header
from lakehouse.appendlog.event import Line, LogEvent, decode_event, seq_of
from lakehouse.appendlog.settings import LogSettings
from lakehouse.errors import ErrorKind, LakehouseError

RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Appended:
    """Where events went: the first and the last of them; others' may lie between."""

    first_seq: int
    last_seq: int


@dataclass(slots=True)
class Waiting:
    """One call of ``append``. ``taken`` lines are in batches that were sent or are in the log."""

    lines: Sequence[Line]
    future: asyncio.Future[Appended]
    taken: int = 0
    first_seq: int = 0

    def fail(self, error: LakehouseError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            # Nobody may wait any more: that is no defect.
            self.future.exception()


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` lines of a batch, from ``place`` (0 for the first), are of one call."""

    waiting: Waiting
    place: int
    count: int
    last: bool


@dataclass(slots=True)
class Load:
    """What goes into the next batch."""

    lines: list[Line] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)

    def succeed(self, header: Header) -> None:
        """The batch is in the log: answer each call whose last line is in it."""
        for share in self.shares:
            waiting = share.waiting
            if not waiting.first_seq:
                waiting.first_seq = seq_of(header.n, share.place + 1)
            if share.last and not waiting.future.done():
                last = seq_of(header.n, share.place + share.count)
                waiting.future.set_result(Appended(waiting.first_seq, last))

    def fail(self, error: LakehouseError) -> None:
        for share in self.shares:
            partly = share.waiting.first_seq != 0
            share.waiting.fail(_partly(error) if partly else error)

    def newest(self, header: Header, count: int) -> list[LogEvent]:
        """The last ``count`` events, as readers will see them."""
        first = max(len(self.lines) - count, 0)
        return [
            LogEvent(seq_of(header.n, place), event)
            for place, line in enumerate(self.lines[first:], first + 1)
            if (event := decode_event(line.data)) is not None
        ]


class AppendQueue:
    """Bounded by events and bytes; first come, first served."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._waiting: deque[Waiting] = deque()
        self._events = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Events that wait."""
        return self._events

    def add(self, lines: Sequence[Line]) -> asyncio.Future[Appended]:
        """Raises ``unavailable`` when the queue is full, ``invalid`` for too large an event."""
        settings = self._settings
        sizes = [len(line.data) + 1 for line in lines]
        if max(sizes) > settings.batch_bytes_max:
            raise LakehouseError(
                ErrorKind.INVALID,
                "an event is too large for the log",
                size_bytes=max(sizes),
                size_bytes_max=settings.batch_bytes_max,
            )
        # A call larger than the queue is taken when nothing else waits.
        events, size = self._events + len(lines), self._bytes + sum(sizes)
        if self._events and (events > settings.queue_events_max or size > settings.queue_bytes_max):
            raise unavailable("too many events wait for the log")
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(lines, future))
        self._events, self._bytes = events, size
        return future

    def take(self) -> Load:
        """The next batch: in order, as much as fits."""
        load, room = Load(), self._settings.batch_bytes_max
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.future.done():  # failed with an earlier part of it
                self._forget(waiting, len(waiting.lines) - waiting.taken)
                self._waiting.popleft()
                continue
            place, start = len(load.lines), waiting.taken
            for line in waiting.lines[start : start + self._settings.batch_events_max - place]:
                room -= len(line.data) + 1
                if room < 0:
                    break
                load.lines.append(line)
            count = len(load.lines) - place
            if not count:
                break
            self._forget(waiting, count)
            last = waiting.taken == len(waiting.lines)
            load.shares.append(Share(waiting, place, count, last))
            if not last:
                break
            self._waiting.popleft()
        return load

    def fail(self, error: LakehouseError) -> None:
        """Everybody who waits is told."""
        while self._waiting:
            waiting = self._waiting.popleft()
            self._forget(waiting, len(waiting.lines) - waiting.taken)
            waiting.fail(_partly(error) if waiting.first_seq else error)

    def _forget(self, waiting: Waiting, count: int) -> None:
        part = waiting.lines[waiting.taken : waiting.taken + count]
        self._bytes -= sum(len(line.data) + 1 for line in part)
        self._events -= len(part)
        waiting.taken += count


def unavailable(message: str) -> LakehouseError:
    """A definite no: nothing was written, try again."""
    return LakehouseError(ErrorKind.UNAVAILABLE, message, retry_after_seconds=RETRY_SECONDS)


def unknown() -> LakehouseError:
    """The honest answer while a batch is not settled."""
    return LakehouseError(
        ErrorKind.UNKNOWN,
        "the outcome of the append is not known",
        commit_state="unknown",
        hint="append the events again with the same ids: readers see each id once",
    )


def _partly(error: LakehouseError) -> LakehouseError:
    """Of a call that spread over several batches some are in the log: so the outcome is unknown."""
    if error.kind is ErrorKind.UNKNOWN:
        return error
    again = unknown()
    again.fields |= {"cause": str(error)}
    return again
