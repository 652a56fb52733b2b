"""The hash of rows: order and split do not matter, values, columns and nulls do."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest

from lakehouse.model.schema import Column, Schema
from lakehouse.table.rowhash import add_hashes, format_hash, rows_hash
from lakehouse.table.types import arrow_schema

VALUES: dict[str, list[object]] = {
    "string": ["a", "", "ab", "ba", "x" * 300_000, None],
    "binary": [b"\0", b"", b"\0\0", b"\1", None],
    "bool": [True, False, None],
    "int64": [0, 1, -1, 2**62, None],
    "uint64": [0, 2**64 - 1, None],
    "float64": [0.0, 1.0, -1.5, None],
    "date": [date(2020, 1, 1), date(2020, 1, 2), None],
    "time": [time(0), time(1), None],
    "timestamptz": [datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC), None],
    "decimal(10,2)": [Decimal("1.10"), Decimal("1.11"), None],
    "list<int64>": [[], [0], [0, 0], [1, 2], [2, 1], [None], None],
    "struct<a:int64,b:string>": [
        {"a": 1, "b": "x"},
        {"a": None, "b": "x"},
        {"a": 1, "b": None},
        {"a": None, "b": None},
        None,
    ],
    "map<string,int64>": [[("a", 1)], [("a", 2)], [], None],
}


def table(type_text: str, values: list[object]) -> tuple[pa.Table, Schema]:
    schema = Schema(1, (Column(1, "n", "int64"), Column(5, "v", type_text)))
    rows = {"n": [7] * len(values), "v": values}
    return pa.Table.from_pydict(rows, schema=arrow_schema(schema)), schema


@pytest.mark.parametrize("type_text", list(VALUES))
def test_every_value_counts_and_order_does_not(type_text: str) -> None:
    values = VALUES[type_text]
    rows, schema = table(type_text, values)
    whole = rows_hash(rows, schema)
    assert whole == rows_hash(rows.take(list(reversed(range(len(values))))), schema)
    parts = 0
    for at in range(len(values)):
        parts = add_hashes(parts, rows_hash(rows.slice(at, 1), schema))
    assert parts == whole
    assert rows_hash(rows.select(["v", "n"]), schema) == whole
    singles = {rows_hash(rows.slice(at, 1), schema) for at in range(len(values))}
    assert len(singles) == len(values)


def test_the_hash_is_stable_across_releases() -> None:
    rows, schema = table("string", ["a", None, "bc"])
    assert format_hash(rows_hash(rows, schema)) == "rh1:4c26f62e76bc54b5"


def test_values_swapped_between_columns_or_rows_are_seen() -> None:
    schema = Schema(1, (Column(1, "a", "int64"), Column(2, "b", "int64")))
    arrow = arrow_schema(schema)

    def of(*rows: tuple[int, int]) -> int:
        columns = {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
        return rows_hash(pa.Table.from_pydict(columns, schema=arrow), schema)

    assert of((1, 2)) != of((2, 1))
    assert of((1, 2), (3, 4)) != of((1, 4), (3, 2))
    assert of((1, 2), (1, 2)) != of((1, 2))


def test_a_column_of_nulls_changes_nothing() -> None:
    rows, schema = table("string", ["a", "b"])
    more = Schema(2, (*schema.columns, Column(9, "late", "string")))
    assert rows_hash(rows, schema) == rows_hash(rows, more)
    with_nulls = rows.append_column("late", pa.nulls(2, pa.string()))
    assert rows_hash(with_nulls, more) == rows_hash(rows, schema)


def test_long_texts_hash_like_their_splits_say() -> None:
    rng = random.Random(3)
    texts: list[object] = [rng.randbytes(rng.randrange(70_000)).hex() for _ in range(20)]
    rows, schema = table("string", texts)
    single = 0
    for text in texts:
        single = add_hashes(single, rows_hash(table("string", [text])[0], schema))
    assert single == rows_hash(rows, schema)


def test_columns_hashed_together_or_one_by_one_are_the_same() -> None:
    kinds = ["string", "int64", "string", "int64", "binary", "list<string>", "list<string>"]
    schema = Schema(1, tuple(Column(9 - at, f"c{at}", kind) for at, kind in enumerate(kinds)))
    rng = random.Random(5)
    texts = ["", "a", "ab", None, "é"]
    rows = pa.Table.from_pydict(
        {
            "c0": rng.choices(texts, k=3000),
            "c1": rng.choices([0, 1, None], k=3000),
            "c2": rng.choices(texts, k=3000),
            "c3": rng.choices([0, 1, None], k=3000),
            "c4": rng.choices([b"", b"a", None], k=3000),
            "c5": rng.choices([[], ["a"], ["a", None], None], k=3000),
            "c6": rng.choices([[], ["a"], ["a", None], None], k=3000),
        },
        schema=arrow_schema(schema),
    )
    parts = 0
    for at in range(0, 3000, 300):
        parts = add_hashes(parts, rows_hash(rows.slice(at, 300), schema))
    assert parts == rows_hash(rows, schema)
