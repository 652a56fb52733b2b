"""Objects as who keeps copies of them needs to see them: what came, what went, what stands.

A change has a place in one order: (version, source, place), where a source is a dataset or "" for
what the chain gave up, and a place is the ordinal of a file or a key. A cursor is such a place, so
it stays good for ever; what is forgotten meanwhile (objects given up long ago) is found by asking
for the standing of what one holds.
"""

from __future__ import annotations

import asyncio
import bisect
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from immutables import Map

from lakehouse.catalogd.core import Core, decode_cursor, encode_cursor
from lakehouse.catalogd.state import CatalogState, DatasetState
from lakehouse.contracts import inventory as i
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.kit.ids import encode_ulid
from lakehouse.model.dataset import DataFile, rows_key
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY, ObjectRef
from lakehouse.model.vectors import VECTORS_FOLDER

__all__ = ["Inventory"]

_PAGE_MAX: Final = 1000
_YIELD_EVERY: Final = 200
# Of a ULID.
_TIME_LETTERS: Final = 10
# After every place of a version: dataset ids are letters and digits.
_END: Final = "~"

Position = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class _Change:
    """``file`` came, or (None) the object ``ref`` was given up."""

    at: Position
    ref: ObjectRef
    file: DataFile | None = None


def _place(ordinal: int) -> str:
    return f"{ordinal:019d}"


@dataclass(slots=True)
class _Survey:
    """What is asked of one state again and again: every dataset by its last change, rising, and
    the files that live by the home of their dataset."""

    datasets: Map[str, DatasetState]
    versions: list[int]
    ordered: list[DatasetState]
    live: Counter[str]

    def since(self, version: int) -> list[DatasetState]:
        """The datasets that changed at or after ``version``."""
        return self.ordered[bisect.bisect_left(self.versions, version) :]


async def _surveyed(state: CatalogState) -> _Survey:
    live: Counter[str] = Counter()
    pairs: list[tuple[int, str]] = []
    for count, dataset in enumerate(state.datasets.values()):
        if count % _YIELD_EVERY == _YIELD_EVERY - 1:
            await asyncio.sleep(0)
        live[dataset.bucket] += dataset.log.totals.files
        pairs.append((dataset.now.version, dataset.id))
    pairs.sort()
    ordered = [state.datasets[dataset_id] for _, dataset_id in pairs]
    return _Survey(state.datasets, [version for version, _ in pairs], ordered, live)


def _bounds(dataset: DatasetState, after: Position) -> tuple[int, int]:
    """The first version and the last ordinal passed, of what the dataset has behind ``after``."""
    version, source, place = after
    first = version + 1 if dataset.id < source else version
    return first, int(place) if source == dataset.id and place else 0


@dataclass(slots=True)
class _Arrivals:
    """What came into one bucket behind a position. A dataset is opened when its turn comes: most
    are not on the page at all."""

    bucket: str
    after: Position
    starts: list[tuple[int, str, DatasetState]] = field(default_factory=list)
    count: int = 0

    async def look(self, datasets: Sequence[DatasetState]) -> None:
        """Find where each of ``datasets`` goes on, and how many files there are at most."""
        for place, dataset in enumerate(datasets):
            if place % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            if self.bucket in (PRIMARY, dataset.bucket, *dataset.log.elsewhere):
                _, version, count = dataset.log.behind(*_bounds(dataset, self.after))
                if count:
                    self.starts.append((version, dataset.id, dataset))
                    self.count += count
        self.starts.sort(key=lambda start: start[:2], reverse=True)

    def __iter__(self) -> Iterator[_Change]:
        heap: list[tuple[Position, Iterator[_Change], _Change]] = []
        while heap or self.starts:
            while self.starts and (not heap or self.starts[-1][:2] <= heap[0][0][:2]):
                self._advance(heap, self._opened(self.starts.pop()[2]))
            if heap:
                _, source, change = heapq.heappop(heap)
                yield change
                self._advance(heap, source)

    @staticmethod
    def _advance(
        heap: list[tuple[Position, Iterator[_Change], _Change]], source: Iterator[_Change]
    ) -> None:
        change = next(source, None)
        if change is not None:
            heapq.heappush(heap, (change.at, source, change))

    def _opened(self, dataset: DatasetState) -> Iterator[_Change]:
        for file, version in dataset.log.arrivals(*_bounds(dataset, self.after)):
            if file.bucket == self.bucket:
                at = (version, dataset.id, _place(file.ordinal))
                # What counts here is when it came, not which commit a rewrite stands for.
                came = replace(file, stats=(), seq=version)
                yield _Change(at, ObjectRef(self.bucket, file.key), came)


def _given_up(state: CatalogState, bucket: str, after: Position) -> list[_Change]:
    """But for search structures: they are caches, of which nobody was told and nobody has a
    copy."""
    found = [
        _Change((version, "", key), ObjectRef(bucket, key))
        for key, version in state.objects.condemned.items()
        if (version, "", key) > after and state.elsewhere.get(key, PRIMARY) == bucket
        if not key.startswith(VECTORS_FOLDER)
    ]
    return sorted(found, key=lambda change: change.at)


