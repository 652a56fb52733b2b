"""Keys: which columns may be one, how they are written, which rows share one."""

from __future__ import annotations

import random
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column, Schema
from lakehouse.table.keys import (
    check_key_columns,
    check_keys,
    distinct,
    duplicates,
    entity_texts,
    key_hashes,
    keys_hash,
    keys_schema,
    match,
    parse_entity,
)
from lakehouse.table.rowhash import rows_hash
from lakehouse.table.types import FIELD_ID, arrow_schema

TYPES = {
    "s": "string",
    "i": "int64",
    "u": "uint64",
    "b": "bool",
    "d": "date",
    "t": "time",
    "ts": "timestamp",
    "tz": "timestamptz",
    "m": "decimal(10,2)",
    "raw": "binary",
}
SCHEMA = Schema(
    3, tuple(Column(at, name, kind) for at, (name, kind) in enumerate(TYPES.items(), 5))
)
KEY = tuple(reversed(TYPES))
ROW: dict[str, Any] = {
    "s": 'a"b',
    "i": -(2**63),
    "u": 2**64 - 1,
    "b": False,
    "d": date(2026, 1, 1),
    "t": 1,
    "ts": 1,
    "tz": 1_000_000,
    "m": Decimal("1.50"),
    "raw": b"\x00",
}
NO_KEYS = ["", "null", "[null]", "[]", "[1,2]", "x", "1.5", "[[1]]", '{"a":1}', "NaN"]
NO_KEYS += ["[" * 99_999, '"\\ud800"', "\udc80", "true", "99999999999999999999"]


def rows(*changes: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([ROW | each for each in changes], schema=arrow_schema(SCHEMA))


def test_a_key_of_every_type_is_written_and_read() -> None:
    table = rows({})
    (text,) = entity_texts(table, SCHEMA, tuple(TYPES)).to_pylist()
    assert text == (
        '["a\\"b",-9223372036854775808,18446744073709551615,false,"2026-01-01",'
        '"00:00:00.000001","1970-01-01T00:00:00.000001","1970-01-01T00:00:01Z","1.50","AA=="]'
    )
    check_key_columns(SCHEMA, tuple(TYPES))
    again = parse_entity(text, SCHEMA, tuple(TYPES))
    assert again.equals(table)
    assert match(again, table, tuple(TYPES)).to_pylist() == [0]


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("int64", "7", 7),
        ("int64", "[7]", 7),
        ("int64", '"7"', 7),
        ("uint64", "18446744073709551615", 2**64 - 1),
        ("string", "7", "7"),
        ("string", "a b", "a b"),
        ("string", "2026-01-01", "2026-01-01"),
        ("string", '"[7]"', "[7]"),
        ("string", '""', ""),
        ("date", "2026-01-01", date(2026, 1, 1)),
        ("decimal(5,2)", "[1.1]", Decimal("1.10")),
        ("bool", "true", True),
    ],
)
def test_bare_values_are_keys_of_one_column(kind: str, given: str, wanted: object) -> None:
    schema = Schema(1, (Column(1, "k", kind),))
    assert parse_entity(given, schema, ("k",)).column("k").to_pylist() == [wanted]


@pytest.mark.parametrize("given", NO_KEYS, ids=lambda given: ascii(given)[:20])
def test_what_is_no_key_is_invalid(given: str) -> None:
    schema = Schema(1, (Column(1, "k", "int64"),))
    with pytest.raises(LakehouseError) as caught:
        parse_entity(given, schema, ("k",))
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["key"] == ["k"]


def test_a_bare_text_is_no_key_of_two_columns() -> None:
    with pytest.raises(LakehouseError, match="a value for each"):
        parse_entity("a", SCHEMA, ("s", "i"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ((), "needs a column"),
        (("a", "a"), "twice"),
        (("z",), "not there"),
        (("f",), "cannot be in a key"),
        (("l",), "cannot be in a key"),
        (("__op",), "reserved"),
    ],
)
def test_columns_that_are_no_key(key: tuple[str, ...], message: str) -> None:
    kinds = {"a": "int64", "f": "float64", "l": "list<int64>", "__op": "string"}
    schema = Schema(1, tuple(Column(at, n, k) for at, (n, k) in enumerate(kinds.items(), 1)))
    with pytest.raises(LakehouseError, match=message) as caught:
        check_key_columns(schema, key)
    assert caught.value.kind is ErrorKind.INVALID


