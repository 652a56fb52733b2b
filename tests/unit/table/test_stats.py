"""Bounds never hide a row: they are compared with a scan of the rows themselves."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.model.dataset import ColumnStats, DataFile
from lakehouse.model.schema import Column, Schema
from lakehouse.table.stats import (
    Term,
    bounds_of,
    file_stats,
    may_hold_any,
    prune,
    stats_table,
)
from lakehouse.table.types import arrow_schema, schema_from_arrow

ROWS: dict[str, list[object]] = {
    "string": ["b", None, "z" * 100],
    "bool": [True, False, None],
    "int64": [3, -(2**63), None],
    "uint64": [2**64 - 1, 0, None],
    "float64": [1.5, -0.1, None],
    "date": [date(1, 1, 1), date(9999, 12, 31), None],
    "time": [time(23, 59, 59, 999999), time(0), None],
    "timestamp": [datetime(2020, 1, 2, 3, 4, 5, 6), datetime(1969, 1, 1), None],
    "timestamptz": [datetime(2020, 1, 2, tzinfo=UTC), datetime(1969, 1, 1, tzinfo=UTC), None],
    "decimal(10,2)": [Decimal("1.10"), Decimal("-99999999.99"), None],
    "binary": [b"a", b"b", None],
    "list<int64>": [[1], None, []],
}
EXPECTED = {
    "string": ("b", "z" * 63 + "{"),
    "bool": ("false", "true"),
    "int64": (str(-(2**63)), "3"),
    "uint64": ("0", str(2**64 - 1)),
    "float64": ("-0.1", "1.5"),
    "date": ("0001-01-01", "9999-12-31"),
    "time": ("00:00:00.000000", "23:59:59.999999"),
    "timestamp": ("1969-01-01T00:00:00.000000", "2020-01-02T03:04:05.000006"),
    "timestamptz": ("1969-01-01T00:00:00.000000Z", "2020-01-02T00:00:00.000000Z"),
    "decimal(10,2)": ("-99999999.99", "1.10"),
    "binary": (None, None),
    "list<int64>": (None, None),
}


def _table(type_text: str, values: list[object]) -> tuple[pa.Table, Schema]:
    schema = Schema(1, (Column(4, "c.d", type_text),))
    return pa.Table.from_pydict({"c.d": values}, schema=arrow_schema(schema)), schema


def _footer(table: pa.Table, row_group_size: int = 2) -> pq.FileMetaData:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=row_group_size)
    return pq.read_metadata(sink)


@pytest.mark.parametrize("type_text", list(ROWS))
def test_bounds_are_the_same_from_rows_and_from_a_footer(type_text: str) -> None:
    table, schema = _table(type_text, ROWS[type_text])
    low, high = EXPECTED[type_text]
    from_rows = file_stats(table, schema)
    assert from_rows == (ColumnStats(4, 1, low, high),)
    from_footer = file_stats(_footer(table), schema, nan_free=(4,))
    if not type_text.startswith("list"):
        assert from_footer == from_rows
    else:
        assert from_footer == (ColumnStats(4),)


# As other writers leave a column of strings, and one that Arrow cannot order at all.
FOREIGN = {
    "string_view": (pa.array(["b", None, "a"], pa.string_view()), ("a", "b")),
    "large_string": (pa.array(["b", None, "a"], pa.large_string()), ("a", "b")),
    "dictionary": (pa.array(["b", None, "a"]).dictionary_encode(), ("a", "b")),
    "binary_view": (pa.array([b"b", None], pa.binary_view()), (None, None)),
    "duration": (pa.array([1, None], pa.duration("us")), (None, None)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_column_as_another_writer_encoded_it_is_bounded_or_left_alone(name: str) -> None:
    values, (low, high) = FOREIGN[name]
    footer = _footer(pa.table({"c": values}))
    schema = schema_from_arrow(footer.schema.to_arrow_schema())
    (found,) = file_stats(footer, schema)
    assert (found.null_count, found.minimum, found.maximum) == (1, low, high)


def test_a_float_column_with_nan_has_no_bounds() -> None:
    table, schema = _table("float64", [1.0, float("nan")])
    assert file_stats(table, schema) == (ColumnStats(4, 0),)
    assert file_stats(_footer(table), schema) == (ColumnStats(4, 0),)


def test_a_maximum_that_cannot_be_rounded_up_is_no_bound() -> None:
    table, schema = _table("string", [chr(0x10FFFF) * 30])
    assert file_stats(table, schema)[0].maximum is None
    assert file_stats(table, schema)[0].minimum is not None


def test_files_without_statistics_and_odd_terms_are_kept() -> None:
    files = [DataFile("a", 1, 5, ""), DataFile("b", 1, 5, "", stats=(ColumnStats(1, 0, "3", "9"),))]
    stats = stats_table(files)
    assert prune(stats, [Term(1, "=", ("1",), "int64")]).to_pylist() == [True, False]
    assert prune(stats, [Term(2, "=", ("1",), "int64")]).to_pylist() == [True, True]
    assert prune(stats, [Term(1, "=", ("x",), "int64")]).to_pylist() == [True, True]
    assert prune(stats, [Term(1, "like", ("x",), "string")]).to_pylist() == [True, True]
    assert prune(stats, [Term(1, "=", ("1",), "no type")]).to_pylist() == [True, True]
    assert prune(stats, []).to_pylist() == [True, True]
    assert prune(stats_table([]), [Term(1, "is_null", (), "int64")]).to_pylist() == []


OPS = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
VALUES = {
    "int64": st.integers(-20, 20),
    "string": st.text(st.characters(codec="utf-8"), max_size=3).map(lambda s: s * 25),
    "date": st.dates(date(2019, 1, 1), date(2019, 2, 1)),
    "timestamptz": st.datetimes(datetime(2019, 1, 1), datetime(2019, 1, 2)).map(
        lambda at: at.replace(tzinfo=UTC)
    ),
    "decimal(6,2)": st.integers(-999, 999).map(lambda n: Decimal(n) / 100),
    "bool": st.booleans(),
}


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_file_with_a_matching_row_is_never_pruned(data: st.DataObject) -> None:
    type_text = data.draw(st.sampled_from(sorted(VALUES)))
    value = VALUES[type_text]
    contents = data.draw(
        st.lists(st.lists(st.none() | value, min_size=1, max_size=5), min_size=1, max_size=6)
    )
    files = []
    for index, rows in enumerate(contents):
        table, schema = _table(type_text, list(rows))
        files.append(DataFile(f"f{index}", 1, len(rows), "", stats=file_stats(table, schema)))
    op = data.draw(st.sampled_from([*OPS, "in", "is_null", "not_null"]))
    wanted = data.draw(st.lists(value, min_size=1, max_size=3))
    term = Term(4, op, tuple(_as_text(one) for one in wanted), type_text)
    keep = prune(stats_table(files, {4}), [term]).to_pylist()
    for kept, rows in zip(keep, contents, strict=True):
        if op == "is_null":
            match = any(row is None for row in rows)
        elif op == "not_null":
            match = any(row is not None for row in rows)
        elif op == "in":
            match = any(row in wanted for row in rows if row is not None)
        else:
            match = any(OPS[op](row, wanted[0]) for row in rows if row is not None)
        assert kept or not match
        if op in ("is_null", "not_null"):
            assert kept == match


def test_bounds_say_which_files_may_hold_one_of_some_values() -> None:
    def file(low: str | None, high: str | None) -> DataFile:
        stats = (ColumnStats(2, 0, "x", "x"), ColumnStats(1, 0, low, high))
        return DataFile("k", 1, 1, "0" * 64, stats=stats)

    files = [file("2", "10"), file("11", "11"), file(None, None), file("12", "300")]
    bounds = bounds_of(files, 1, "int64")
    assert bounds is not None
    for values, expected in (
        ([10], [True, False, True, False]),
        ([1, 400], [False, False, True, False]),
        ([11, 300], [False, True, True, True]),
        ([], [False, False, True, False]),
    ):
        assert may_hold_any(bounds, pa.array(values, pa.int64())).to_pylist() == expected
    assert may_hold_any(bounds, pa.array(["1"])).to_pylist() == [True] * 4
    assert bounds_of([file("x", "y")], 1, "int64") is None
    truth = bounds_of([file("false", "false"), file("false", "true")], 1, "bool")
    assert truth is not None
    assert may_hold_any(truth, pa.array([True])).to_pylist() == [False, True]
