"""The logical schema of a dataset: columns with stable ids and types written as text.

Type text (closed grammar, the basis of fingerprints): ``string`` ``bool`` ``int64`` ``uint64``
``float64`` ``date`` ``time`` ``timestamp`` (no zone, microseconds) ``timestamptz`` (UTC,
microseconds) ``binary`` ``decimal(p,s)`` ``list<T>`` ``struct<name:T,...>`` ``map<K,V>``
``vector(N)`` (N float32, of a column alone). Narrower physical types (int32, float32, dictionary,
large_string, string_view) are widened on ingest.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``id`` is the Parquet field id: >= 1, never reused within a dataset."""

    id: int
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Schema:
    """Columns in display order. ``id`` counts the schema versions of one dataset from 1."""

    id: int
    columns: tuple[Column, ...]

    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """One line of a schema diff; ``None`` on a side means the column is not there."""

    name: str
    old_type: str | None
    new_type: str | None
