"""What differs between two schemas, column by column, as ADR-020's conflict shows it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from lakehouse.errors import FieldValue
from lakehouse.model.schema import Column, ColumnDifference, Schema

__all__ = ["diff_field", "schema_diff"]


def _types(schema: Schema | Sequence[Column]) -> dict[str, str]:
    columns = schema.columns if isinstance(schema, Schema) else schema
    return {unicodedata.normalize("NFC", column.name): column.type for column in columns}


def schema_diff(
    old: Schema | Sequence[Column], new: Schema | Sequence[Column]
) -> tuple[ColumnDifference, ...]:
    """Columns that are gone, added or of another type; in the order of old, then of new.

    Empty exactly if both have the same fingerprint: ids and order do not matter.
    """
    before, after = _types(old), _types(new)
    changed = [
        ColumnDifference(name, kind, after.get(name))
        for name, kind in before.items()
        if after.get(name) != kind
    ]
    added = [
        ColumnDifference(name, None, kind) for name, kind in after.items() if name not in before
    ]
    return (*changed, *added)


def diff_field(differences: Sequence[ColumnDifference]) -> list[FieldValue]:
    """The diff as the field ``diff`` of an error: objects of ``name``, ``old`` and ``new`` type."""
    return [{"name": each.name, "old": each.old_type, "new": each.new_type} for each in differences]