def test_keys_objects_have_the_ids_of_the_key_columns() -> None:
    columns = keys_schema(SCHEMA, ("u", "s"))
    assert columns.names == ["u", "s", "__op", "__ordinal", "__row_hash"]
    assert columns.field("u").metadata == {FIELD_ID: b"7"}


@pytest.mark.parametrize("seed", range(6))
def test_matching_is_by_value_in_every_column(seed: int) -> None:
    rng = random.Random(seed)
    key = tuple(rng.sample(list(TYPES), rng.randint(1, 4)))
    choices: dict[str, list[Any]] = {name: [value] for name, value in ROW.items()}
    choices |= {"s": ["", "a", "é"], "i": [0, 2**60, -1], "u": [0, 2**63], "b": [True, False]}
    choices |= {"raw": [b"", b"\0", b"\0\0"], "m": [Decimal(0), Decimal("0.01")]}

    def some(count: int) -> pa.Table:
        picked = [{name: rng.choice(each) for name, each in choices.items()} for _ in range(count)]
        return rows(*picked)

    left, right = some(40), some(40)
    right = right.filter(distinct(right, key))
    keys = [
        [tuple(row[name] for name in key) for row in each.to_pylist()] for each in (left, right)
    ]
    positions = {value: at for at, value in enumerate(keys[1])}
    assert match(left, right, key).to_pylist() == [positions.get(value) for value in keys[0]]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for at, value in enumerate(keys[0]):
        groups.setdefault(value, []).append(at)
    assert duplicates(left, key) == [rows for rows in groups.values() if len(rows) > 1]
    assert distinct(left, key).to_pylist() == [
        groups[value][0] == at for at, value in enumerate(keys[0])
    ]
    hashes = key_hashes(left, SCHEMA, key).to_pylist()
    assert len(set(hashes)) == len(groups)
    assert hashes == key_hashes(left.select(key), SCHEMA, key).to_pylist()


def test_tables_in_pieces_and_without_rows_match() -> None:
    table = rows({"i": 1}, {"i": 2}, {"i": 3})
    pieces = pa.concat_tables([table.slice(2), table.slice(0, 1), table.slice(1, 1)])
    assert match(table, pieces, ("i", "s")).to_pylist() == [1, 2, 0]
    assert match(table, table.slice(0, 0), ("i", "s")).to_pylist() == [None] * 3
    assert match(table.slice(0, 0), table, ("i",)).to_pylist() == []
    assert duplicates(table.slice(0, 0), ("i", "s")) == []
    check_keys(pieces, SCHEMA, ("i",))


def test_a_key_that_is_null_or_twice_in_a_batch_is_named() -> None:
    with pytest.raises(LakehouseError, match="null") as caught:
        check_keys(rows({}, {"i": None}, {"i": 4}, {"i": None}), SCHEMA, ("s", "i"))
    assert caught.value.fields["rows"] == [2, 4]
    with pytest.raises(LakehouseError, match="twice") as caught:
        check_keys(rows({"i": 1}, {"i": 2}, {"i": 3}, {"i": 2}), SCHEMA, ("i",))
    assert caught.value.fields["duplicates"] == [{"key": "[2]", "rows": [2, 4]}]
    assert caught.value.kind is ErrorKind.INVALID


def test_the_hash_of_keys_is_that_of_the_rows_they_hide() -> None:
    table = rows({}, {"i": 1})
    one = keys_schema(SCHEMA, ("i",))
    hashes = [rows_hash(table.slice(at, 1), SCHEMA) for at in range(2)]
    columns = [table.column("i"), ["update", "delete"], [0, 1], pa.array(hashes, pa.uint64())]
    assert keys_hash(pa.table(columns, schema=one)) == rows_hash(table, SCHEMA)
    assert keys_hash(one.empty_table()) == 0
