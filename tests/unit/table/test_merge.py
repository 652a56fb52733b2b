"""What can be seen of layers, and a run of them as one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lakehouse.model.schema import Column, Schema
from lakehouse.table.keys import keys_schema
from lakehouse.table.merge import Layer, fold, tombstones, visible
from lakehouse.table.types import arrow_schema

SCHEMA = Schema(1, (Column(1, "id", "int64"), Column(2, "name", "string")))
KEY = ("id",)


def rows(seq: int, *pairs: tuple[int, str]) -> Layer:
    values = [{"id": number, "name": name} for number, name in pairs]
    return Layer(seq, pa.Table.from_pylist(values, schema=arrow_schema(SCHEMA)))


def keys(seq: int, *entries: tuple[int, str, int]) -> Layer:
    """Entries of id, op and the hash of what is hidden."""
    values = [
        {"id": number, "__op": op, "__ordinal": at, "__row_hash": hashed}
        for at, (number, op, hashed) in enumerate(entries)
    ]
    return Layer(seq, pa.Table.from_pylist(values, schema=keys_schema(SCHEMA, KEY)))


def names(layer: Layer, *hidden: Layer) -> list[Any]:
    seen = visible(layer, tombstones(hidden, KEY), KEY)
    return list(seen.column("name").to_pylist())


def test_a_key_hides_rows_of_lower_seq_alone() -> None:
    layer = rows(5, (1, "a"), (2, "b"), (3, "c"))
    assert names(layer, keys(6, (2, "delete", 0))) == ["a", "c"]
    assert names(layer, keys(5, (2, "update", 0))) == ["a", "b", "c"]
    assert names(layer, keys(4, (2, "update", 0)), keys(9, (3, "update", 0))) == ["a", "b"]
    assert names(rows(5), keys(6, (2, "delete", 0))) == []
    assert names(layer, keys(6)) == ["a", "b", "c"]


def test_tombstones_keep_the_highest_seq_of_each_key() -> None:
    layers = [keys(4, (1, "update", 0), (2, "delete", 0)), keys(7, (1, "delete", 0)), keys(5)]
    for order in (layers, layers[::-1]):
        found = tombstones(order, KEY)
        assert found.column_names == ["id", "__seq"]
        pairs = zip(*(found.column(name).to_pylist() for name in ("id", "__seq")), strict=True)
        assert dict(pairs) == {1: 7, 2: 4}


def test_a_fold_hides_what_is_older_than_the_run_once() -> None:
    run_rows = [rows(3, (1, "x"), (8, "new")), rows(5, (1, "y"), (2, "again")), rows(7, (4, "t"))]
    run_keys = [
        keys(3, (1, "update", 11)),  # replaces an older row: stays, with this hash
        keys(4, (2, "delete", 22), (8, "delete", 99)),  # 8 was born in the run: nothing to hide
        keys(5, (1, "update", 12)),
        keys(6, (3, "delete", 33)),
    ]
    for order in (1, -1):
        one = fold(run_rows[::order], run_keys[::order], KEY, SCHEMA)
        assert one.rows.to_pylist() == [
            {"id": 1, "name": "y"},
            {"id": 2, "name": "again"},
            {"id": 4, "name": "t"},
        ]
        assert one.keys.to_pylist() == [
            {"id": 1, "__op": "update", "__ordinal": 0, "__row_hash": 11},
            {"id": 2, "__op": "update", "__ordinal": 1, "__row_hash": 22},
            {"id": 3, "__op": "delete", "__ordinal": 2, "__row_hash": 33},
        ]
        assert one.keys.schema.equals(keys_schema(SCHEMA, KEY), check_metadata=True)
        assert one.rows.schema.equals(arrow_schema(SCHEMA), check_metadata=True)


def test_a_fold_of_rows_or_keys_alone() -> None:
    assert fold([rows(2, (1, "a")), rows(3, (2, "b"))], [], KEY, SCHEMA).rows.num_rows == 2
    alone = fold([], [keys(2, (1, "delete", 1)), keys(3, (2, "delete", 2))], KEY, SCHEMA)
    assert (alone.rows.num_rows, alone.keys.num_rows) == (0, 2)
    none = fold([], [], KEY, SCHEMA)
    assert (none.rows.num_rows, none.keys.num_rows) == (0, 0)


def test_layers_of_a_narrower_schema_fold_with_wider_ones() -> None:
    wide = Schema(2, (*SCHEMA.columns, Column(3, "more", "bool")))
    newer = pa.Table.from_pylist([{"id": 2, "more": True}], schema=arrow_schema(wide))
    one = fold([rows(2, (1, "a")), Layer(3, newer)], [], KEY, wide)
    assert one.rows.column("more").to_pylist() == [None, True]
