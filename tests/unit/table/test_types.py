"""Type texts: the grammar, the widening, the round trip."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column, Schema
from lakehouse.table.types import (
    FIELD_ID,
    arrow_schema,
    from_arrow,
    schema_from_arrow,
    to_arrow,
)

TEXTS = [
    "string",
    "bool",
    "int64",
    "uint64",
    "float64",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "binary",
    "decimal(10,2)",
    "decimal(76,0)",
    "list<int64>",
    "map<string,list<date>>",
    "struct<>",
    'struct<a:int64,"odd, name>":list<string>,"":bool,"ü\\"q":struct<b_2:time>>',
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back(text: str) -> None:
    assert from_arrow(to_arrow(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "int",
        "int32",
        "decimal(77,0)",
        "decimal(5,6)",
        "decimal(0,0)",
        "list<",
        "list<int64>>",
        "struct<a int64>",
        "struct<:int64>",
        "map<string>",
        "int64 x",
        "list<" * 100 + "int64" + ">" * 100,
    ],
)
def test_a_text_outside_the_grammar_is_invalid(text: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        to_arrow(text)
    assert caught.value.kind is ErrorKind.INVALID
    assert "hint" in caught.value.fields


@pytest.mark.parametrize(
    ("arrow", "text"),
    [
        (pa.int8(), "int64"),
        (pa.uint32(), "int64"),
        (pa.float16(), "float64"),
        (pa.float32(), "float64"),
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.run_end_encoded(pa.int32(), pa.float32()), "float64"),
        (pa.null(), "string"),
        (pa.date64(), "date"),
        (pa.time32("s"), "time"),
        (pa.timestamp("ns"), "timestamp"),
        (pa.timestamp("s", tz="Europe/Berlin"), "timestamptz"),
        (pa.duration("ns"), "int64"),
        (pa.month_day_nano_interval(), "string"),
        (pa.binary(16), "binary"),
        (pa.binary_view(), "binary"),
        (pa.decimal128(5, -2), "decimal(7,0)"),
        (pa.large_list(pa.int16()), "list<int64>"),
        (pa.list_(pa.float64(), 3), "list<float64>"),
        (pa.uuid(), "binary"),
    ],
)
def test_physical_types_are_widened(arrow: pa.DataType, text: str) -> None:
    assert from_arrow(arrow) == text


def test_a_union_cannot_be_stored() -> None:
    union = pa.sparse_union([pa.field("a", pa.int64()), pa.field("b", pa.string())])
    with pytest.raises(LakehouseError) as caught:
        from_arrow(union)
    assert caught.value.kind is ErrorKind.INVALID


def test_a_schema_has_field_ids_and_only_nullable_columns() -> None:
    schema = Schema(id=3, columns=(Column(7, "a", "int64"), Column(2, "b c", "list<string>")))
    arrow = arrow_schema(schema)
    assert [field.metadata[FIELD_ID] for field in arrow] == [b"7", b"2"]
    assert all(field.nullable for field in arrow)
    back = schema_from_arrow(arrow, first_id=5)
    assert back.columns == (Column(5, "a", "int64"), Column(6, "b c", "list<string>"))
