"""Whole rows by key at one snapshot, from what is decoded locally. Runs in threads.

Small files are on a shelf in memory, large ones are searched by row group; of those only files and
groups are looked at whose statistics allow one of the keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.ingestd.rows.groups import Groups, Source, decoding
from lakehouse.ingestd.rows.lookup import Hits, Index, has_key, search, under_schema
from lakehouse.ingestd.rows.recent import Place, Recent, Shelf, is_small
from lakehouse.model.dataset import KEYS, ROWS, DataFile
from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import flat
from lakehouse.table.keys import key_columns, key_hashes
from lakehouse.table.stats import bounds_of, may_hold_any
from lakehouse.table.types import arrow_schema

__all__ = ["Finder", "Found", "place"]

# From so many groups on one index of the file is cheaper than one of each of them.
_GROUPS_MANY: Final = 4
_WHOLE_ROWS_MAX: Final = 16_000_000
_BYTES_A_ROW: Final = 100
_EXPANSION: Final = 8


def place(file: DataFile) -> Place:
    """What tells an object from all others."""
    return (file.bucket, file.key)


@dataclass(slots=True)
class Found:
    """``missing``: files whose bytes have to be near for an answer; then ``rows`` means nothing."""

    rows: pa.Table
    missing: list[DataFile] = field(default_factory=list)


class _MissingError(Exception):
    def __init__(self, files: Sequence[DataFile]) -> None:
        super().__init__()
        self.files = list(files)


@dataclass(frozen=True, slots=True)
class _Search:
    """What is sought: ``keys`` (unique, no nulls) and their hashes; ``paths`` of what is near.
    ``keyed``: the schema of the key alone; ``written``: with what rows were written, by its id."""

    snapshot: DatasetSnapshot
    keys: pa.Table
    hashes: pa.Array
    paths: Mapping[Place, str]
    schemas: Mapping[int, Schema]
    keyed: Schema
    written: dict[int, Schema] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        return self.snapshot.dataset.primary_key

    def source(self, file: DataFile) -> Source:
        return Source(file, self.schema(file), self.key, self.paths.get(place(file), ""))

    def schema(self, file: DataFile) -> Schema:
        """What the columns of ``file`` are read with."""
        if file.content == KEYS:
            return self.keyed
        known = self.written.get(file.schema_id)
        if known is None:
            written = self.schemas.get(file.schema_id, self.snapshot.dataset.schema)
            self.written[file.schema_id] = known = _keyed(written, self.keyed.columns)
        return known


class Finder:
    """``find`` may be called by many threads at once."""

    def __init__(self, groups: Groups, recent: Recent, memory_bytes_max: int) -> None:
        self._groups = groups
        self._recent = recent
        self._memory_bytes_max = memory_bytes_max

    def close(self) -> None:
        """Let what is held go."""
        self._groups.close()

    def find(self, snapshot: DatasetSnapshot, keys: pa.Table, paths: Mapping[Place, str]) -> Found:
        """The visible rows of ``keys`` under the dataset's schema, in any order."""
        dataset = snapshot.dataset
        empty = arrow_schema(dataset.schema).empty_table()
        if keys.num_rows == 0 or not snapshot.files:
            return Found(empty)
        schemas = {schema.id: schema for schema in snapshot.schemas}
        hashes = key_hashes(keys, dataset.schema, dataset.primary_key)
        keyed = Schema(dataset.schema.id, key_columns(dataset.schema, dataset.primary_key))
        search = _Search(snapshot, keys, hashes, paths, schemas, keyed)
        try:
            return Found(pa.concat_tables([empty, *self._find(search)]))
        except _MissingError as missing:
            return Found(empty, missing.files)

    def _find(self, wanted: _Search) -> list[pa.Table]:
        small, large = self._split(wanted.snapshot.files)
        shelf = self._shelf(wanted, small)
        large = _prune(large, wanted)
        missing = [f for f in large if self._groups.footer(wanted.source(f)) is None]
        if shelf is None or missing:
            unknown = self._recent.shelf(wanted.snapshot.dataset).numbers
            missing += [f for f in small if place(f) not in unknown]
            raise _MissingError([f for f in missing if place(f) not in wanted.paths])
        pieces = _Pieces(shelf, small)
        hits = pieces.confirmed(shelf.find(wanted.hashes, pieces.numbers), wanted)
        seqs, of_rows = pieces.told_of(hits)
        of_keys = pc.invert(of_rows)
        entries = [(hits.needles.filter(of_keys), seqs.filter(of_keys))]
        for file in large:
            if file.content == KEYS:
                entries.append(self._entries(file, wanted))
        hidden = _highest(entries, wanted.keys.num_rows)
        candidates = hits.filter(of_rows)
        seen = pc.greater_equal(seqs.filter(of_rows), hidden.take(candidates.needles))
        here = candidates.filter(seen)
        found = pieces.rows(here, wanted)
        rest = _without(pa.arange(0, wanted.keys.num_rows), here.needles)
        for file in sorted(large, key=lambda one: -one.seq):
            if file.content == ROWS and len(rest):
                more, needles = self._rows(file, wanted, rest, hidden)
                found += more
                rest = _without(rest, needles)
        return found

    def _split(self, files: Sequence[DataFile]) -> tuple[list[DataFile], list[DataFile]]:
        """Small files, the newest first, as far as they fit into memory; and all others."""
        small: list[DataFile] = []
        large: list[DataFile] = []
        room = self._memory_bytes_max
        for file in reversed(files):
            if file.content not in (ROWS, KEYS):
                continue
            weight = _EXPANSION * file.size_bytes + _BYTES_A_ROW * file.rows
            if is_small(file) and weight <= room:
                room -= weight
                small.append(file)
            else:
                large.append(file)
        return small, large

    def _shelf(self, wanted: _Search, small: Sequence[DataFile]) -> Shelf | None:
        """The dataset's shelf with all of ``small`` on it; None if one is not near."""
        dataset = wanted.snapshot.dataset
        shelf = self._recent.shelf(dataset)
        if shelf.is_stale(len(small), self._memory_bytes_max):
            self._recent.drop(dataset)
            shelf = self._recent.shelf(dataset)
        new = [file for file in small if place(file) not in shelf.numbers]
        near = [file for file in new if place(file) in wanted.paths]
        if near:
            tables = [_read(wanted.source(file)) for file in near]
            self._recent.add(dataset, [place(file) for file in near], tables)
            shelf = self._recent.shelf(dataset)
        return shelf if len(near) == len(new) else None

    def _entries(self, file: DataFile, wanted: _Search) -> tuple[pa.Array, pa.Array]:
        """The needles that a large keys file has an entry for, and its seq for each."""
        rest = pa.arange(0, wanted.keys.num_rows)
        needles = [pa.array([], pa.int64())]
        for hits, table in self._large(file, wanted, rest):
            rows = table.select(list(wanted.key)).take(hits.rows)
            same = has_key(rows, wanted.keys.take(hits.needles), wanted.key)
            needles.append(hits.needles.filter(same))
        found = pa.concat_arrays(needles)
        return found, pa.repeat(pa.scalar(file.seq, pa.int64()), len(found))

    def _rows(
        self, file: DataFile, wanted: _Search, rest: pa.Array, hidden: pa.Array
    ) -> tuple[list[pa.Table], pa.Array]:
        """Visible rows of the needles ``rest`` in a large file, and which needles those were."""
        rest = rest.filter(pc.less_equal(hidden.take(rest), file.seq))
        tables: list[pa.Table] = []
        needles: list[pa.Array] = []
        for hits, table in self._large(file, wanted, rest):
            tables.append(table.take(hits.rows))
            needles.append(hits.needles)
        if not tables:
            return [], pa.array([], pa.int64())
        # Of all groups together: of few rows a kernel costs by call.
        rows, found = pa.concat_tables(tables).combine_chunks(), pa.concat_arrays(needles)
        same = has_key(rows, wanted.keys.take(found), wanted.key)
        rows = under_schema(rows.filter(same), wanted.schema(file), _wanted_schema(wanted))
        return [rows], found.filter(same)

    def _large(
        self, file: DataFile, wanted: _Search, rest: pa.Array
    ) -> list[tuple[Hits, pa.Table]]:
        """Of a large file, for each group that may have one of the needles ``rest``, where in the
        group, and the group."""
        source = wanted.source(file)
        footer = self._groups.footer(source)
        if footer is None:
            raise _MissingError([file])
        if not len(rest):
            return []
        count = footer.metadata.num_row_groups
        keep = pa.repeat(pa.scalar(True), count)
        for name, bounds in zip(source.key, footer.bounds, strict=True):
            if bounds is not None:
                values = flat(wanted.keys.column(name)).take(rest)
                keep = pc.and_(keep, may_hold_any(bounds, values))
        groups = pc.indices_nonzero(keep).to_pylist()
        found: list[tuple[Hits, pa.Table]] = []
        hashes = wanted.hashes.take(rest)
        for index in self._indexes(source, groups, count, footer.metadata.num_rows):
            hits = search(index, hashes)
            hits = Hits(rest.take(hits.needles), hits.pieces, hits.rows)
            parts = _each(_by_piece(hits))
            tables = self._groups.rows(source, [group for group, _ in parts])
            for (_, part), table in zip(parts, tables, strict=True):
                if table is None:
                    raise _MissingError([file])
                found.append((part, table))
        return found

    def _indexes(self, source: Source, groups: Sequence[int], count: int, rows: int) -> list[Index]:
        known = self._groups.index(replace(source, path=""), range(count), True)
        if known is not None:
            indexes: list[Index | None] = [known]
        elif len(groups) > _GROUPS_MANY and rows <= _WHOLE_ROWS_MAX:
            indexes = [self._groups.index(source, range(count), True)]
        else:
            indexes = [self._groups.index(source, (group,), False) for group in groups]
        found = [index for index in indexes if index is not None]
        if len(found) < len(indexes):
            raise _MissingError([source.file])
        return found


