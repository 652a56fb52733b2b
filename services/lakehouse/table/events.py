"""Events of the journal as rows of Parquet objects (ADR-012).

One UPDATE a field that changed, one DELETE a field that had a value, one INSERT a commit with the
entities that came: with the rows as they are now they tell every row at every version
(``table.history``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.model.dataset import VersionEntry
from lakehouse.model.events import EventKind, JournalEvent
from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import flat, same
from lakehouse.table.changes import RowChanges
from lakehouse.table.history import unknown_fields, walk_back
from lakehouse.table.keys import entity_texts
from lakehouse.table.types import arrow_schema
from lakehouse.table.values import json_texts

__all__ = [
    "EVENT_COLUMNS",
    "EVENT_SCHEMA",
    "Why",
    "batch_events",
    "events_of",
    "to_journal_events",
    "unknown_fields",
    "walk_back",
]

_TYPES: Final = {
    "dataset_id": "string",
    "base_version": "int64",
    "version": "int64",
    "ordinal": "int64",
    "kind": "string",
    "operation": "string",
    "entity": "string",
    "column_id": "int64",
    "field": "string",
    "old": "string",
    "new": "string",
    "value_enc": "binary",
    "key_id": "string",
    "actor": "string",
    "at": "timestamptz",
    "source": "string",
    "workspace": "string",
    "reason": "string",
    "request_id": "string",
    "rows": "int64",
    "object_key": "string",
    "sha256": "string",
    "entities": "list<string>",
}
EVENT_COLUMNS: Final = Schema(
    1, tuple(Column(at + 1, name, kind) for at, (name, kind) in enumerate(_TYPES.items()))
)
EVENT_SCHEMA: Final = arrow_schema(EVENT_COLUMNS)
_Columns = dict[str, pa.Array]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Why:
    """Who made a change, when and why. ``base_version``: of the dataset's rows, that the change was
    made on; ``at_us``: microseconds since 1970, UTC."""

    dataset_id: str
    base_version: int
    operation: str
    actor: str
    at_us: int
    source: str = ""
    workspace: str = ""
    reason: str = ""
    request_id: str = ""


def events_of(
    changes: RowChanges,
    why: Why,
    schema: Schema,
    key: Sequence[str],
    object_key: str,
    sha256: str,
) -> pa.Table:
    """The events of one commit, by ordinal: the insert, then row by row in the batch's order, field
    by field. ``version`` is null: it is not known yet.

    Args:
        object_key, sha256: the rows object of the commit, and the digest of what was sent.
    """
    parts: list[_Columns] = []
    if changes.inserted:
        parts.append(_insert(changes, schema, key, object_key, sha256))
    if changes.keys.num_rows:
        parts.append(_fields(changes, schema, key))
    if not parts:
        return EVENT_SCHEMA.empty_table()
    told = parts[0] if len(parts) == 1 else _stacked(parts)
    count = len(told["kind"])
    constants = {
        "dataset_id": why.dataset_id,
        "base_version": why.base_version,
        "operation": why.operation,
        "actor": why.actor,
        "at": why.at_us,
        "source": why.source,
        "workspace": why.workspace,
        "reason": why.reason,
        "request_id": why.request_id,
    }
    given = {name: pa.repeat(_scalar(name, value), count) for name, value in constants.items()}
    given["ordinal"] = pa.arange(0, count)
    return _table(told | given, count)


def _stacked(parts: Sequence[_Columns]) -> _Columns:
    """One after the other; a column that a part lacks is null in it."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: pa.concat_arrays(
            [
                part[name]
                if name in part
                else pa.nulls(len(part["kind"]), EVENT_SCHEMA.field(name).type)
                for part in parts
            ]
        )
        for name in names
    }


def _scalar(name: str, value: object) -> pa.Scalar:
    return pa.scalar(value, EVENT_SCHEMA.field(name).type)


def _table(columns: Mapping[str, Any], count: int) -> pa.Table:
    """Events of the ``columns`` there are; the others are null."""
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(count, field.type)
        for field in EVENT_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)


def _insert(
    changes: RowChanges, schema: Schema, key: Sequence[str], object_key: str, sha256: str
) -> _Columns:
    entities = entity_texts(changes.added, schema, key)
    offsets = pa.array([0, len(entities)], pa.int32())
    return {
        "kind": pa.array([EventKind.INSERT.value]),
        "rows": pa.array([changes.inserted], pa.int64()),
        "object_key": pa.array([object_key]),
        "sha256": pa.array([sha256]),
        "entities": pa.ListArray.from_arrays(
            offsets, entities, EVENT_SCHEMA.field("entities").type
        ),
    }


