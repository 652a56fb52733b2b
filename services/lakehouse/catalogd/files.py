"""The files of one dataset over all retained versions: a persistent, log-structured sequence.

Files are appended as segments; neighbours of like size are merged, so that an append costs
O(log n) amortised and n files stand in O(log n + n / SEGMENT_FILES) segments. Small segments hold
values, large ones an Arrow table of a few hundred bytes a file. A file is seen at version v if it
was added at or before v and not yet removed: singly (``removed``) or by a replace (``clears``).
A replace leaves the events: they are appended again, as what they were.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Self

import pyarrow as pa
import pyarrow.compute as pc
from immutables import Map

from lakehouse.catalogd.filetable import decode_files, encode_files
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile
from lakehouse.model.refs import PRIMARY

__all__ = ["SEGMENT_FILES", "FileLog", "Segment", "Totals"]

SEGMENT_FILES: Final = 8192
_SMALL: Final = 512
_BLOCK: Final = 1024
_DECODED_BLOCKS: Final = 64
_SEQ_END: Final = 2**63 - 1
# What a file's rows are to the number of rows that can be seen.
_SIGN: Final = {ROWS: 1, KEYS: -1, EVENTS: 0}

Decoded = tuple[tuple[DataFile, ...], tuple[int, ...]]


class Segment:
    """An immutable run of files by ordinal, as values or as a table; the other form is made when
    asked for."""

    __slots__ = ("_bounds", "_by_key", "_contents", "_table", "_values", "count", "first", "last")

    def __init__(self, values: Decoded | None, table: pa.Table | None = None) -> None:
        self._values = values
        self._table = table
        self._by_key: dict[str, int] | None = None
        self._bounds: tuple[str, str] | None = None
        self._contents: frozenset[str] | None = None
        if values is not None:
            self.count, self.first, self.last = (
                len(values[0]),
                values[0][0].ordinal,
                values[0][-1].ordinal,
            )
        else:
            ordinals = self.table.column("ordinal")
            self.count = len(ordinals)
            self.first, self.last = ordinals[0].as_py(), ordinals[-1].as_py()

    @property
    def table(self) -> pa.Table:
        """The files as ``filetable.FILE_SCHEMA``."""
        if self._table is not None:
            return self._table
        assert self._values is not None
        table = encode_files(*self._values)
        if self.count >= _SMALL:
            self._table, self._values = table, None
        return table

    @property
    def added_span(self) -> tuple[int, int]:
        """The first and the last version that added a file of the segment."""
        if self._values is not None:
            return self._values[1][0], self._values[1][-1]
        added = self.table.column("added")
        return added[0].as_py(), added[-1].as_py()

    @property
    def values(self) -> Decoded:
        """The files, and the version that added each."""
        if self._values is not None:
            return self._values
        assert self._table is not None
        if self.count >= _SMALL:
            return decode_files(self._table)
        self._values = decode_files(self._table)
        self._table = None
        return self._values

    @property
    def held_as_table(self) -> bool:
        """True if ``table`` costs nothing."""
        return self._table is not None

    def overlaps(self, low: str, high: str) -> bool:
        """False if no key of the segment is in [low, high]; a small one is not asked."""
        if self.count < _SMALL:
            return True
        if self._bounds is None:
            ends = pc.min_max(self.table.column("key"))
            self._bounds = (ends["min"].as_py(), ends["max"].as_py())
        return self._bounds[0] <= high and low <= self._bounds[1]

    def find(self, key: str) -> int:
        """The place of ``key`` in the segment, or -1; of several the last, which is the newest."""
        if self.count < _SMALL:
            if self._by_key is None:
                self._by_key = {file.key: at for at, file in enumerate(self.values[0])}
            return self._by_key.get(key, -1)
        if not self.overlaps(key, key):
            return -1
        places = pc.indices_nonzero(pc.equal(self.table.column("key"), key))
        return int(places[-1].as_py()) if len(places) else -1

    def places(self, keys: frozenset[str]) -> list[int]:
        """The places of all files whose key is one of ``keys``, rising."""
        if self.count < _SMALL:
            return [at for at, file in enumerate(self.values[0]) if file.key in keys]
        found = pc.is_in(self.table.column("key"), value_set=pa.array(sorted(keys)))
        places: list[int] = pc.indices_nonzero(found).to_pylist()
        return places

    def newest(self, keys: frozenset[str]) -> Iterable[DataFile]:
        """The file of each of ``keys`` that is in the segment; of several the last, as ``find``."""
        if self.count < _SMALL:
            return [self.row(place)[0] for key in keys if (place := self.find(key)) >= 0]
        places = self.places(keys) if self.overlaps(min(keys), max(keys)) else []
        files, _ = decode_files(self.table.take(pa.array(places, pa.int64())))
        return {file.key: file for file in files}.values()

    def first_added(self, version: int) -> tuple[int, int]:
        """The ordinal of the first file that was added at or after ``version``, and the version
        that added it. There is one."""
        if self._values is not None:
            files, added = self._values
            at = bisect.bisect_left(added, version)
            return files[at].ordinal, added[at]
        column = self.table.column("added")
        at = bisect.bisect_left(range(self.count), version, key=lambda row: column[row].as_py())
        return self.table.column("ordinal")[at].as_py(), column[at].as_py()

    def blocks(self, ordinal: int) -> Iterator[Decoded]:
        """The files from ``ordinal`` on, and the version that added each, a block at a time."""
        if self.count < _SMALL:
            yield self.values
            return
        ordinals = self.table.column("ordinal")
        start = bisect.bisect_left(range(self.count), ordinal, key=lambda at: ordinals[at].as_py())
        for block in range(start // _BLOCK, -(-self.count // _BLOCK)):
            yield _decoded(self, block)

    def picked(self, content: str, low: int, high: int) -> Iterator[tuple[DataFile, int]]:
        """The files with ``content`` and low <= seq < high, and the version that added each."""
        if self.count < _SMALL:
            for file, added in zip(*self.values, strict=True):
                if file.content == content and low <= file.seq < high:
                    yield file, added
            return
        table = self.table
        if self._contents is None:
            self._contents = frozenset(pc.unique(table.column("content")).to_pylist())
        if content not in self._contents:
            return
        seqs = table.column("seq")
        near = pc.and_(pc.greater_equal(seqs, low), pc.less(seqs, high))
        found = table.filter(pc.and_(pc.equal(table.column("content"), content), near))
        yield from zip(*decode_files(found), strict=True)

    def row(self, place: int) -> tuple[DataFile, int]:
        """The file at ``place``, and the version that added it."""
        if self._values is None and self.count >= _SMALL:
            files, added = decode_files(self.table.slice(place, 1))
            return files[0], added[0]
        files, added = self.values
        return files[place], added[place]


@lru_cache(maxsize=_DECODED_BLOCKS)
def _decoded(segment: Segment, block: int) -> Decoded:
    """Part of a large segment as values: a few stay, for a dataset that is read again."""
    return decode_files(segment.table.slice(block * _BLOCK, _BLOCK))


def _merged(left: Segment, right: Segment) -> Segment:
    if left.count + right.count < _SMALL:
        ours, theirs = left.values, right.values
        return Segment((ours[0] + theirs[0], ours[1] + theirs[1]))
    return Segment(None, pa.concat_tables([left.table, right.table]).combine_chunks())


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the files that live. ``rows`` are those that can be seen: each key of a ``keys``
    file hides exactly one."""

    files: int = 0
    size_bytes: int = 0
    rows: int = 0
    key_files: int = 0
    event_files: int = 0

    def plus(self, files: Iterable[DataFile], sign: int = 1) -> Self:
        """With ``files``; with ``sign`` -1 without them."""
        count, size, rows, keys, events = 0, 0, 0, 0, 0
        for file in files:
            count += 1
            size += file.size_bytes
            rows += _SIGN.get(file.content, 0) * file.rows
            keys += file.content == KEYS
            events += file.content == EVENTS
        return replace(
            self,
            files=self.files + sign * count,
            size_bytes=self.size_bytes + sign * size,
            rows=self.rows + sign * rows,
            key_files=self.key_files + sign * keys,
            event_files=self.event_files + sign * events,
        )


