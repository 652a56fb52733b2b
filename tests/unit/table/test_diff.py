"""The column diff of ADR-020's refusal."""

from __future__ import annotations

from lakehouse.model.schema import Column, ColumnDifference, Schema
from lakehouse.table.diff import diff_field, schema_diff

OLD = Schema(1, (Column(1, "id", "int64"), Column(2, "gone", "string"), Column(3, "é", "date")))


def test_added_gone_and_retyped_columns_in_order() -> None:
    new = (Column(1, "new", "bool"), Column(2, "e\u0301", "date"), Column(3, "id", "string"))
    assert schema_diff(OLD, new) == (
        ColumnDifference("id", "int64", "string"),
        ColumnDifference("gone", "string", None),
        ColumnDifference("new", None, "bool"),
    )


def test_order_and_ids_are_no_difference() -> None:
    assert schema_diff(OLD, tuple(reversed(OLD.columns))) == ()


def test_diff_as_error_field() -> None:
    found = diff_field(schema_diff(OLD, OLD.columns[:2]))
    assert found == [{"name": "é", "old": "date", "new": None}]
