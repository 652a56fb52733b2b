"""Columns as JSON and CSV text, checked against Python's own writers."""

from __future__ import annotations

import csv
import datetime as dt
import io
from decimal import Decimal

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.queryd import encode
from lakehouse.queryd.encode import conform, make_encoder, output_schema, unique_names
from lakehouse.queryd.plan import OutputColumn

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def document(kind: str, table: pa.Table, *output: OutputColumn) -> bytes:
    schema = output_schema(table.schema, output)
    encoder = make_encoder(kind, schema, {})
    body = encoder.begin()
    for batch in table.to_batches(max_chunksize=3):
        body += encoder.batch(conform(batch, schema))
    return body + encoder.end(table.num_rows, 1.0)


def spelled(column: pa.Array) -> list[object]:
    """Row by row and column by column; both must be spelled alike."""
    rows = orjson.loads(document("json", pa.table({"a": column})))["rows"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "FEW_ROWS", -1)
        assert orjson.loads(document("json", pa.table({"a": column})))["rows"] == rows
    return [row[0] for row in rows]


@given(st.lists(st.none() | TEXT, max_size=8), st.lists(st.none() | TEXT, min_size=8, max_size=8))
def test_text_survives_json_and_csv(ones: list[str | None], twos: list[str | None]) -> None:
    twos = twos[: len(ones)]
    table = pa.table({"a": pa.array(ones, pa.string()), 'b"': pa.array(twos, pa.string())})
    assert orjson.loads(document("json", table))["rows"] == [
        list(row) for row in zip(ones, twos, strict=True)
    ]
    lines = document("ndjson", table).split(b"\n")[:-1]
    assert [orjson.loads(line) for line in lines] == table.to_pylist()
    text = document("csv", table).decode()
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert found[0] == ["a", 'b"']
    assert found[1:] == [[one or "", two or ""] for one, two in zip(ones, twos, strict=True)]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8))
def test_integers_beyond_what_a_float_holds_are_strings(values: list[int]) -> None:
    wanted = [value if abs(value) <= 2**53 else str(value) for value in values]
    assert spelled(pa.array(values, pa.int64())) == wanted


@given(st.lists(st.floats(), max_size=8))
def test_floats_read_back_the_same_and_what_is_no_number_is_null(values: list[float]) -> None:
    finite = [None if value != value or abs(value) == float("inf") else value for value in values]
    found = spelled(pa.array(values, pa.float64()))
    assert found == finite
    assert all(one is None or isinstance(one, float) for one in found)


@given(st.lists(st.decimals(-(10**12), 10**12, places=10), max_size=8))
def test_decimals_are_plain_text(values: list[Decimal]) -> None:
    found = spelled(pa.array(values, pa.decimal128(38, 10)))
    assert [Decimal(str(one)) for one in found] == values
    assert not any("E" in str(one) for one in found)


@pytest.mark.parametrize(
    ("text", "spelled_as"),
    [
        ("1.5", 1.5),
        ("-0.000000000000001", -1e-15),
        ("123456789012345", 123456789012345),
        ("-1234567890.12345", -1234567890.12345),
        ("1234567890123456", "1234567890123456"),
        ("-1234567890.123456", "-1234567890.123456"),
        ("0.1234567890123456", "0.1234567890123456"),
        ("0", 0),
    ],
)
def test_a_decimal_is_a_number_if_a_double_holds_it(text: str, spelled_as: float | str) -> None:
    value = Decimal(text)
    assert spelled(pa.array([value])) == [spelled_as]
    long = Decimal("12345678901234567890")
    column = pa.array([value, None, long], pa.decimal256(60, -value.as_tuple().exponent))
    assert spelled(column)[:2] == [spelled_as, None]


def test_times_are_rfc_3339() -> None:
    moment = dt.datetime(2024, 2, 29, 1, 2, 3)
    assert spelled(pa.array([moment], pa.timestamp("us"))) == ["2024-02-29T01:02:03"]
    assert spelled(pa.array([moment], pa.timestamp("ns", tz="UTC"))) == ["2024-02-29T01:02:03Z"]
    exact = moment.replace(microsecond=50)
    assert spelled(pa.array([exact], pa.timestamp("us"))) == ["2024-02-29T01:02:03.000050"]
    assert spelled(pa.array([dt.date(1, 1, 1)])) == ["0001-01-01"]
    assert spelled(pa.array([dt.time(1, 2, 3)], pa.time64("us"))) == ["01:02:03"]
    assert spelled(pa.array([90_061_000_001], pa.duration("us"))) == ["P1DT3661.000001S"]


def test_nested_values_follow_the_same_rules() -> None:
    column = pa.array([{"n": 2**60, "b": b"\0", "d": [Decimal("1.50")]}, None])
    assert spelled(column) == [{"n": str(2**60), "b": "AA==", "d": [1.5]}, None]


def test_null_and_the_empty_string_differ_in_csv() -> None:
    table = pa.table({"a": ["", None, "x"], "b": [1, 2, 3]})
    assert document("csv", table) == b'a,b\n"",1\n,2\nx,3\n'


def test_names_are_made_different_and_types_logical() -> None:
    assert unique_names(["a", "a", "a_2", "a"]) == ["a", "a_2", "a_2_2", "a_3"]
    engine = pa.schema([("x", pa.int32()), ("x", pa.decimal128(5, 2)), ("n", pa.null())])
    found = output_schema(engine, (OutputColumn("i"), OutputColumn("d"), OutputColumn("n")))
    assert found.types == [pa.int64(), pa.decimal128(38, 2), pa.string()]
    own = output_schema(engine.field(1) and pa.schema([engine.field(1)]),
                        (OutputColumn("d", "decimal(5,2)"),))  # fmt: skip
    assert own.types == [pa.decimal128(5, 2)]


@pytest.mark.parametrize("kind", ["json", "ndjson", "csv", "parquet", "arrow"])
def test_an_empty_result_is_a_whole_document(kind: str) -> None:
    body = document(kind, pa.table({"a": pa.array([], pa.int64())}))
    if kind == "json":
        assert orjson.loads(body)["rows"] == []
    if kind == "arrow":
        assert pa.ipc.open_stream(body).read_all().num_rows == 0
