"""From a snapshot to scans: which files, which columns of them, under which names. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.model.dataset import DataFile
from lakehouse.model.schema import Column, Schema
from lakehouse.queryd.bind import BoundColumn, fold_columns
from lakehouse.queryd.plan import ScanColumn, ScanGroup, TableScan
from lakehouse.table.stats import Term, prune, stats_table

STATISTICS_MIN_FILES: Final = 2


@dataclass(slots=True)
class Relation:
    """A dataset at one version, ready to be bound and scanned."""

    snapshot: DatasetSnapshot
    columns: tuple[BoundColumn, ...]
    ids: dict[str, Column]
    statistics: dict[int, pa.Table] = field(default_factory=dict)

    def prune(self, terms: Sequence[Term]) -> tuple[DataFile, ...]:
        """The files that may hold a row for which all ``terms`` hold."""
        files = self.snapshot.files
        if not terms or len(files) < STATISTICS_MIN_FILES:
            return files
        keep = pa.repeat(True, len(files))
        for term in terms:
            table = self.statistics.get(term.column_id)
            if table is None:
                table = stats_table(files, (term.column_id,))
                self.statistics[term.column_id] = table
            keep = pc.and_(keep, prune(table, (term,)))
        return tuple(files[index] for index in pc.indices_nonzero(keep).to_pylist())


def relation(snapshot: DatasetSnapshot) -> Relation:
    """The relation of a dataset's snapshot."""
    schema = snapshot.dataset.schema
    columns = fold_columns([(column.name, column.type) for column in schema.columns])
    ids = {bound.folded: column for bound, column in zip(columns, schema.columns, strict=True)}
    return Relation(snapshot, columns, ids)


def place(file: DataFile) -> tuple[str, str]:
    """The bucket and the key of an object: in another bucket the same key is another object."""
    return (file.bucket, file.key)


def make_scan(
    source: Relation, files: Sequence[DataFile], paths: Mapping[tuple[str, str], str]
) -> TableScan:
    """The scan of ``files`` (``paths`` by ``place``), columns matched by id.

    A file written with an older schema has a column under the name it had then; a column it lacks
    is null, also if another column of that file bears its name.
    """
    dataset = source.snapshot.dataset
    schemas = {schema.id: schema for schema in source.snapshot.schemas}
    schemas.setdefault(dataset.schema.id, dataset.schema)
    names = {column.id: bound.folded for bound, column in _pairs(source)}
    columns = tuple(
        ScanColumn(column.name, bound.folded, column.type) for bound, column in _pairs(source)
    )
    by_schema: dict[int, list[str]] = {}
    for file in files:
        by_schema.setdefault(file.schema_id, []).append(paths[place(file)])
    groups = tuple(
        ScanGroup(
            tuple(members), _mapped(schemas.get(schema_id, dataset.schema), dataset.schema, names)
        )
        for schema_id, members in sorted(by_schema.items())
    )
    rows = sum(file.rows for file in files)
    return TableScan(_content_name(columns, groups), columns, groups, rows)


def _pairs(source: Relation) -> list[tuple[BoundColumn, Column]]:
    return list(zip(source.columns, source.snapshot.dataset.schema.columns, strict=True))


def _mapped(written: Schema, wanted: Schema, names: Mapping[int, str]) -> tuple[ScanColumn, ...]:
    there = {column.id: column.name for column in written.columns}
    return tuple(
        ScanColumn(there.get(column.id), names[column.id], column.type) for column in wanted.columns
    )


def _content_name(columns: Sequence[ScanColumn], groups: Sequence[ScanGroup]) -> str:
    """A name that two scans share only if they read the same columns of the same files."""
    return "t_" + hashlib.sha256(orjson.dumps([columns, groups])).hexdigest()[:24]
