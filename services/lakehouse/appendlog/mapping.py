"""Where each batch of a log lies at a moment: in a slot, in a merged object, or nowhere."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from lakehouse.appendlog.layout import LogLayout, Range
from lakehouse.appendlog.objects import NOTHING, LogObjects
from lakehouse.ledger import chain, floor
from lakehouse.ledger.access import Access


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive batches that are read alike: ``merged`` in that object, else in their slots;
    ``missing`` ones should be in an object and are in none."""

    first: int
    last: int
    merged: Range | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class LogMap:
    """``newest`` is -1 for an empty log. Batches up to ``retained`` are given up; slots up to
    ``floor`` may be gone, or hold what a late writer left, and are never read."""

    newest: int = NOTHING
    floor: int = NOTHING
    retained: int = NOTHING
    merged: tuple[Range, ...] = ()

    @property
    def oldest(self) -> int:
        return self.retained + 1

    def without(self, damaged: Range) -> LogMap:
        """As if that object did not exist."""
        merged = tuple(one for one in self.merged if one != damaged)
        return LogMap(self.newest, self.floor, self.retained, merged)

    def units(self, first: int, last: int) -> Iterator[Unit]:
        """What to read for the batches ``first`` to ``last``, in order: at each place the object
        that reaches furthest; of two the wider, then by key, so that all readers agree."""
        n, last = max(first, self.oldest), min(last, self.newest)
        ranges = deque(sorted(self.merged, key=lambda one: (one.first, -one.last, one.key)))
        best: Range | None = None
        while n <= last:
            while ranges and ranges[0].first <= n:
                one = ranges.popleft()
                if best is None or one.last > best.last:
                    best = one
            if best is not None and best.last >= n:
                unit = Unit(n, min(best.last, last), best)
            else:
                end = min(last, ranges[0].first - 1) if ranges else last
                lost = n <= self.floor
                unit = Unit(n, min(end, self.floor) if lost else end, missing=lost)
            yield unit
            n = unit.last + 1


async def map_log(access: Access, layout: LogLayout, first: int = 0, reach: int = 0) -> LogMap:
    """The log as it is now: LISTs of one key, and of the merged objects from ``first`` on, which
    hold at most ``reach`` batches each (0: all of them)."""
    objects = LogObjects(access, layout)

    async def floor_then_merged() -> tuple[int, list[Range]]:
        # In this order: what is merged is in the listing before the floor says so.
        found = await access.patiently(lambda: floor.read_floor(access))
        return found, await objects.merged(first - reach if reach else 0)

    newest, retained, (collected, merged) = await asyncio.gather(
        access.patiently(lambda: chain.newest(access)), objects.retained(), floor_then_merged()
    )
    return LogMap(NOTHING if newest is None else newest, collected, retained, tuple(merged))