class _Pieces:
    """The small files of a snapshot on a shelf."""

    def __init__(self, shelf: Shelf, files: Sequence[DataFile]) -> None:
        self._shelf = shelf
        self._files = files
        self._places = [shelf.numbers[place(file)] for file in files]
        self.numbers = pa.array(self._places, pa.int32())
        self._seqs = pa.array([file.seq for file in files], pa.int64())
        self._rows = pa.array([file.content == ROWS for file in files], pa.bool_())

    def told_of(self, hits: Hits) -> tuple[pa.Array, pa.Array]:
        """Of the file of each hit its seq, and whether it is one of rows."""
        files = pc.index_in(hits.pieces, value_set=self.numbers)
        return self._seqs.take(files), self._rows.take(files)

    def confirmed(self, hits: Hits, wanted: _Search) -> Hits:
        """Of ``hits`` those that really have the key."""
        if not len(hits):
            return hits
        key = list(wanted.key)
        hits = _by_piece(hits)
        rows = [self._shelf.tables[n].select(key).take(at.rows) for n, at in _each(hits)]
        same = has_key(pa.concat_tables(rows), wanted.keys.take(hits.needles), wanted.key)
        return hits.filter(same)

    def rows(self, hits: Hits, wanted: _Search) -> list[pa.Table]:
        """The rows at ``hits`` under the dataset's schema."""
        files = dict(zip(self._places, self._files, strict=True))
        alike: dict[int, tuple[Schema, list[pa.Table]]] = {}
        for number, at in _each(_by_piece(hits)):
            file = files[number]
            _, tables = alike.setdefault(file.schema_id, (wanted.schema(file), []))
            tables.append(self._shelf.tables[number].take(at.rows))
        return [
            under_schema(pa.concat_tables(tables), schema, _wanted_schema(wanted))
            for schema, tables in alike.values()
        ]


