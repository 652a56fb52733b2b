"""The way back from the row as it is through the journal's events to what it was (ADR-012)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.events import EventKind
from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import conform, flat
from lakehouse.table.keys import entity_texts
from lakehouse.table.types import arrow_schema
from lakehouse.table.values import from_json_texts

__all__ = ["unknown_fields", "walk_back"]

_UNKNOWN: Final = b"lakehouse.unknown"


def walk_back(
    row: pa.Table | None,
    events: pa.Table,
    schema: Schema,
    key: Sequence[str],
    version: int,
) -> pa.Table | None:
    """The row as it was at ``version``, or None if it was not there.

    A field is known by its ``column_id``, whatever it was called. A text that is no value of the
    type that the column has now makes the result's column a string with that text. What was
    encrypted is null, and ``unknown_fields`` of the result names it.

    Args:
        row: one row as it is now, after all of ``events``; None if it is not there now.
        events: of this row, with ``version`` filled; inserts of others do not matter.

    Raises:
        corrupt: the events do not lead to the row as it is.
    """
    later = _later(row, events, schema, key, version)
    if later.num_rows == 0:
        return None if row is None else conform(row, schema)
    kinds = later.column("kind").to_pylist()
    if (row is None) != (kinds[-1] == EventKind.DELETE.value):
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "the journal does not lead to the row",
            last_event=kinds[-1],
            row_is_there=row is not None,
            hint="give every event up to the version at which the row was read",
        )
    if kinds[0] == EventKind.INSERT.value:
        return None
    return _restored(row, later, kinds, schema)


def _later(
    row: pa.Table | None, events: pa.Table, schema: Schema, key: Sequence[str], version: int
) -> pa.Table:
    """The events of the row after ``version``, in order."""
    if events.column("version").null_count:
        raise LakehouseError(ErrorKind.INTERNAL, "events need their versions to be walked back")
    later = events.filter(pc.greater(events.column("version"), version))
    later = later.filter(pc.not_equal(later.column("kind"), EventKind.BATCH.value))
    entity = _entity(row, later, schema, key)
    if entity is None:
        # Not there now and never deleted: it never was, and the inserts are of others.
        return later.slice(0, 0)
    if later.num_rows:
        inserts = pc.equal(later.column("kind"), EventKind.INSERT.value)
        lists = flat(later.column("entities"))
        named = pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), entity))
        positions = pa.array(range(later.num_rows), pa.int64())
        mine = pc.equal(later.column("entity"), entity)
        mine = pc.if_else(inserts, pc.is_in(positions, value_set=named.cast(pa.int64())), mine)
        later = later.filter(pc.fill_null(mine, False))
    return later.sort_by([("version", "ascending"), ("ordinal", "ascending")])


def _entity(
    row: pa.Table | None, events: pa.Table, schema: Schema, key: Sequence[str]
) -> str | None:
    if row is not None:
        return str(entity_texts(row, schema, key)[0].as_py())
    known = pc.unique(flat(events.column("entity")).drop_null())
    return str(known[0].as_py()) if len(known) else None


def _restored(row: pa.Table | None, later: pa.Table, kinds: list[str], schema: Schema) -> pa.Table:
    """The life that the first of ``later`` belongs to: to its delete, or to the row as it is. In it
    each field was what its first event says was before."""
    deleted = EventKind.DELETE.value
    ended = kinds.index(deleted) if deleted in kinds else None
    if ended is None:
        base = conform(_present(row), schema)
    else:
        while ended < len(kinds) and kinds[ended] == deleted:
            ended += 1
        later = later.slice(0, ended)
        none = arrow_schema(schema)
        base = pa.Table.from_arrays([pa.nulls(1, f.type) for f in none], schema=none)
    before: dict[int, tuple[str | None, bool]] = {}
    names = ("column_id", "old", "value_enc")
    for column_id, old, secret in zip(*(later.column(n).to_pylist() for n in names), strict=True):
        before.setdefault(column_id, (old, secret is not None))
    unknown: list[str] = []
    for index, column in enumerate(schema.columns):
        if column.id in before:
            old, secret = before[column.id]
            base = base.set_column(index, *_cell(old, column, base.schema.field(index)))
            unknown += [column.name] if secret else []
    said = {_UNKNOWN: json.dumps(unknown).encode()} if unknown else None
    return base.replace_schema_metadata(said)


def _present(row: pa.Table | None) -> pa.Table:
    assert row is not None
    return row


def _cell(text: str | None, column: Column, field: pa.Field) -> tuple[pa.Field, pa.Array]:
    texts = pa.array([text], pa.string())
    try:
        return field, from_json_texts(texts, column.type)
    except LakehouseError:
        return pa.field(field.name, pa.string(), metadata=field.metadata), texts


def unknown_fields(row: pa.Table) -> tuple[str, ...]:
    """Fields of a row from ``walk_back`` that were encrypted: their null says nothing."""
    said = (row.schema.metadata or {}).get(_UNKNOWN, b"[]")
    return tuple(json.loads(said))