def _fields(changes: RowChanges, schema: Schema, key: Sequence[str]) -> _Columns:
    """One event a changed field and a field of a deleted row that had a value."""
    deleted = pc.equal(flat(changes.keys.column("__op")), "delete")
    entities = entity_texts(changes.old, schema, key)
    pieces: list[tuple[pa.Array, Column, pa.Array, pa.Array]] = []
    for column in schema.columns:
        old, new = flat(changes.old.column(column.name)), flat(changes.new.column(column.name))
        rows = pc.indices_nonzero(pc.invert(same(old, new)))
        if len(rows):
            # In one go: of few rows a kernel costs by call.
            both = pa.concat_arrays([old.take(rows), new.take(rows)])
            texts = json_texts(both, column.type)
            pieces.append((rows, column, texts.slice(0, len(rows)), texts.slice(len(rows))))
    rows = pa.concat_arrays([piece[0] for piece in pieces])
    counts = [len(piece[0]) for piece in pieces]
    order = pc.sort_indices(rows)
    kinds = pc.if_else(deleted, EventKind.DELETE.value, EventKind.UPDATE.value)
    columns = {
        "kind": kinds.take(rows),
        "entity": entities.take(rows),
        "column_id": _repeated([piece[1].id for piece in pieces], counts, pa.int64()),
        "field": _repeated([piece[1].name for piece in pieces], counts, pa.string()),
        "old": pa.concat_arrays([piece[2] for piece in pieces]),
        "new": pa.concat_arrays([piece[3] for piece in pieces]),
        "rows": pa.repeat(pa.scalar(1, pa.int64()), len(rows)),
    }
    return {name: values.take(order) for name, values in columns.items()}


def _repeated(values: Sequence[object], counts: Sequence[int], kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(
        [pa.repeat(pa.scalar(v, kind), n) for v, n in zip(values, counts, strict=True)]
    )


def batch_events(entries: Sequence[VersionEntry], dataset_id: str) -> pa.Table:
    """Version entries as BATCH events, one each, in their order: changes that no event object
    tells. ``base_version`` is the version before, so that they sort among the others."""
    columns: dict[str, list[Any]] = {
        "dataset_id": [dataset_id] * len(entries),
        "base_version": [entry.version - 1 for entry in entries],
        "version": [entry.version for entry in entries],
        "ordinal": [0] * len(entries),
        "kind": [EventKind.BATCH.value] * len(entries),
        "operation": [entry.operation for entry in entries],
        "actor": [entry.actor for entry in entries],
        "at": [entry.at for entry in entries],
        "source": [entry.source for entry in entries],
        "workspace": [entry.workspace for entry in entries],
        "reason": [entry.reason for entry in entries],
        "request_id": [entry.request_id for entry in entries],
        "rows": [entry.rows_added or entry.rows_removed for entry in entries],
        "sha256": [entry.content_digest or None for entry in entries],
    }
    arrays = {
        name: pa.array(values, EVENT_SCHEMA.field(name).type) for name, values in columns.items()
    }
    return _table(arrays, len(entries))


def to_journal_events(table: pa.Table, dataset_name: str) -> tuple[JournalEvent, ...]:
    """Events for readers, in the order of ``table``; a version that is not filled is 0."""
    table = table.set_column(
        table.schema.get_field_index("at"), "at", table.column("at").cast(pa.int64())
    )
    names = [name for name in table.column_names if name not in ("entities", "value_enc")]
    encrypted = pc.is_valid(table.column("value_enc")).to_pylist()
    columns = (table.column(name).to_pylist() for name in names)
    return tuple(
        _journal_event(dict(zip(names, row, strict=True)), secret, dataset_name)
        for secret, row in zip(encrypted, zip(*columns, strict=True), strict=True)
    )


def _journal_event(row: dict[str, Any], encrypted: bool, dataset_name: str) -> JournalEvent:
    return JournalEvent(
        version=row["version"] or 0,
        ordinal=row["ordinal"],
        at=_EPOCH + timedelta(microseconds=row["at"]),
        dataset_id=row["dataset_id"],
        dataset=dataset_name,
        kind=EventKind(row["kind"]),
        operation=row["operation"],
        actor=row["actor"],
        base_version=row["base_version"] or 0,
        entity=row["entity"] or "",
        field=row["field"] or "",
        old_json=row["old"],
        new_json=row["new"],
        encrypted=encrypted,
        source=row["source"] or "",
        workspace=row["workspace"] or "",
        reason=row["reason"] or "",
        request_id=row["request_id"] or "",
        rows=row["rows"] or 0,
        object_key=row["object_key"] or "",
        sha256=row["sha256"] or "",
    )
