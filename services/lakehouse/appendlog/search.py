"""Finding a time in a log by its headers: O(log batches) ranged GETs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from lakehouse.appendlog.batch import HEADER_BYTES, Header, read_header
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.mapping import LogMap, Unit
from lakehouse.appendlog.merged import read_merged_header
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.access import Access
from lakehouse.objectstore.port import ByteRange

_NEIGHBOURS: Final = 8


class Stale(Exception):
    """Something lies elsewhere now: map the log again."""


async def slot_header(access: Access, layout: LogLayout, n: int) -> Header | None:
    """The header of the batch in slot ``n``; ``None`` if it is damaged. Raises ``Stale``."""
    data = await _first_bytes(access, layout.slot(n))
    try:
        return None if data is None else read_header(data, layout.slot(n))
    except LakehouseError as error:
        if error.kind is not ErrorKind.CORRUPT:
            raise
        return None


async def _first_bytes(access: Access, key: str) -> bytes | None:
    try:
        return await access.patiently(lambda: access.store.get(key, ByteRange(0, HEADER_BYTES)))
    except LakehouseError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            raise Stale from error
        if error.kind is ErrorKind.INVALID:  # it is empty
            return None
        raise


class Search:
    """Times of batches, each header read at most once."""

    def __init__(self, access: Access, layout: LogLayout) -> None:
        self._access = access
        self._layout = layout
        self._slots: dict[int, Header | None] = {}
        self._ends: dict[str, int | None] = {}

    async def spread_us(self, newest: int) -> int | None:
        """How far events may be from the time of their batch; ``None`` if nothing says so."""
        for n in range(newest, max(newest - _NEIGHBOURS, -1), -1):
            try:
                header = await self.header(n)
            except Stale:
                return None
            if header is not None:
                return header.spread_us
        return None

    async def header(self, n: int) -> Header | None:
        if n not in self._slots:
            self._slots[n] = await slot_header(self._access, self._layout, n)
        return self._slots[n]

    async def last_us(self, unit: Unit) -> int | None:
        """When the last batch of ``unit`` was written; ``None`` if it cannot be read."""
        if unit.missing:
            return None
        if unit.merged is None:
            return await self.slot_us(unit.last)
        key = unit.merged.key
        if key not in self._ends:
            data = await _first_bytes(self._access, key)
            try:
                end = None if data is None else read_merged_header(data, key).last_at_us
            except LakehouseError as error:
                if error.kind is not ErrorKind.CORRUPT:
                    raise
                end = None
            self._ends[key] = end or None
        return self._ends[key]

    async def slot_us(self, n: int) -> int | None:
        header = await self.header(n)
        return None if header is None else header.at_us


async def find_batches(
    access: Access,
    layout: LogLayout,
    where: LogMap,
    bounds: tuple[int, int],
    times: tuple[int | None, int | None],
) -> tuple[int, int]:
    """The part of the batches ``bounds`` (both included) that may hold events of
    ``times[0] <= at < times[1]`` microseconds. Raises ``Stale``."""
    first, last = bounds
    search = Search(access, layout)
    spread = await search.spread_us(where.newest)
    if spread is None:
        return bounds
    units = list(where.units(first, last))
    since, until = times
    if since is not None:
        first = await _from(search, units, since - spread, first)
    if until is not None:
        last = await _until(search, units, until + spread, last)
    return first, last


async def find_end(access: Access, layout: LogLayout, where: LogMap, before_us: int) -> int:
    """The last batch so that it and all before it were written before ``before_us`` microseconds,
    and lie in slots or in objects of such batches alone; never the newest. -1 for none."""
    search = Search(access, layout)
    units = list(where.units(where.oldest, where.newest - 1))
    place = await _bisect(len(units), lambda i: search.last_us(units[i]), before_us)
    end = units[place - 1].last if place else where.retained
    if place < len(units) and units[place].merged is None and not units[place].missing:
        unit = units[place]
        count = unit.last - unit.first + 1
        end += await _bisect(count, lambda i: search.slot_us(unit.first + i), before_us)
    return end


async def _from(search: Search, units: list[Unit], at_us: int, first: int) -> int:
    """A batch that is not after the first one written at ``at_us`` or later."""
    place = await _bisect(len(units), lambda i: search.last_us(units[i]), at_us)
    if place == len(units):
        return units[-1].last + 1 if units else first
    unit = units[place]
    if unit.merged is not None or unit.missing:
        return max(unit.first, first)
    count = unit.last - unit.first + 1
    return unit.first + await _bisect(count, lambda i: search.slot_us(unit.first + i), at_us)


async def _until(search: Search, units: list[Unit], at_us: int, last: int) -> int:
    """A batch that is not before the last one written at ``at_us`` or earlier."""
    place = await _bisect(len(units), lambda i: search.last_us(units[i]), at_us + 1, low=False)
    if place == len(units):
        return last
    unit = units[place]
    if unit.merged is not None or unit.missing:
        return min(unit.last, last)
    count = unit.last - unit.first + 1
    found = await _bisect(count, lambda i: search.slot_us(unit.first + i), at_us + 1, low=False)
    return min(unit.first + found, last)


async def _bisect(
    count: int, time_of: Callable[[int], Awaitable[int | None]], at_us: int, *, low: bool = True
) -> int:
    """The first of ``count`` places whose time is at least ``at_us``; ``count`` if there is none.

    Where a time cannot be read the next ones tell; if they cannot either, the answer is on the safe
    side: too low, or with ``low`` false too high.
    """
    left, right = 0, count
    while left < right:
        middle = (left + right) // 2
        probe, found = middle, None
        while found is None and probe < min(right, middle + _NEIGHBOURS):
            found = await time_of(probe)
            probe += 1
        if found is None:
            return left if low else right
        if found >= at_us:
            right = middle
        else:
            left = probe
    return left
