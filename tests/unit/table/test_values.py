"""The text of each kind of value, what else is read as it, and what is not."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column, Schema
from lakehouse.table.types import arrow_schema, to_arrow
from lakehouse.table.values import from_json_texts, json_texts, row_json, rows_json

ODD_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
SPELLED: list[tuple[str, Any, str]] = [
    ("string", 'é"\\\n\x00', '"é\\"\\\\\\n\\u0000"'),
    ("bool", True, "true"),
    ("int64", -(2**63), "-9223372036854775808"),
    ("uint64", 2**64 - 1, "18446744073709551615"),
    ("float64", 1.0, "1.0"),
    ("float64", -0.0, "-0.0"),
    ("float64", 1e22, "1e+22"),
    ("float64", 0.1, "0.1"),
    ("float64", float("nan"), '"NaN"'),
    ("float64", float("-inf"), '"-Infinity"'),
    ("float64", ODD_NAN, '"NaN:7ff8000000000001"'),
    ("decimal(10,2)", Decimal("1.10"), '"1.10"'),
    ("decimal(20,10)", Decimal(0), '"0.0000000000"'),
    ("date", 0, '"1970-01-01"'),
    ("date", 2_932_897, "2932897"),
    ("time", 1, '"00:00:00.000001"'),
    ("timestamp", 1_000_000, '"1970-01-01T00:00:01"'),
    ("timestamp", -(2**63), "-9223372036854775808"),
    ("timestamptz", 1, '"1970-01-01T00:00:00.000001Z"'),
    ("binary", b"\x00\xff", '"AP8="'),
    ("list<int64>", [1, None], "[1,null]"),
    ("list<int64>", [], "[]"),
    ('struct<a:int64,"b c":date>', {"a": None, "b c": 0}, '{"a":null,"b c":"1970-01-01"}'),
    ("map<date,string>", [(0, "x"), (1, None)], '[["1970-01-01","x"],["1970-01-02",null]]'),
]


@pytest.mark.parametrize(("kind", "value", "text"), SPELLED, ids=[each[2] for each in SPELLED])
def test_every_type_has_one_text(kind: str, value: Any, text: str) -> None:
    values = pa.array([value, None], to_arrow(kind))
    assert json_texts(pa.chunked_array([values]), kind).to_pylist() == [text, None]
    again = from_json_texts(pa.array([text, None, "null"]), kind)
    assert json_texts(again, kind).to_pylist() == [text, None, None]


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ('"7"', "int64", "7"),
        (" 7 ", "int64", "7"),
        ('"7"', "string", '"7"'),
        ("7", "string", '"7"'),
        ("true", "string", '"true"'),
        ("[1, 2]", "string", '"[1, 2]"'),
        ("7", "float64", "7.0"),
        ("7", "decimal(5,2)", '"7.00"'),
        ("1.5", "decimal(5,2)", '"1.50"'),
        ('"2026-01-01"', "timestamp", '"2026-01-01T00:00:00"'),
        ('"2026-01-01T01:00:00+01:00"', "timestamptz", '"2026-01-01T00:00:00Z"'),
        ('{"a": 1}', "map<string,int64>", '[["a",1]]'),
        ('{"b": 1}', "struct<a:string,b:int64>", '{"a":null,"b":1}'),
        ('["\\u0041"]', "list<string>", '["A"]'),
    ],
)
def test_other_spellings_are_read(text: str, kind: str, wanted: str) -> None:
    assert json_texts(from_json_texts(pa.array([text]), kind), kind).to_pylist() == [wanted]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x", "string"),
        ('"', "string"),
        ("'a'", "string"),
        ('"\\ud800"', "string"),
        ('"a\x00b"', "string"),
        ("1.0", "int64"),
        ("0x10", "int64"),
        ("9223372036854775808", "int64"),
        ("-1", "uint64"),
        ("1", "bool"),
        ('"nan"', "float64"),
        ("NaN", "float64"),
        ("1.111", "decimal(5,2)"),
        ("1000", "decimal(5,2)"),
        ('"0x1"', "decimal(5,2)"),
        ("20000", "date"),
        ('"2026-02-30"', "date"),
        ('"25:00:00"', "time"),
        ('"2026-01-01"', "timestamptz"),
        ('"2026-01-01T00:00:00Z"', "timestamp"),
        ('"A"', "binary"),
        ('"é"', "binary"),
        ("{}", "list<int64>"),
        ("[1]", "struct<a:int64>"),
        ('{"b":1}', "struct<a:int64>"),
        ("[[1]]", "map<int64,int64>"),
        ("[[null,1]]", "map<int64,int64>"),
        ("[" * 100_000, "list<int64>"),
    ],
    ids=lambda given: ascii(given)[:30],
)
def test_what_is_no_value_is_invalid(text: str, kind: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        from_json_texts(pa.array(["null", text]), kind)
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["type_text"] == kind


def test_a_row_for_clients_alters_no_number() -> None:
    kinds = {"a": "int64", "b": "uint64", "c": "decimal(20,2)", "d": "float64", "e": "list<uint64>"}
    kinds |= {'q"': "string", "t": "timestamp", "gone": "int64"}
    schema = Schema(1, tuple(Column(at, n, k) for at, (n, k) in enumerate(kinds.items(), 1)))
    rows = [
        {
            "a": 2**53,
            "b": 2**53 + 1,
            "c": Decimal("0.10"),
            "d": 1.5,
            "e": [2**64 - 1, 1],
            'q"': "é",
        },
        {"a": -(2**63), "c": Decimal("123456789012345.67"), "d": float("inf"), "t": 2**62},
    ]
    table = pa.Table.from_pylist(rows, schema=arrow_schema(schema)).drop_columns(["gone"])
    assert row_json(table, 0, schema) == (
        '{"a":9007199254740992,"b":"9007199254740993","c":0.10,"d":1.5,'
        '"e":["18446744073709551615",1],"q\\"":"é","t":null,"gone":null}'
    )
    assert row_json(table, 1, schema) == (
        '{"a":"-9223372036854775808","b":null,"c":"123456789012345.67","d":null,"e":null,'
        '"q\\"":null,"t":"4611686018427387904","gone":null}'
    )
    assert rows_json(table.slice(0, 0), schema).to_pylist() == []
    assert rows_json(table, Schema(1, ())).to_pylist() == ["{}", "{}"]


def test_many_values_take_one_pass() -> None:
    values = pa.array(range(100_000), pa.int64())
    assert from_json_texts(json_texts(values, "int64"), "int64").equals(values)
    texts = pa.array([f"t{at}" for at in range(100_000)])
    assert from_json_texts(json_texts(texts, "string"), "string").equals(texts)
