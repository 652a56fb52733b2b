"""From a snapshot to scans: which files, which columns of them, under which names. Pure.

Of a dataset whose rows change by key, some files are rows and some are keys; a row can be seen if
no keys file of a higher seq has its key (``model.dataset``). Files of rows that nothing hides are
read as they are; large ones without the rows that the tombstones hide; small ones are left to the
worker, which makes one table of what can be seen of them all (``deltas``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import CONTENTS, EVENTS, KEYS, ROWS, DataFile
from lakehouse.model.schema import Column, Schema
from lakehouse.queryd.bind import BoundColumn, fold_columns
from lakehouse.queryd.plan import LayerGroup, Merge, ScanColumn, ScanGroup, TableScan
from lakehouse.table.stats import Term, prune, stats_table
from lakehouse.table.types import to_arrow

STATISTICS_MIN_FILES: Final = 2

# What a worker reads into memory of one relation, the smallest files first.
LAYERED_ROWS_MAX: Final = 200_000
LAYERED_BYTES_MAX: Final = 16 << 20
LAYERED_CELLS_MAX: Final = 8_000_000
LAYERED_FILES_MAX: Final = 2048
# A file that is older than all changes is worth reading whole only if it is this small.
BASE_ROWS_MAX: Final = 10_000
# So many small files are worth it also where nothing is hidden.
SMALL_FILES_MIN: Final = 8


@dataclass(slots=True)
class _Pruned:
    """Files of one content, with their statistics by column once they were asked for."""

    files: tuple[DataFile, ...]
    statistics: dict[int, pa.Table] = field(default_factory=dict)

    def may_hold(self, terms: Sequence[Term]) -> tuple[DataFile, ...]:
        """The files that may hold a row for which all ``terms`` hold."""
        if not terms or not self.files:
            return self.files
        keep = pa.repeat(True, len(self.files))
        for term in terms:
            table = self.statistics.get(term.column_id)
            if table is None:
                table = stats_table(self.files, (term.column_id,))
                self.statistics[term.column_id] = table
            keep = pc.and_(keep, prune(table, (term,)))
        return tuple(self.files[index] for index in pc.indices_nonzero(keep).to_pylist())


@dataclass(slots=True)
class Relation:
    """A dataset at one version, ready to be bound and scanned; ``passing`` as in ``TableScan``."""

    snapshot: DatasetSnapshot
    columns: tuple[BoundColumn, ...]
    ids: dict[str, Column]
    rows: _Pruned
    keys: _Pruned
    key: tuple[Column, ...] = ()
    passing: bool = False

    def prune(self, terms: Sequence[Term]) -> tuple[DataFile, ...]:
        """The files that may hold a row for which all ``terms`` hold, and then the keys files that
        may hide one: a key for which a term does not hold hides no row that matters."""
        if len(self.snapshot.files) < STATISTICS_MIN_FILES:
            return self.snapshot.files
        rows = self.rows.may_hold(terms)
        if not self.keys.files or not rows:
            return rows
        ids = {column.id for column in self.key}
        keys = self.keys.may_hold([term for term in terms if term.column_id in ids])
        oldest = min(file.seq for file in rows)
        return rows + tuple(file for file in keys if file.seq > oldest)


def relation(snapshot: DatasetSnapshot) -> Relation:
    """The relation of a dataset's snapshot.

    Raises ``conflict`` if it has files that this program does not know how to read.
    """
    snapshot = readable(snapshot)
    dataset = snapshot.dataset
    columns = fold_columns([(column.name, column.type) for column in dataset.schema.columns])
    ids = {
        bound.folded: column for bound, column in zip(columns, dataset.schema.columns, strict=True)
    }
    rows = tuple(file for file in snapshot.files if file.content == ROWS)
    keys = tuple(file for file in snapshot.files if file.content == KEYS)
    by_name = {column.name: column for column in dataset.schema.columns}
    key = tuple(by_name[name] for name in dataset.primary_key) if keys else ()
    return Relation(snapshot, columns, ids, _Pruned(rows), _Pruned(keys), key)


def readable(snapshot: DatasetSnapshot) -> DatasetSnapshot:
    """``snapshot`` with what its rows are made of: without the journal's files, and without
    statistics of columns that have another type by now, whose bounds are of another order.

    Raises ``conflict`` if it has files that this program does not know how to read.
    """
    plain = all(file.content == ROWS and not file.encryption for file in snapshot.files)
    if plain and all(schema == snapshot.dataset.schema for schema in snapshot.schemas):
        return snapshot
    for file in snapshot.files:
        if file.content not in CONTENTS or file.encryption:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the dataset has files that this version cannot read",
                dataset=snapshot.dataset.name,
                content=file.content[:80],
                encryption=file.encryption[:80],
                hint="a newer version of the program wrote them: read them with it",
            )
    now = {column.id: column.type for column in snapshot.dataset.schema.columns}
    changed = {
        schema.id: {one.id for one in schema.columns if now.get(one.id, one.type) != one.type}
        for schema in snapshot.schemas
    }
    kept = [file for file in snapshot.files if file.content != EVENTS]
    files = tuple(_without(file, changed.get(file.schema_id, set())) for file in kept)
    return replace(snapshot, files=files)


def _without(file: DataFile, ids: set[int]) -> DataFile:
    if not ids:
        return file
    return replace(file, stats=tuple(one for one in file.stats if one.column_id not in ids))


def place(file: DataFile) -> tuple[str, str]:
    """The bucket and the key of an object: in another bucket the same key is another object."""
    return (file.bucket, file.key)


Paths = Mapping[tuple[str, str], str]


def make_scan(source: Relation, files: Sequence[DataFile], paths: Paths) -> TableScan:
    """The scan of ``files`` (``paths`` by ``place``), columns matched by id.

    A file written with an older schema has a column under the name it had then; a column it lacks
    is null, also if another column of that file bears its name.
    """
    rows = [file for file in files if file.content == ROWS]
    keys = [file for file in files if file.content == KEYS]
    hidden = dict(_hidden(source, rows, keys))
    if not hidden:
        keys = []
    layered = _layered(source, rows, keys, hidden)
    columns = tuple(
        ScanColumn(column.name, bound.folded, column.type) for bound, column in _pairs(source)
    )
    by_group: dict[tuple[int, int], list[str]] = {}
    for file in rows:
        if place(file) not in layered:
            group = (file.schema_id, hidden.get(place(file), -1))
            by_group.setdefault(group, []).append(paths[place(file)])
    groups = tuple(
        ScanGroup(tuple(members), _mapped(source, schema_id), None if after < 0 else after)
        for (schema_id, after), members in sorted(by_group.items())
    )
    small = [file for file in rows if place(file) in layered]
    merge = None
    if small or any(group.hidden is not None for group in groups):
        merge = _merge(source, small, keys, paths)
    count = sum(file.rows for file in rows)
    name = _content_name(columns, groups, merge)
    return TableScan(name, columns, groups, count, merge, source.passing)


def _hidden(
    source: Relation, rows: Sequence[DataFile], keys: Sequence[DataFile]
) -> Iterator[tuple[tuple[str, str], int]]:
    """Files of which rows may be hidden, with the seq that a tombstone must pass to do it: 0 where
    all of them do."""
    if not keys:
        return
    lowest, highest = min(file.seq for file in keys), max(file.seq for file in keys)
    terms = [term for column in source.key for term in _hull(keys, column)]
    for file in _Pruned(tuple(file for file in rows if file.seq < highest)).may_hold(terms):
        yield place(file), 0 if file.seq < lowest else file.seq


def _hull(keys: Sequence[DataFile], column: Column) -> tuple[Term, ...]:
    """What holds for ``column`` in every row of ``keys``; nothing where a bound is not known."""
    table = stats_table(keys, (column.id,))
    terms = []
    for name, op in (("min", ">="), ("max", "<=")):
        texts = table.column(f"{name}:{column.id}").combine_chunks()
        if texts.null_count:
            return ()
        try:
            ordered = _ordered(texts, column.type)
            at = pc.index(ordered, pc.min_max(ordered)[name]).as_py()
        except (pa.ArrowException, LakehouseError):
            return ()
        terms.append(Term(column.id, op, (texts[at].as_py(),), column.type))
    return tuple(terms)


def _ordered(texts: pa.Array, type_text: str) -> pa.Array:
    """Bounds as values that Arrow can order."""
    if type_text == "string":
        return texts
    if type_text == "bool":
        return texts.cast(pa.bool_()).cast(pa.int8())
    if type_text == "timestamp":
        return pc.replace_substring(texts, "T", " ").cast(pa.timestamp("us"))
    return texts.cast(to_arrow(type_text))


def _layered(
    source: Relation,
    rows: Sequence[DataFile],
    keys: Sequence[DataFile],
    hidden: Mapping[tuple[str, str], int],
) -> set[tuple[str, str]]:
    """The files that the worker reads into memory."""
    lowest = min((file.seq for file in keys), default=0)
    width = max(1, len(source.columns))
    most = min(LAYERED_ROWS_MAX, LAYERED_CELLS_MAX // width)
    small = [
        file
        for file in rows
        if not file.external and (file.rows <= BASE_ROWS_MAX or (keys and file.seq >= lowest))
    ]
    if not hidden and len(small) < SMALL_FILES_MIN:
        return set()
    found: set[tuple[str, str]] = set()
    count = size = 0
    for file in sorted(small, key=lambda one: (one.rows, one.size_bytes, one.key)):
        count, size = count + file.rows, size + file.size_bytes
        if count > most or size > LAYERED_BYTES_MAX or len(found) >= LAYERED_FILES_MAX:
            break
        found.add(place(file))
    return found


def _merge(
    source: Relation, small: Sequence[DataFile], keys: Sequence[DataFile], paths: Paths
) -> Merge:
    folded = {column.id: name for name, column in source.ids.items()}
    key = tuple(folded[column.id] for column in source.key) if keys else ()
    return Merge(key, _layers(source, keys, paths, key), _layers(source, small, paths))


def _layers(
    source: Relation, files: Sequence[DataFile], paths: Paths, only: Sequence[str] | None = None
) -> tuple[LayerGroup, ...]:
    by_schema: dict[int, list[DataFile]] = {}
    for file in files:
        by_schema.setdefault(file.schema_id, []).append(file)
    return tuple(
        LayerGroup(
            tuple(paths[place(file)] for file in members),
            tuple(file.seq for file in members),
            tuple(c for c in _mapped(source, schema_id) if only is None or c.name in only),
        )
        for schema_id, members in sorted(by_schema.items())
    )


def _pairs(source: Relation) -> list[tuple[BoundColumn, Column]]:
    return list(zip(source.columns, source.snapshot.dataset.schema.columns, strict=True))


def _mapped(source: Relation, schema_id: int) -> tuple[ScanColumn, ...]:
    """The columns of the relation as files of a schema version have them."""
    wanted = source.snapshot.dataset.schema
    written: Schema = next(
        (schema for schema in source.snapshot.schemas if schema.id == schema_id), wanted
    )
    there = {column.id: column for column in written.columns}
    mapped = []
    for bound, column in _pairs(source):
        found = there.get(column.id)
        other = found is not None and found.type != column.type
        mapped.append(
            ScanColumn(
                found.name if found is not None else None,
                bound.folded,
                column.type,
                found.type if found is not None and other else "",
            )
        )
    return tuple(mapped)


def _content_name(
    columns: Sequence[ScanColumn], groups: Sequence[ScanGroup], merge: Merge | None
) -> str:
    """A name that two scans share only if they read the same columns of the same files."""
    content = orjson.dumps([columns, groups, merge])
    return "t_" + hashlib.sha256(content).hexdigest()[:24]