@dataclass(frozen=True, slots=True)
class FileLog:
    """``clears``: (version, ordinal bound), both rising: files below the bound are gone from that
    version on. ``totals`` are those of the newest version. ``elsewhere``: the buckets other than
    the primary one in which a file of the log is."""

    segments: tuple[Segment, ...] = ()
    removed: Map[int, int] = field(default_factory=Map)
    clears: tuple[tuple[int, int], ...] = ()
    next_ordinal: int = 1
    totals: Totals = Totals()
    elsewhere: frozenset[str] = frozenset()

    def append(self, files: Sequence[DataFile], version: int, *, keep_seq: bool = False) -> FileLog:
        """With ``files`` added at ``version``; their ordinals are given here, in order. With
        ``keep_seq`` they go on standing for the commits that they come with."""
        if not files:
            return self
        placed = [
            replace(
                file,
                ordinal=self.next_ordinal + at,
                seq=file.seq if keep_seq else version,
            )
            for at, file in enumerate(files)
        ]
        segments = list(self.segments)
        for start in range(0, len(placed), SEGMENT_FILES):
            part = tuple(placed[start : start + SEGMENT_FILES])
            segments.append(Segment((part, (version,) * len(part))))
            while (
                len(segments) > 1
                and segments[-2].count <= 2 * segments[-1].count
                and segments[-2].count + segments[-1].count <= SEGMENT_FILES
            ):
                last = segments.pop()
                segments[-1] = _merged(segments[-1], last)
        return replace(
            self,
            segments=tuple(segments),
            next_ordinal=self.next_ordinal + len(placed),
            totals=self.totals.plus(placed),
            elsewhere=self.elsewhere.union(f.bucket for f in files if f.bucket != PRIMARY),
        )

    def clear(self, version: int) -> FileLog:
        """With nothing but events living from ``version`` on."""
        if self.totals.files == self.totals.event_files:
            return self
        events = list(self.of_content(EVENTS)) if self.totals.event_files else []
        here = (version, self.next_ordinal)
        cleared = replace(self, clears=(*self.clears, here), totals=Totals())
        return cleared.append(events, version, keep_seq=True)

    def remove(self, keys: Iterable[str], version: int) -> FileLog:
        """Without the living files ``keys``; one that does not live is passed over."""
        gone = list(self.living_files(keys).values())
        if not gone:
            return self
        removed = self.removed.update(dict.fromkeys([file.ordinal for file in gone], version))
        return replace(self, removed=removed, totals=self.totals.plus(gone, -1))

    def _bound(self, version: int | None) -> int:
        """Files with a lower ordinal were replaced at or before ``version``."""
        if version is None:
            return self.clears[-1][1] if self.clears else 0
        at = bisect.bisect_right(self.clears, version, key=lambda clear: clear[0])
        return self.clears[at - 1][1] if at else 0

    def find(self, key: str, *, retained: bool = False) -> DataFile | None:
        """The file with ``key`` that lives; with ``retained`` also one that only older versions
        name. A key may stand in the log more than once: the newest is found."""
        bound = 0 if retained else self._bound(None)
        for segment in reversed(self.segments):
            if segment.last < bound:
                return None
            place = segment.find(key)
            if place < 0:
                continue
            file, _ = segment.row(place)
            if retained or (file.ordinal >= bound and file.ordinal not in self.removed):
                return file
        return None

    def living_files(self, keys: Iterable[str]) -> dict[str, DataFile]:
        """Of ``keys`` those that live, each as ``find`` has it; large segments are asked once."""
        missing, found = set(keys), dict[str, DataFile]()
        for segment in reversed(self.segments):
            if segment.last < self._bound(None) or not missing:
                break
            near = segment.newest(frozenset(missing))
            found.update({file.key: file for file in near if self.lives(file)})
            missing.difference_update(found)
        return found

    def born(self, ordinals: Iterable[int]) -> set[int]:
        """The versions that added the files ``ordinals``."""
        found: set[int] = set()
        for ordinal in ordinals:
            at = bisect.bisect_left(self.segments, ordinal, key=lambda segment: segment.last)
            for files, added in self.segments[at].blocks(ordinal):
                place = bisect.bisect_left(files, ordinal, key=lambda file: file.ordinal)
                if place < len(files):
                    found.add(added[place])
                    break
        return found

    def living(self, versions: Iterable[int]) -> set[int]:
        """Those of ``versions`` that added rows which live."""
        bound, wanted, found = self._bound(None), sorted(versions), set[int]()
        for segment in self.segments:
            low, high = segment.added_span
            first = bisect.bisect_left(wanted, low)
            if segment.last < bound or first == len(wanted) or wanted[first] > high:
                continue
            near = set(wanted[first : bisect.bisect_right(wanted, high)]) - found
            for files, added in segment.blocks(max(bound, segment.first)) if near else ():
                found.update(
                    born
                    for file, born in zip(files, added, strict=True)
                    if born in near
                    and file.content == ROWS
                    and file.ordinal >= bound
                    and file.ordinal not in self.removed
                )
        return found

    def first_living(self, keys: Sequence[str]) -> str | None:
        """The first of ``keys`` that is a living file; None if none is."""
        if not keys:
            return None
        bound, low, high = self._bound(None), min(keys), max(keys)
        near = [s for s in self.segments if s.last >= bound and s.overlaps(low, high)]
        held = (key for key in keys if any(segment.find(key) >= 0 for segment in near))
        return next((key for key in held if self.find(key) is not None), None)

    def visible(self, version: int | None = None, after: int = 0) -> Iterator[DataFile]:
        """Files seen at ``version`` (None: the newest) with an ordinal above ``after``, in order;
        made as they are asked for."""
        for file, _ in self._seen(version, after):
            yield file

    def _seen(self, version: int | None, after: int) -> Iterator[tuple[DataFile, int]]:
        """As ``visible``, with the version that added each."""
        bound = max(self._bound(version), after + 1)
        start = bisect.bisect_left(self.segments, bound, key=lambda segment: segment.last)
        for segment in self.segments[start:]:
            for files, added in segment.blocks(bound):
                if version is not None and added[0] > version:
                    return
                for file, born in zip(files, added, strict=True):
                    if file.ordinal < bound:
                        continue
                    if version is not None and born > version:
                        return
                    dead = self.removed.get(file.ordinal)
                    if dead is None or (version is not None and dead > version):
                        yield file, born

    def of_content(
        self, content: str, low: int = 0, high: int = _SEQ_END, version: int | None = None
    ) -> Iterator[DataFile]:
        """Files with ``content`` and low <= seq < high seen at ``version`` (None: the newest), by
        ordinal. Of large segments the others are not made."""
        bound = self._bound(version)
        for segment in self.segments:
            if segment.last < bound or segment.added_span[1] < low:
                continue  # nobody stands for a commit after the one that added it
            for file, born in segment.picked(content, low, high):
                dead = self.removed.get(file.ordinal)
                if file.ordinal < bound or (version is not None and born > version):
                    continue
                if dead is None or (version is not None and dead > version):
                    yield file

    def arrivals(self, version: int, after: int = 0) -> Iterator[tuple[DataFile, int]]:
        """Files that live and were added at or after ``version``, with an ordinal above ``after``,
        in order, and the version that added each; what was there before costs nothing."""
        first, _, _ = self.behind(version, after)
        return self._seen(None, first - 1) if first else iter(())

    def behind(self, version: int, after: int = 0) -> tuple[int, int, int]:
        """Of files added at or after ``version`` with an ordinal above ``after``: the ordinal of
        the first, a version at or before the one that added it, and how many there are at most.
        Zeros if there are none."""
        start = bisect.bisect_left(self.segments, version, key=lambda part: part.added_span[1])
        if start == len(self.segments):
            return 0, 0, 0
        ordinal, added = self.segments[start].first_added(version)
        first = max(ordinal, after + 1)
        count = min(self.segments[-1].last - first + 1, self.totals.files)
        return (first, added, count) if count > 0 else (0, 0, 0)

    def named(self, keys: frozenset[str]) -> Iterator[DataFile]:
        """The retained files whose key is one of ``keys``, in order."""
        low, high = min(keys), max(keys)
        for segment in self.segments:
            if segment.overlaps(low, high):
                yield from (segment.row(place)[0] for place in segment.places(keys))

    def lives(self, file: DataFile) -> bool:
        """Whether the newest version names this file of the log."""
        return file.ordinal >= self._bound(None) and file.ordinal not in self.removed

    def retained(self) -> Iterator[DataFile]:
        """Every file that some retained version names."""
        for segment in self.segments:
            yield from segment.values[0]

    def _death(self, ordinal: int) -> int:
        """The version that removed the file; past every version if it lives."""
        at = bisect.bisect_right(self.clears, ordinal, key=lambda clear: clear[1])
        cleared = self.clears[at][0] if at < len(self.clears) else _SEQ_END
        return min(cleared, self.removed.get(ordinal, _SEQ_END))

    def dead_since(self, horizon: int, pins: Sequence[int] = ()) -> Iterator[DataFile]:
        """Files removed at or before ``horizon``: no version above or at it names them, nor does
        one of ``pins`` (rising)."""
        bound = self._bound(horizon)
        for segment in self.segments:
            if segment.first >= bound and not self.removed:
                return
            for file, born in zip(*segment.values, strict=True):
                if file.ordinal < bound or self.removed.get(file.ordinal, horizon + 1) <= horizon:
                    at = bisect.bisect_left(pins, born)
                    if at == len(pins) or pins[at] >= self._death(file.ordinal):
                        yield file

    def oldest_death(self) -> int | None:
        """The first version at which a file of the log was removed; None if all live."""
        deaths = [*self.removed.values(), *(version for version, _ in self.clears[:1])]
        return min(deaths) if deaths else None

    def without_dead(self, horizon: int, pins: Sequence[int] = ()) -> FileLog:
        """Without what ``dead_since`` yields."""
        gone = {file.ordinal for file in self.dead_since(horizon, pins)}
        if not gone:
            return self
        segments: list[Segment] = []
        for segment in self.segments:
            files, added = segment.values
            kept = [at for at, file in enumerate(files) if file.ordinal not in gone]
            if len(kept) == segment.count:
                segments.append(segment)
            elif kept:
                segments.append(
                    Segment((tuple(files[at] for at in kept), tuple(added[at] for at in kept)))
                )
        removed = self.removed
        for ordinal in gone:
            if ordinal in removed:
                removed = removed.delete(ordinal)
        since = min([horizon, *pins[:1]])  # what a pin keeps is still to be known for dead
        clears = tuple(clear for clear in self.clears if clear[0] > since)
        left = replace(self, segments=tuple(segments), removed=removed, clears=clears)
        if self.elsewhere:
            used = {file.bucket for file in left.retained()} - {PRIMARY}
            left = replace(left, elsewhere=frozenset(used))
        return left

    @staticmethod
    def of(
        table: pa.Table | None,
        removed: Map[int, int],
        clears: tuple[tuple[int, int], ...],
        next_ordinal: int,
        totals: Totals,
    ) -> FileLog:
        """From a checkpoint: ``table`` has the dataset's files by ordinal; None for none. Put
        ``elsewhere`` in: it is found for many datasets at once."""
        rows = 0 if table is None else len(table)
        segments = tuple(
            Segment(None, table.slice(start, SEGMENT_FILES))
            for start in range(0, rows, SEGMENT_FILES)
            if table is not None
        )
        return FileLog(segments, removed, clears, next_ordinal, totals)
