"""Typed columns under another type: exactly, or not at all."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from lakehouse.table.codec import fit, guess_values, misfit_values

FITS = [
    (pa.array([1, None], pa.int8()), "int64", [1, None]),
    (pa.array([1, 2**53]), "float64", [1.0, float(2**53)]),
    (pa.array([2**53 + 1]), "float64", None),
    (pa.array([1.0]), "int64", None),
    (pa.array([True]), "int64", None),
    (pa.array([1]), "bool", None),
    (pa.array([True, None]), "string", ["true", None]),
    (pa.array([1.5]), "string", ["1.5"]),
    (pa.array(["7", ""]), "int64", [7, None]),
    (pa.array(["x"]), "int64", None),
    (pa.array([2**63], pa.uint64()), "int64", None),
    (pa.array([-1]), "uint64", None),
    (pa.array([1]), "decimal(5,2)", [Decimal("1.00")]),
    (pa.array([Decimal("1.111")]), "decimal(5,2)", None),
    (pa.array([date(2020, 1, 1)]), "date", [date(2020, 1, 1)]),
    (pa.array([date(2020, 1, 1)]), "timestamp", None),
    (pa.array([datetime(2020, 1, 1)]), "timestamptz", None),
    (pa.array([1_500], pa.timestamp("ns")), "timestamp", None),
    (pa.array([b"x"]), "string", None),
    (pa.nulls(2), "list<int64>", [None, None]),
    (pa.array([{"a": 1}]), "struct<a:float64,b:string>", [{"a": 1.0, "b": None}]),
    (pa.array([{"a": 1, "c": 2}]), "struct<a:int64>", None),
    (pa.array([[1], None, []], pa.list_(pa.int8(), -1)), "list<int64>", [[1], None, []]),
    (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), "list<string>", [["1", "2"], None]),
    (pa.array([{"a": [1]}, None]), "string", ['{"a":[1]}', None]),
]


@pytest.mark.parametrize(("values", "type_text", "expected"), FITS)
@pytest.mark.parametrize("offset", [0, 1])
def test_fit(values: pa.Array, type_text: str, expected: object, offset: int) -> None:
    # A slice of a longer array must read its own values only.
    longer = pa.concat_arrays([values.slice(0, offset), values])
    found = fit(longer.slice(offset), type_text)
    assert (None if found is None else found.to_pylist()) == expected


def test_misfits_are_found_in_order() -> None:
    values = pa.array([str(n) if n % 100 else "x" for n in range(1_000)])
    assert misfit_values(values, "int64", ("",), limit=3) == [0, 100, 200]
    assert misfit_values(values.slice(1, 50), "int64", ("",)) == []


def test_guesses_of_typed_columns() -> None:
    assert guess_values(pa.array([1], pa.int8()), False).type == pa.int64()
    assert guess_values(pa.array(["2020-01-01"]), False).type == pa.string()
    assert guess_values(pa.array(["2020-01-01"]), True).type == pa.date32()
    assert guess_values(pa.array(["2020-01-01", ""]), True).type == pa.string()
    assert guess_values(pa.nulls(1), True).type == pa.null()
    assert guess_values(pa.nulls(1, pa.int8()), False).type == pa.int64()
    assert not guess_values(pa.array([2**60]), True).exact
