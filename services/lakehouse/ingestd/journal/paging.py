"""A page of one dataset's events in order, at a cost of the page where statistics allow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.ingestd.journal.objects import EventObjects
from lakehouse.ingestd.journal.planning import Plan
from lakehouse.ingestd.journal.wanted import VERSION_MAX, Wanted
from lakehouse.model.dataset import DataFile
from lakehouse.model.identity import Context

__all__ = ["Ask", "Order", "Page", "Place", "Work", "page_of"]

_ORDINAL_MAX: Final = VERSION_MAX
_FILES_MAX: Final = 64
_ROWS_MAX: Final = 50_000


class Place(NamedTuple):
    """Of an event in its dataset; each event has one of its own."""

    version: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Order:
    """Which events come first, and after which place to begin (the place itself is told)."""

    newest: bool
    start: Place

    @staticmethod
    def backwards(before: Place | None = None) -> Order:
        return Order(True, before or Place(VERSION_MAX, _ORDINAL_MAX))

    @staticmethod
    def forwards(after: Place) -> Order:
        return Order(False, after)

    @property
    def step(self) -> str:
        return "descending" if self.newest else "ascending"

    @property
    def first_version(self) -> int:
        """The first that may have something after the start."""
        if self.newest:
            return self.start.version - (self.start.ordinal <= 0)
        return self.start.version + (self.start.ordinal >= _ORDINAL_MAX)

    def ahead(self, version: int, other: int) -> bool:
        """Whether all of ``version`` comes before anything of ``other``."""
        return version > other if self.newest else version < other

    def select(self, events: pa.Table) -> pa.Table:
        """What comes after the start."""
        versions, ordinals = events["version"], events["ordinal"]
        beyond = pc.less if self.newest else pc.greater
        same = pc.and_(pc.equal(versions, self.start.version), beyond(ordinals, self.start.ordinal))
        return events.filter(pc.or_(beyond(versions, self.start.version), same))

    def first(self, events: pa.Table, limit: int) -> pa.Table:
        """The first ``limit`` of ``events``, sorted, each place once."""
        keys = [("version", self.step), ("ordinal", self.step)]
        events = events.take(pc.sort_indices(events, sort_keys=keys))
        return _distinct(events).slice(0, limit)


@dataclass(slots=True)
class Work:
    """How many more objects may be opened until a page ends early, to be gone on with."""

    files: int = 2_000


@dataclass(frozen=True, slots=True)
class Page:
    """``events`` sorted by the order, at most as many as were asked for.

    ``ended`` None: where there are fewer, there are no more. Else the page ended early: all that
    comes before this place was told, go on there.
    """

    events: pa.Table
    ended: Place | None = None


@dataclass(frozen=True, slots=True)
class _Edge:
    """A file, and the version where it begins in the order."""

    file: DataFile
    version: int


@dataclass(frozen=True, slots=True)
class Ask:
    """The first ``limit`` wanted events."""

    wanted: Wanted
    order: Order
    limit: int

    @property
    def columns(self) -> Sequence[str]:
        return ("version", "ordinal", *self.wanted.columns)

    def __call__(self, events: pa.Table, /) -> pa.Table:
        return self.order.first(self.order.select(self.wanted.select(events)), self.limit)


@dataclass(slots=True)
class _Scan:
    events: pa.Table
    done: int = 0
    work: Work = field(default_factory=Work)


async def page_of(
    ctx: Context,
    objects: EventObjects,
    plan: Plan,
    ask: Ask,
    work: Work | None = None,
) -> Page:
    """What is asked of ``plan``. Raises as ``EventObjects.read``."""
    wanted = replace(ask.wanted, upto=min(ask.wanted.upto, plan.version))
    order, limit = ask.order, ask.limit
    files = _edges(objects, wanted.prune(plan.files), wanted, order)
    sift = replace(ask, wanted=wanted)
    scan = _Scan(sift(plan.batches), work=work or Work())
    while scan.done < len(files):
        edge = files[scan.done].version
        if _enough(scan.events, order, limit, edge):
            break
        if scan.work.files <= 0 and edge != files[0].version:
            return _early(scan.events, order, edge)
        some = _some(files, scan.done, limit)
        found = await objects.read(ctx, [one.file for one in some], wanted.entity, sift)
        scan.events = order.first(pa.concat_tables([scan.events, found]), limit)
        scan.done += len(some)
        scan.work.files -= len(some)
    return Page(scan.events)


def _edges(
    objects: EventObjects, files: Sequence[DataFile], wanted: Wanted, order: Order
) -> list[_Edge]:
    """The files that may have events of the page, in the order in which those may begin."""
    start = order.first_version
    found = []
    for file in files:
        span = objects.span(file)
        low, high = max(span.low, wanted.after + 1), min(span.high, wanted.upto)
        if order.newest:
            high = min(high, start)
        else:
            low = max(low, start)
        if low <= high:
            found.append(_Edge(file, high if order.newest else low))
    found.sort(key=lambda one: one.version, reverse=order.newest)
    return found


def _enough(events: pa.Table, order: Order, limit: int, edge: int) -> bool:
    if events.num_rows < limit:
        return False
    return order.ahead(events["version"][limit - 1].as_py(), edge)


def _some(files: list[_Edge], done: int, limit: int) -> list[_Edge]:
    """The next files to open together: few where one has enough, within bounded memory."""
    rows, end = 0, done
    wanted = min(2 * limit, _ROWS_MAX)
    while end < len(files) and end - done < _FILES_MAX and rows < wanted:
        rows += files[end].file.rows
        end += 1
    return files[done:end]


def _early(events: pa.Table, order: Order, edge: int) -> Page:
    """What comes before ``edge``: of later ones some may still be in files that were not read."""
    beyond = pc.greater if order.newest else pc.less
    place = Place(edge + 1, 0) if order.newest else Place(edge - 1, _ORDINAL_MAX)
    return Page(events.filter(beyond(events["version"], edge)), place)


def _distinct(events: pa.Table) -> pa.Table:
    """Sorted events without those that are there twice."""
    if events.num_rows < 2:
        return events
    same = [
        pc.equal(_but_last(events[name]), _but_first(events[name]))
        for name in ("version", "ordinal")
    ]
    repeated = pc.and_(*same)
    if not pc.any(repeated).as_py():
        return events
    keep = pa.chunked_array([pa.array([True]), *pc.invert(repeated).chunks], pa.bool_())
    return events.filter(keep)


def _but_last(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.slice(0, len(values) - 1)


def _but_first(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.slice(1)
