"""Wider types: what is one, and the values of before under it."""

from __future__ import annotations

import datetime
import itertools
from decimal import Decimal

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.table.types import to_arrow
from lakehouse.table.widening import may_widen, widened

_TYPES = ("string", "bool", "int64", "uint64", "float64", "date", "time", "timestamp", "binary")


def test_what_is_wider() -> None:
    wider = {pair for pair in itertools.product(_TYPES, repeat=2) if may_widen(*pair)}
    assert wider == {(one, "string") for one in _TYPES if one != "string"} | {("date", "timestamp")}
    assert may_widen("int64", "decimal(19,0)")
    assert not may_widen("uint64", "decimal(19,0)")
    assert not may_widen("int64", "decimal(19,1)")
    assert may_widen("decimal(10,2)", "decimal(12,4)")
    assert not may_widen("decimal(10,2)", "decimal(11,4)")
    assert not may_widen("decimal(10,2)", "decimal(12,1)")
    assert may_widen("list<int64>", "string")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, -(2**63)], "string", ["1", None, "-9223372036854775808"]),
        ([1.0, 0.1, 1e300], "string", ["1.0", "0.1", "1e+300"]),
        ([True, None], "string", ["true", None]),
        ([datetime.date(2026, 1, 2)], "string", ["2026-01-02"]),
        ([datetime.datetime(2026, 1, 2, 3)], "string", ["2026-01-02T03:00:00"]),
        ([b"\x00\x01"], "string", ["AAE="]),
        ([[1, 2], None], "string", ["[1,2]", None]),
        ([datetime.date(2026, 1, 2)], "timestamp", [datetime.datetime(2026, 1, 2)]),
        ([7, None], "decimal(20,1)", [Decimal("7.0"), None]),
        ([Decimal("1.25")], "decimal(10,3)", [Decimal("1.250")]),
        (["a", None], "string", ["a", None]),
    ],
)
def test_values_of_before(values: list[object], kind: str, expected: list[object]) -> None:
    found = widened(pa.array(values), kind)
    assert found.type == to_arrow(kind)
    assert found.to_pylist() == expected


def test_what_foreign_writers_store_in_other_forms() -> None:
    assert widened(pa.array([1, 2], pa.int8()), "int64").to_pylist() == [1, 2]
    coded = pa.array(["a", "b", "a"]).dictionary_encode()
    assert widened(coded, "string").to_pylist() == ["a", "b", "a"]


def test_a_value_that_is_none_of_the_type_is_corrupt() -> None:
    with pytest.raises(LakehouseError) as caught:
        widened(pa.array(["x"]), "int64")
    assert caught.value.kind is ErrorKind.CORRUPT
