"""Reading a log: a range of time or numbers, in order or backwards, past whatever is damaged."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from lakehouse.appendlog.batch import Batch, damaged, read_batch
from lakehouse.appendlog.event import LogEvent, batch_of, micros_of
from lakehouse.appendlog.layout import LogLayout, Range
from lakehouse.appendlog.mapping import LogMap, Unit, map_log
from lakehouse.appendlog.merged import Piece, pieces
from lakehouse.appendlog.objects import checked
from lakehouse.appendlog.ring import SeenIds
from lakehouse.appendlog.search import Stale, find_batches
from lakehouse.appendlog.settings import LogSettings
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger import floor
from lakehouse.ledger.access import Access

log = logging.getLogger(__name__)

_WINDOW: Final = 16
_BIG_BYTES: Final = 64 * 1024
_REPEATS_REMEMBERED: Final = 65_536
_MAPS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Damage:
    """What a reader had to leave out: ``lines`` of batch ``n`` (0: all of it), and where."""

    key: str
    n: int
    reason: str
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """``since_us <= at < until_us`` and ``after_seq < seq < before_seq``; ``None`` for no bound."""

    since_us: int | None = None
    until_us: int | None = None
    after_seq: int = 0
    before_seq: int | None = None
    newest_first: bool = False

    def meets(self, first_us: int, last_us: int) -> bool:
        """Whether anything between these times may be inside."""
        return not (
            (self.since_us is not None and last_us < self.since_us)
            or (self.until_us is not None and first_us >= self.until_us)
        )

    def has(self, one: LogEvent) -> bool:
        if one.seq <= self.after_seq or (
            self.before_seq is not None and one.seq >= self.before_seq
        ):
            return False
        if self.since_us is None and self.until_us is None:
            return True
        try:
            at_us = micros_of(one.event.get("at"))
        except LakehouseError:
            return False
        return self.meets(at_us, at_us)


class LogReader:
    """Reads only; needs no writer. ``on_damage`` hears of everything that is left out."""

    def __init__(
        self,
        access: Access,
        layout: LogLayout,
        settings: LogSettings,
        on_damage: Callable[[Damage], None],
    ) -> None:
        self._access = access
        self._layout = layout
        self._settings = settings
        self._on_damage = on_damage

    async def scan(self, window: Window) -> AsyncIterator[LogEvent]:
        """The events of ``window``, each once, by rising (or falling) ``seq``.

        A snapshot of the batches there were at the start. An event that is stored twice under one
        ``id`` is yielded where it is met first.
        """
        seen = SeenIds(_REPEATS_REMEMBERED)
        async for batch in self._batches(window):
            big = batch.header.size_bytes > _BIG_BYTES
            events = await run_blocking(batch.events) if big else batch.events()
            for one in reversed(events) if window.newest_first else events:
                if window.has(one) and seen.add(one.event.get("id")):
                    yield one

    async def _batches(self, window: Window) -> AsyncIterator[Batch]:
        first, last, where = await self._bounds(window)
        maps = 0
        units = _ordered(where, first, last, window)
        while units:
            unit = units[0]
            try:
                async for batch in self._unit(unit, where, window):
                    # What has been handed out is not read again, whatever happens to the rest.
                    first, last = _rest(first, last, batch.header.n, window)
                    yield batch
            except Stale as stale:
                maps += 1
                if maps > _MAPS_MAX:
                    raise LakehouseError(
                        ErrorKind.UNAVAILABLE, "the log changes faster than it can be read"
                    ) from stale
                where = await self._map(first)
                units = _ordered(where, first, last, window)
            except _Unreadable as unreadable:
                where = unreadable.where
                units = _ordered(where, first, last, window)
            else:
                first, last = _rest(
                    first, last, unit.first if window.newest_first else unit.last, window
                )
                units.popleft()

    async def _bounds(self, window: Window) -> tuple[int, int, LogMap]:
        first = batch_of(window.after_seq + 1)
        while True:
            where = await self._map(first)
            last = where.newest
            if window.before_seq is not None:
                last = min(last, batch_of(max(window.before_seq - 1, 0)))
            low = max(first, where.oldest)
            if low > last or (window.since_us is None and window.until_us is None):
                return low, last, where
            try:
                low, last = await find_batches(
                    self._access,
                    self._layout,
                    where,
                    (low, last),
                    (window.since_us, window.until_us),
                )
                return low, last, where
            except Stale:
                continue

    async def _map(self, first: int) -> LogMap:
        return await map_log(self._access, self._layout, first, self._settings.merged_batches_max)

    def _unit(self, unit: Unit, where: LogMap, window: Window) -> AsyncIterator[Batch]:
        if unit.merged is not None:
            return self._from_merged(unit, where, window)
        if unit.missing:
            return self._missing(unit, where)
        return self._from_slots(unit, window)

    async def _missing(self, unit: Unit, where: LogMap) -> AsyncIterator[Batch]:
        """Batches that should be in a merged object: gone meanwhile, or lost."""
        again = await self._map(unit.first)
        found = next(again.units(unit.first, unit.last), None)
        if found is None or not found.missing:
            raise Stale
        key = self._layout.merged_from(unit.first)
        self._report(Damage(key, unit.first, f"batches {unit.first} to {unit.last} are missing"))
        nothing: tuple[Batch, ...] = ()
        for batch in nothing:
            yield batch

    async def _from_slots(self, unit: Unit, window: Window) -> AsyncIterator[Batch]:
        numbers = range(unit.first, unit.last + 1)
        order: Sequence[int] = numbers[::-1] if window.newest_first else numbers
        for at in range(0, len(order), _WINDOW):
            part = order[at : at + _WINDOW]
            found = await self._access.side_by_side([partial(self._slot, n) for n in part])
            # A slot that went below the floor meanwhile may have held a late writer's bytes.
            collected = await self._floor()
            for n, one in zip(part, found, strict=True):
                if n <= collected:
                    raise Stale
                if one is None:
                    self._report(Damage(self._layout.slot(n), n, "the batch is missing"))
                    continue
                if isinstance(one, Batch):
                    batch: Batch | None = one
                else:
                    batch = await self._read(one, self._layout.slot(n), n)
                if batch is not None and window.meets(batch.header.first_us, batch.header.last_us):
                    yield batch

    async def _slot(self, n: int) -> Batch | bytes:
        """Batch ``n``; its bytes where it is not whole, also when it is read again."""
        key, last = self._layout.slot(n), b""

        async def whole(data: bytes) -> Batch:
            nonlocal last
            last = data
            batch = await _decoded(data, key)
            if batch.bad_lines or batch.header.n != n:
                raise damaged("the batch is not whole", key)
            return batch

        try:
            return await self._access.read(key, whole)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            return last

    async def _floor(self) -> int:
        return await self._access.patiently(lambda: floor.read_floor(self._access))

    async def _from_merged(self, unit: Unit, where: LogMap, window: Window) -> AsyncIterator[Batch]:
        one = unit.merged
        if one is None:
            return
        try:
            data, whole = await self._merged(one)
        except LakehouseError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                raise Stale from error
            raise
        if not whole:
            others = where.without(one)
            self._report(Damage(one.key, unit.first, "the object does not match its checksum"))
            if not any(other.missing for other in others.units(unit.first, unit.last)):
                raise _Unreadable(others)
        found = await run_blocking(_inside, data, unit)
        for piece in reversed(found) if window.newest_first else found:
            if piece.header is None:
                self._report(Damage(one.key, unit.first, "the header of a batch is damaged"))
            elif window.meets(piece.header.first_us, piece.header.last_us):
                batch = await self._read(piece.data, one.key, piece.header.n)
                if batch is not None:
                    yield batch

    async def _merged(self, one: Range) -> tuple[bytes, bool]:
        """The bytes of a merged object, and whether they are those that its name tells."""
        last = b""

        async def check(data: bytes) -> bytes:
            nonlocal last
            last = data
            return await checked(data, one)

        try:
            return await self._access.read(one.key, check), True
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            return last, False

    async def _read(self, data: bytes, key: str, n: int) -> Batch | None:
        """The batch in ``data``; what is bad of it is reported."""
        try:
            batch = await _decoded(data, key)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            self._report(Damage(key, n, error.message))
            return None
        if batch.header.n != n:
            self._report(Damage(key, n, "another batch lies in this place"))
            return None
        if batch.bad_lines:
            self._report(Damage(key, n, "lines do not match their checks", batch.bad_lines))
        return batch

    def _report(self, damage: Damage) -> None:
        log.warning(
            "a part of the log cannot be read and is left out",
            extra={"key": damage.key, "batch": damage.n, "reason": damage.reason},
        )
        self._on_damage(damage)


async def _decoded(data: bytes, key: str) -> Batch:
    if len(data) > _BIG_BYTES:
        return await run_blocking(read_batch, data, key)
    return read_batch(data, key)


def _ordered(where: LogMap, first: int, last: int, window: Window) -> deque[Unit]:
    units = deque(where.units(first, last))
    if window.newest_first:
        units.reverse()
    return units


def _rest(first: int, last: int, n: int, window: Window) -> tuple[int, int]:
    """What is left to read after batch ``n``."""
    return (first, n - 1) if window.newest_first else (n + 1, last)


class _Unreadable(Exception):
    """The object is damaged; ``where`` leads around it."""

    def __init__(self, where: LogMap) -> None:
        super().__init__()
        self.where = where


def _inside(data: bytes, unit: Unit) -> list[Piece]:
    """The pieces of a merged object that belong to ``unit``, in order; damaged ones too."""
    return [
        piece
        for piece in pieces(data)
        if piece.header is None or unit.first <= piece.header.n <= unit.last
    ]
