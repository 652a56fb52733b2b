"""What a batch does to the rows that are there: the deltas to write, and what was before. Pure.

A row that is already so, cell by cell and bit by bit, is left alone: no delta, no event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Schema
from lakehouse.table.cells import cast, conform, flat, same
from lakehouse.table.keys import check_keys, keys_schema, match
from lakehouse.table.rowhash import hash_each
from lakehouse.table.types import arrow_schema

__all__ = [
    "RowChanges",
    "SetField",
    "conform",
    "delete",
    "difference",
    "patch",
    "row_hashes",
    "upsert",
]


@dataclass(frozen=True, slots=True)
class SetField:
    """Values to set, one a row of the batch; ``mask`` says in which rows, None is all."""

    values: pa.Array
    mask: pa.Array | None = None


@dataclass(frozen=True, slots=True)
class RowChanges:
    """The result of a batch.

    Attributes:
        rows: updated and inserted rows in the order of the batch, under the dataset's schema.
        keys: ``keys_schema``; one entry for every row that is replaced or deleted.
        unchanged: rows that were already so.
        missing: keys to be patched or deleted that are not there.
        old: whole rows as they were, one for each of ``keys``, in their order.
        new: what they become, likewise; all null where the row is deleted.
        added: of ``rows``, those that are inserted.
        missing_at: positions in the batch (from 0) of the ``missing``.
    """

    rows: pa.Table
    keys: pa.Table
    inserted: int
    updated: int
    deleted: int
    unchanged: int
    missing: int
    old: pa.Table
    new: pa.Table
    added: pa.Table
    missing_at: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """True if there is nothing to write."""
        return not (self.inserted or self.updated or self.deleted)


def row_hashes(table: pa.Table, schema: Schema) -> pa.Array:
    """One hash a row (uint64), as ``rowhash.hash_each``; they sum to ``rows_hash``."""
    arrays = [flat(column) for column in table.columns]
    return hash_each(pa.RecordBatch.from_arrays(arrays, schema=table.schema), schema)


def upsert(incoming: pa.Table, current: pa.Table, schema: Schema, key: Sequence[str]) -> RowChanges:
    """Whole rows by key: insert those that are not there, replace those that differ.

    Args:
        incoming: the batch; a column it lacks is null. A key that is null or stands twice is
            ``invalid``.
        current: the rows that can be seen with those keys, in any order; others do not matter.
    """
    incoming, current = conform(incoming, schema), conform(current, schema)
    check_keys(incoming, schema, key)
    at = match(incoming, current, key)
    return _changed(incoming, current.take(pc.drop_null(at)), pc.is_valid(at), schema, key)


def patch(
    keys: pa.Table,
    fields: Mapping[str, pa.Array | SetField],
    current: pa.Table,
    schema: Schema,
    key: Sequence[str],
) -> RowChanges:
    """Set some fields of the rows of ``keys``; keys that are not there are ``missing``.

    Args:
        keys: the batch: one row a row to patch, with the key columns.
        fields: by column, a value a row of ``keys``, null to set null. Key columns are refused.
        current: as in ``upsert``.
    """
    current = conform(current, schema)
    check_keys(keys, schema, key)
    target = arrow_schema(schema)
    at = match(keys, current, key)
    known = pc.is_valid(at)
    old = current.take(pc.drop_null(at))
    new = old
    for name, given in fields.items():
        index = target.get_field_index(name)
        if index < 0 or name in key:
            raise _bad_field(name, schema, key)
        field = given if isinstance(given, SetField) else SetField(given)
        values = field.values if field.values.type == target.field(index).type else None
        values = flat(cast(field.values, target.field(index)) if values is None else values)
        values = values.filter(known)
        if field.mask is not None:
            values = pc.if_else(flat(field.mask).filter(known), values, flat(old.column(index)))
        new = new.set_column(index, target.field(index), values)
    return _changed(new, old, pa.repeat(pa.scalar(True), new.num_rows), schema, key, at)


def _bad_field(name: str, schema: Schema, key: Sequence[str]) -> LakehouseError:
    if name in key:
        return LakehouseError(
            ErrorKind.INVALID,
            "a key column cannot be set",
            column=name,
            hint="delete the row and insert it under its new key",
        )
    return LakehouseError(
        ErrorKind.INVALID,
        "the column is not there",
        column=name,
        columns=list(schema.names()),
        hint="add the column first, or see whether its name is spelled right",
    )


def delete(keys: pa.Table, current: pa.Table, schema: Schema, key: Sequence[str]) -> RowChanges:
    """Delete the rows of ``keys``; keys that are not there are ``missing``."""
    current = conform(current, schema)
    check_keys(keys, schema, key)
    at = match(keys, current, key)
    old = current.take(pc.drop_null(at))
    ordinals = pc.indices_nonzero(pc.is_valid(at)).cast(pa.int64())
    none = arrow_schema(schema).empty_table()
    missing = _missing(at)
    return RowChanges(
        rows=none,
        keys=_entries(old, pa.repeat("delete", old.num_rows), ordinals, schema, key),
        inserted=0,
        updated=0,
        deleted=old.num_rows,
        unchanged=0,
        missing=len(missing),
        old=old,
        new=_nothing(old),
        added=none,
        missing_at=missing,
    )


def difference(old: pa.Table, new: pa.Table, schema: Schema, key: Sequence[str]) -> RowChanges:
    """What makes ``new`` of ``old``, whole tables with each key once: for replace, restore, diff.

    Ordinals are positions in ``new``, then those of the deleted in the order of ``old``.
    """
    old = conform(old, schema)
    changes = upsert(new, old, schema, key)
    gone = old.filter(pc.is_null(match(old, new, key)))
    if gone.num_rows == 0:
        return changes
    first = new.num_rows
    ordinals = pa.array(range(first, first + gone.num_rows), pa.int64())
    entries = _entries(gone, pa.repeat("delete", gone.num_rows), ordinals, schema, key)
    return RowChanges(
        rows=changes.rows,
        keys=pa.concat_tables([changes.keys, entries]),
        inserted=changes.inserted,
        updated=changes.updated,
        deleted=gone.num_rows,
        unchanged=changes.unchanged,
        missing=0,
        old=pa.concat_tables([changes.old, gone]),
        new=pa.concat_tables([changes.new, _nothing(gone)]),
        added=changes.added,
    )


def _missing(at: pa.Array) -> tuple[int, ...]:
    return tuple(pc.indices_nonzero(pc.is_null(at)).to_pylist())


def _nothing(table: pa.Table) -> pa.Table:
    arrays = [pa.nulls(table.num_rows, field.type) for field in table.schema]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def _changed(
    incoming: pa.Table,
    old: pa.Table,
    known: pa.Array,
    schema: Schema,
    key: Sequence[str],
    at: pa.Array | None = None,
) -> RowChanges:
    """``old`` are the rows as they were of those of ``incoming`` that are ``known``, in order;
    ``at``: of a batch whose other keys are missing, where each was found."""
    new = incoming.filter(known)
    differs = _differs(new, old, key)
    rows = incoming.filter(pc.replace_with_mask(pc.invert(known), known, differs))
    positions = known if at is None else pc.is_valid(at)
    ordinals = pc.indices_nonzero(positions).cast(pa.int64()).filter(differs)
    added = incoming.filter(pc.invert(known))
    old, new = old.filter(differs), new.filter(differs)
    missing = () if at is None else _missing(at)
    return RowChanges(
        rows=rows,
        keys=_entries(old, pa.repeat("update", old.num_rows), ordinals, schema, key),
        inserted=added.num_rows,
        updated=old.num_rows,
        deleted=0,
        unchanged=len(differs) - old.num_rows,
        missing=len(missing),
        old=old,
        new=new,
        added=added,
        missing_at=missing,
    )


def _differs(new: pa.Table, old: pa.Table, key: Sequence[str]) -> pa.Array:
    result = pa.repeat(pa.scalar(False), new.num_rows)
    for name in new.column_names:
        if name not in key:
            alike = same(flat(new.column(name)), flat(old.column(name)))
            result = pc.or_(result, pc.invert(alike))
    return result


def _entries(
    old: pa.Table, ops: pa.Array, ordinals: pa.Array, schema: Schema, key: Sequence[str]
) -> pa.Table:
    arrays = [flat(old.column(name)) for name in key]
    arrays += [ops, ordinals, row_hashes(old, schema)]
    return pa.Table.from_arrays(arrays, schema=keys_schema(schema, key))
