"""What a batch writes: rows, keys, and what it leaves alone."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import same
from lakehouse.table.changes import (
    RowChanges,
    SetField,
    conform,
    delete,
    difference,
    patch,
    row_hashes,
    upsert,
)
from lakehouse.table.keys import keys_schema
from lakehouse.table.rowhash import rows_hash
from lakehouse.table.types import arrow_schema

SCHEMA = Schema(
    2,
    (
        Column(4, "name", "string"),
        Column(2, "id", "int64"),
        Column(7, "level", "float64"),
        Column(9, "tags", "list<string>"),
    ),
)
KEY = ("id",)
NAN = float("nan")
OTHER_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
CURRENT = [
    {"id": 1, "name": "a", "level": 0.0, "tags": ["x"]},
    {"id": 2, "name": "b", "level": NAN, "tags": [None]},
    {"id": 3, "name": None, "level": None, "tags": None},
]


def table(rows: list[dict[str, Any]], names: list[str] | None = None) -> pa.Table:
    whole = pa.Table.from_pylist(rows, schema=arrow_schema(SCHEMA))
    return whole if names is None else whole.select(names)


def current() -> pa.Table:
    return table(CURRENT[::-1])


def counts(changes: RowChanges) -> dict[str, int]:
    names = ("inserted", "updated", "deleted", "unchanged", "missing")
    return {name: getattr(changes, name) for name in names if getattr(changes, name)}


def check(changes: RowChanges) -> RowChanges:
    """What holds of every result."""
    assert changes.rows.schema.equals(arrow_schema(SCHEMA), check_metadata=True)
    assert changes.keys.schema.equals(keys_schema(SCHEMA, KEY), check_metadata=True)
    assert changes.keys.column("id").to_pylist() == changes.old.column("id").to_pylist()
    hashes = [rows_hash(changes.old.slice(at, 1), SCHEMA) for at in range(changes.old.num_rows)]
    assert changes.keys.column("__row_hash").to_pylist() == hashes
    assert changes.new.num_rows == changes.old.num_rows == changes.keys.num_rows
    ops = changes.keys.column("__op").to_pylist()
    assert (ops.count("update"), ops.count("delete")) == (changes.updated, changes.deleted)
    assert changes.added.num_rows == changes.inserted
    assert changes.rows.num_rows == changes.inserted + changes.updated
    assert changes.empty == (changes.rows.num_rows + changes.keys.num_rows == 0)
    return changes


def test_upsert_writes_what_differs_and_nothing_else() -> None:
    batch = [
        {"id": 9, "name": "new"},
        CURRENT[1],
        {**CURRENT[0], "name": "A"},
        CURRENT[2],
        {"id": 8},
    ]
    changes = check(upsert(table(batch), current(), SCHEMA, KEY))
    assert counts(changes) == {"inserted": 2, "updated": 1, "unchanged": 2}
    assert changes.rows.column("id").to_pylist() == [9, 1, 8]
    assert changes.keys.select(["id", "__op", "__ordinal"]).to_pylist() == [
        {"id": 1, "__op": "update", "__ordinal": 2}
    ]
    assert (changes.old.to_pylist(), changes.new.to_pylist()) == ([CURRENT[0]], [batch[2]])


@pytest.mark.parametrize(
    "field",
    [{"level": -0.0}, {"tags": ["x", None]}, {"tags": []}, {"tags": None}, {"name": ""}],
    ids=str,
)
def test_the_smallest_difference_is_one(field: dict[str, Any]) -> None:
    changes = check(upsert(table([{**CURRENT[0], **field}]), current(), SCHEMA, KEY))
    assert counts(changes) == {"updated": 1}


def test_a_nan_is_itself_and_not_another() -> None:
    for level, wanted in ((NAN, "unchanged"), (OTHER_NAN, "updated")):
        changes = upsert(table([{**CURRENT[1], "level": level}]), current(), SCHEMA, KEY)
        assert counts(changes) == {wanted: 1}


def test_a_batch_may_lack_columns_and_have_them_in_any_order() -> None:
    batch = pa.table({"name": ["c"], "id": pa.array([3])})
    assert check(upsert(batch, current(), SCHEMA, KEY)).new.to_pylist() == [
        {"id": 3, "name": "c", "level": None, "tags": None}
    ]
    assert counts(upsert(batch.select(["id"]), current(), SCHEMA, KEY)) == {"unchanged": 1}


def test_patch_sets_fields_where_it_is_told() -> None:
    keys = table([{"id": 2}, {"id": 7}, {"id": 1}, {"id": 3}], ["id"])
    names = pa.array(["B", "x", "y", None])
    levels = SetField(pa.array([5.0, 5.0, None, 5.0]), pa.array([False, True, True, False]))
    changes = check(patch(keys, {"name": names, "level": levels}, current(), SCHEMA, KEY))
    assert counts(changes) == {"updated": 2, "unchanged": 1, "missing": 1}
    assert changes.missing_at == (1,)
    assert changes.keys.column("__ordinal").to_pylist() == [0, 2]
    rows = changes.rows.to_pylist()
    assert [row["name"] for row in rows] == ["B", "y"]
    assert rows[0]["level"] != rows[0]["level"]
    assert rows[1]["level"] is None
    assert rows[1]["tags"] == ["x"]


@pytest.mark.parametrize(("name", "message"), [("id", "cannot be set"), ("nam", "is not there")])
def test_patch_refuses_keys_and_unknown_columns(name: str, message: str) -> None:
    with pytest.raises(LakehouseError, match=message) as caught:
        patch(table([{"id": 1}], ["id"]), {name: pa.array([1])}, current(), SCHEMA, KEY)
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["column"] == name


def test_patch_refuses_a_value_of_another_type() -> None:
    with pytest.raises(LakehouseError, match="not of its type"):
        patch(table([{"id": 1}], ["id"]), {"level": pa.array(["x"])}, current(), SCHEMA, KEY)


def test_delete_tells_what_was_not_there() -> None:
    keys = table([{"id": 5}, {"id": 3}, {"id": 1}], ["id"])
    changes = check(delete(keys, current(), SCHEMA, KEY))
    assert counts(changes) == {"deleted": 2, "missing": 1}
    assert changes.missing_at == (0,)
    assert changes.keys.column("__ordinal").to_pylist() == [1, 2]
    assert changes.old.to_pylist() == [CURRENT[2], CURRENT[0]]
    assert delete(keys.slice(0, 1), current(), SCHEMA, KEY).empty


@pytest.mark.parametrize(("ids", "message"), [([1, 1], "twice"), ([1, None], "null")])
def test_a_key_twice_or_null_is_refused_by_each(ids: list[int | None], message: str) -> None:
    batch = table([{"id": value} for value in ids])
    for change in (
        lambda: upsert(batch, current(), SCHEMA, KEY),
        lambda: delete(batch, current(), SCHEMA, KEY),
        lambda: patch(batch, {}, current(), SCHEMA, KEY),
    ):
        with pytest.raises(LakehouseError, match=message):
            change()


def test_the_difference_of_tables_has_all_three() -> None:
    new = table([{"id": 4}, CURRENT[2], {**CURRENT[1], "name": "B"}])
    changes = check(difference(current(), new, SCHEMA, KEY))
    assert counts(changes) == {"inserted": 1, "updated": 1, "deleted": 1, "unchanged": 1}
    assert changes.keys.select(["id", "__op", "__ordinal"]).to_pylist() == [
        {"id": 2, "__op": "update", "__ordinal": 2},
        {"id": 1, "__op": "delete", "__ordinal": 3},
    ]
    assert difference(new, new, SCHEMA, KEY).empty
    none = table([])
    assert counts(difference(none, new, SCHEMA, KEY)) == {"inserted": 3}
    assert counts(difference(new, none, SCHEMA, KEY)) == {"deleted": 3}


def test_rows_in_pieces_change_alike() -> None:
    batch = table([{**CURRENT[0], "name": "A"}, {"id": 6}, CURRENT[2]])
    pieces = pa.concat_tables([batch.slice(0, 1), batch.slice(1, 2)])
    there = pa.concat_tables([current().slice(1), current().slice(0, 1)])
    one, other = upsert(batch, current(), SCHEMA, KEY), upsert(pieces, there, SCHEMA, KEY)
    assert one.rows.combine_chunks().equals(other.rows.combine_chunks())
    assert one.keys.equals(other.keys)
    hashes = row_hashes(pieces, SCHEMA).to_pylist()
    assert sum(hashes) % 2**64 == rows_hash(batch, SCHEMA)


def test_conforming_names_the_column_that_does_not() -> None:
    with pytest.raises(LakehouseError) as caught:
        conform(pa.table({"id": ["x"]}), SCHEMA)
    assert (caught.value.kind, caught.value.fields["column"]) == (ErrorKind.INVALID, "id")


def test_cells_within_null_lists_do_not_count() -> None:
    offsets, mask = pa.array([0, 1, 2], pa.int32()), pa.array([True, False])
    left = pa.ListArray.from_arrays(offsets, pa.array([1, 2]), mask=mask)
    right = pa.ListArray.from_arrays(offsets, pa.array([9, 2]), mask=mask)
    assert same(left, right).to_pylist() == [True, True]
