"""What is wrong with a file of manifests is said by manifest and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse.cli.manifests import read_manifests
from lakehouse.errors import ErrorKind, LakehouseError

GOOD = {"name": "t", "keys": ["a"], "updated_at": "2026-01-01T00:00:00Z"}


def test_good_manifests_are_read(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps([GOOD, GOOD | {"row_count": 3, "bucket": "b"}]))
    first, second = read_manifests(file)
    assert (first.name, first.keys, first.row_count, first.bucket) == ("t", ("a",), None, "primary")
    assert (second.row_count, second.bucket) == (3, "b")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "it is no array"),
        ([1], "manifest 1 is no object"),
        ([{"name": "t", "updated_at": "x"}], "manifest 1 has no keys"),
        ([GOOD, GOOD | {"keys": "a"}], "keys of manifest 2 is no array of texts"),
        ([GOOD | {"updated_at": "soon"}], "updated_at of manifest 1 is no time"),
        ([GOOD | {"row_count": "3"}], "row_count of manifest 1 is no whole number"),
        ([GOOD | {"name": 3}], "name, updated_at and bucket of manifest 1 must be texts"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, document: Any, reason: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps(document))
    with pytest.raises(LakehouseError) as caught:
        read_manifests(file)
    assert (caught.value.kind, caught.value.fields["reason"]) == (ErrorKind.INVALID, reason)


def test_what_is_no_json_or_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(b"\xff")
    with pytest.raises(LakehouseError) as caught:
        read_manifests(tmp_path / "m.json")
    assert caught.value.kind is ErrorKind.INVALID
    with pytest.raises(LakehouseError) as caught:
        read_manifests(tmp_path / "none.json")
    assert caught.value.kind is ErrorKind.NOT_FOUND
