"""The canonical fingerprint: golden values that no library's version may change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column
from lakehouse.table.fingerprint import fingerprint, is_fingerprint

GOLDEN = Path(__file__).parents[2] / "golden" / "fingerprints.json"


def test_golden_values_never_change() -> None:
    cases = json.loads(GOLDEN.read_text())
    assert len(cases) >= 6
    for case in cases:
        columns = [Column(at, name, kind) for at, (name, kind) in enumerate(case["columns"], 1)]
        assert fingerprint(columns) == case["fingerprint"], case["columns"]


def test_ids_and_order_do_not_matter() -> None:
    a = [Column(1, "b", "int64"), Column(2, "a", "string")]
    b = [Column(9, "a", "string"), Column(4, "b", "int64")]
    assert fingerprint(a) == fingerprint(b)
    assert is_fingerprint(fingerprint(a))
    assert not is_fingerprint("fp1:" + "g" * 64)


def test_type_case_and_name_matter() -> None:
    base = fingerprint([Column(1, "a", "int64")])
    assert base != fingerprint([Column(1, "a", "string")])
    assert base != fingerprint([Column(1, "A", "int64")])
    assert base != fingerprint([Column(1, "a", "int64"), Column(2, "b", "int64")])


def test_names_are_compared_in_nfc() -> None:
    assert fingerprint([Column(1, "é", "string")]) == fingerprint([Column(1, "e\u0301", "string")])
    with pytest.raises(LakehouseError) as caught:
        fingerprint([Column(1, "é", "string"), Column(2, "e\u0301", "string")])
    assert caught.value.kind is ErrorKind.INVALID