def _by_piece(hits: Hits) -> Hits:
    order = pc.sort_indices(hits.pieces)
    return Hits(hits.needles.take(order), hits.pieces.take(order), hits.rows.take(order))


def _each(hits: Hits) -> list[tuple[int, Hits]]:
    """Hits, sorted by piece, of each piece."""
    found = []
    start = 0
    for count in pc.value_counts(hits.pieces).to_pylist():
        part = slice(start, start + count["counts"])
        one = Hits(hits.needles[part], hits.pieces[part], hits.rows[part])
        found.append((int(count["values"]), one))
        start += count["counts"]
    return found


def _wanted_schema(wanted: _Search) -> Schema:
    return wanted.snapshot.dataset.schema


def _keyed(written: Schema, key: Sequence[Column]) -> Schema:
    """``written`` with the key's columns as wide as they are by now: a column may have become wider
    before it became a key."""
    types = {column.id: column.type for column in key}
    if all(types.get(column.id, column.type) == column.type for column in written.columns):
        return written
    columns = (replace(one, type=types.get(one.id, one.type)) for one in written.columns)
    return Schema(written.id, tuple(columns))


def _prune(files: Sequence[DataFile], wanted: _Search) -> list[DataFile]:
    """Of ``files`` those that may have one of the keys, by the statistics of the catalog."""
    if not files:
        return []
    types = {column.name: column for column in _wanted_schema(wanted).columns}
    keep = pa.repeat(pa.scalar(True), len(files))
    for name in wanted.key:
        column = types[name]
        bounds = bounds_of(files, column.id, column.type)
        if bounds is not None:
            may = may_hold_any(bounds, flat(wanted.keys.column(name)))
            # Bounds of another type are of another order.
            other = pa.array([_type_in(wanted, file, column) != column.type for file in files])
            keep = pc.and_(keep, pc.or_(may, other))
    return [files[at] for at in pc.indices_nonzero(keep).to_pylist()]