def _time_of(state: CatalogState, version: int) -> datetime | None:
    return to_datetime(state.times[version]) if version >= state.times.start else None


def _check(count: int) -> None:
    if not 1 <= count <= _PAGE_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, f"from 1 to {_PAGE_MAX} at a time", count=count, maximum=_PAGE_MAX
        )


class Inventory:
    """``CatalogService.object_changes`` and ``object_states``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: _Survey | None = None

    async def object_changes(
        self, ctx: Context, request: i.ObjectChangesRequest
    ) -> i.ObjectChangesResult:
        state = await self._core.read(ctx)
        _check(request.limit)
        bucket, after = request.bucket, (0, "", "")
        if request.cursor:
            version, source, place = decode_cursor(request.cursor, (int, str, str))
            after = (version, source, place if place.isdecimal() or not source else "")
            # A store that was rolled back: what comes now is new, though its number is not.
            after = min(after, (state.version, _END, ""))
        survey = await self._survey(state)
        arrivals = _Arrivals(bucket, after)
        await arrivals.look(survey.since(after[0]))
        merged = heapq.merge(
            _given_up(state, bucket, after), arrivals, key=lambda change: change.at
        )
        found = list(itertools.islice(merged, request.limit + 1))
        page, rest = found[: request.limit], found[request.limit :]
        end = page[-1].at if rest else (state.version, _END, "")
        added = tuple(change.file for change in page if change.file is not None)
        return i.ObjectChangesResult(
            added=added,
            given_up=tuple(change.ref for change in page if change.file is None),
            version=state.version,
            cursor=encode_cursor(*end),
            live=survey.live[bucket],
            waiting=max(1, arrivals.count - len(added)) if rest else 0,
            waiting_since=_time_of(state, rest[0].at[0]) if rest else None,
            since=_time_of(state, page[0].at[0]) if page else None,
        )

    async def _survey(self, state: CatalogState) -> _Survey:
        """Of the newest state asked for; buckets and pages share it."""
        known = self._known
        if known is None or known.datasets is not state.datasets:
            known = self._known = await _surveyed(state)
        return known

    async def object_states(
        self, ctx: Context, request: i.ObjectStatesRequest
    ) -> i.ObjectStatesResult:
        state = await self._core.read(ctx)
        _check(len(request.objects))
        foreign = await _foreign(state, request.objects)
        states = tuple(_standing(state, ref, foreign) for ref in request.objects)
        return i.ObjectStatesResult(states, state.version)


Named = dict[str, list[tuple[DataFile, DatasetState]]]


def _ours(key: str) -> bool:
    parts = key.split("/")
    return len(parts) == 4 and parts[0] == "datasets"


async def _foreign(state: CatalogState, refs: Sequence[ObjectRef]) -> Named:
    """Of the keys that no session wrote, the files that retained versions name by them. Any dataset
    may name such a key: all are looked at, once for the whole page."""
    keys = frozenset(ref.key for ref in refs if not _ours(ref.key))
    found: Named = {}
    if keys:
        for count, dataset in enumerate(state.datasets.values()):
            if count % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            for file in dataset.log.named(keys):
                found.setdefault(file.key, []).append((file, dataset))
    return found


def _named(state: CatalogState, key: str, foreign: Named) -> list[tuple[DataFile, DatasetState]]:
    """Every file by this key that a retained version names, and of what dataset."""
    key = rows_key(key)
    if not _ours(key):
        return foreign.get(key, [])
    found: list[tuple[DataFile, DatasetState]] = []
    for dataset_id in {key.split("/")[2], *state.adopted.get(key, ())}:
        dataset = state.datasets.get(dataset_id)
        file = dataset.log.find(key, retained=True) if dataset is not None else None
        if dataset is not None and file is not None:
            found.append((file, dataset))
    return found


def _standing(state: CatalogState, ref: ObjectRef, foreign: Named) -> i.ObjectState:
    named = _named(state, ref.key, foreign)
    here = [
        (dataset.log.lives(file), file.seq, file, dataset.now.head.name)
        for file, dataset in named
        if file.bucket == ref.bucket
    ]
    if here:
        # Of a key that was registered again, what the newest registration saw.
        live, _, file, name = max(here, key=lambda each: each[:2])
        if file.key == ref.key:
            return i.ObjectState(i.ObjectStanding.NAMED, file.size_bytes, file.sha256, live, name)
        if file.stats_sha256:
            return i.ObjectState(i.ObjectStanding.NAMED, 0, file.stats_sha256, live, name)
    if state.broken and state.broken_names(ref.key):
        return i.ObjectState(i.ObjectStanding.UNKNOWN)
    if not _ours(ref.key) or ref.key in state.objects.condemned or ref.key in state.orphaned:
        return i.ObjectState(i.ObjectStanding.GIVEN_UP)
    # What a session that lives has written may be about to be named. One that is younger than all
    # we know may have been opened by who has taken the store over from us.
    session = ref.key.split("/")[1]
    younger = session[:_TIME_LETTERS] > encode_ulid(state.ts_us // 1_000, 0)[:_TIME_LETTERS]
    lives = session in state.objects.sessions or younger
    return i.ObjectState(i.ObjectStanding.UNKNOWN if lives else i.ObjectStanding.GIVEN_UP)