def _type_in(wanted: _Search, file: DataFile, column: Column) -> str:
    """The type that a column had when a file was written."""
    written = wanted.schemas.get(file.schema_id)
    if file.content == KEYS or written is None:
        return column.type
    return next((one.type for one in written.columns if one.id == column.id), column.type)


def _highest(entries: Sequence[tuple[pa.Array, pa.Array]], count: int) -> pa.Array:
    """For each of ``count`` needles the highest seq that it has an entry with; -1 for none."""
    needles = pa.concat_arrays([one for one, _ in entries])
    if not len(needles):
        return pa.repeat(pa.scalar(-1, pa.int64()), count)
    seqs = pa.concat_arrays([one for _, one in entries])
    # Sorted, the first of each needle is its highest; a grouping would cost a pool of threads.
    order = pc.sort_indices(
        pa.table([needles, seqs], ["needle", "seq"]),
        sort_keys=[("needle", "ascending"), ("seq", "descending")],
    )
    first = pc.index_in(pa.arange(0, count), value_set=needles.take(order))
    return pc.fill_null(seqs.take(order.take(first)), -1)


def _without(needles: pa.Array, found: pa.Array) -> pa.Array:
    return needles.filter(pc.invert(pc.is_in(needles, value_set=found)))


def _read(source: Source) -> pa.Table:
    """All of a small file, in its own schema."""
    # Threads for the columns of a small file cost more than they spare.
    with decoding(source.file), pq.ParquetFile(source.path, pre_buffer=False) as parquet:
        table = parquet.read(use_threads=False)
    return under_schema(table, source.schema, source.schema).combine_chunks()
