"""Words of a command line as the values of a dataset's columns."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lakehouse.cli.batches import fields_text, key_text, read_batch, typed_columns, value_text
from lakehouse.cli.points import point
from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.ingest import ColumnOverride
from lakehouse.contracts.rows import CHANGE_BYTES_MAX
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.model.dataset import Card, Dataset, DatasetStatus
from lakehouse.model.schema import Column, Schema

COLUMNS = (
    Column(1, "id", "int64"),
    Column(2, "Phone", "string"),
    Column(3, "born", "date"),
    Column(4, "pay", "decimal(10,2)"),
    Column(5, "tags", "list<string>"),
    Column(6, "ok", "bool"),
)


def dataset(*key: str) -> Dataset:
    return Dataset(
        id="D",
        name="people",
        fingerprint="",
        schema=Schema(1, COLUMNS),
        status=DatasetStatus.LIVE,
        card=Card(),
        created_at=to_datetime(0),
        updated_at=to_datetime(0),
        version=1,
        files=1,
        size_bytes=1,
        row_count=1,
        primary_key=key,
    )


@pytest.mark.parametrize(
    ("name", "words", "text"),
    [
        ("id", "7", "7"),
        ("id", "9007199254740993", "9007199254740993"),
        ("id", "seven", '"seven"'),
        ("id", "NaN", '"NaN"'),
        ("phone", "007", '"007"'),
        ("PHONE", "7", '"7"'),
        ("Phone", "null", '"null"'),
        ("Phone", "", '""'),
        ("born", "2001-01-01", '"2001-01-01"'),
        ("pay", "1.50", "1.50"),
        ("tags", '["a", "b"]', '["a", "b"]'),
        ("ok", "true", "true"),
        ("nothing", "7", '"7"'),
    ],
)
def test_words_are_read_by_their_column(name: str, words: str, text: str) -> None:
    assert value_text(dataset("id"), name, words) == text


def test_fields() -> None:
    text = fields_text(dataset("id"), ["Phone=a=b", "id=7"], ["born"])
    assert json.loads(text) == {"Phone": "a=b", "id": 7, "born": None}
    for wrong in ("phone", "=7"):
        with pytest.raises(LakehouseError) as caught:
            fields_text(dataset("id"), [wrong])
        assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    ("key", "words", "text"),
    [
        (("id",), "7", "7"),
        (("Phone",), "007", '"007"'),
        (("Phone",), "a, b", '"a, b"'),
        (("Phone",), '"[x]"', '"[x]"'),
        (("id",), "[7]", "[7]"),
        (("Phone", "id"), '["a", 7]', '["a", 7]'),
    ],
)
def test_keys(key: tuple[str, ...], words: str, text: str) -> None:
    assert key_text(dataset(*key), words) == text


def test_a_key_of_several_columns_must_be_an_array() -> None:
    with pytest.raises(LakehouseError) as caught:
        key_text(dataset("Phone", "id"), "a,7")
    assert caught.value.fields["columns"] == ["Phone", "id"]


def test_columns() -> None:
    assert typed_columns(["a=string", "b=c=decimal(1,0)"]) == (
        ColumnOverride("a", "string"),
        ColumnOverride("b=c", "decimal(1,0)"),
    )
    with pytest.raises(LakehouseError):
        typed_columns(["a="])


async def test_a_batch_is_a_file_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"[1]")
    assert await read_batch(str(path)) == b"[1]"
    with path.open("wb") as file:
        file.seek(CHANGE_BYTES_MAX)
        file.write(io.BytesIO(b"x").getvalue())
    with pytest.raises(LakehouseError) as caught:
        await read_batch(str(path))
    assert "upsert" in str(caught.value.fields["hint"])
    with pytest.raises(LakehouseError) as caught:
        await read_batch(str(tmp_path / "nothing"))
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_points() -> None:
    assert point("") == AsOf()
    assert point("812") == AsOf(version=812)
    assert point("tag:march") == AsOf(tag="march")
    assert point("1970-01-01T01:00:00+01:00") == AsOf(time=to_datetime(0))
    for wrong in ("yesterday", "tag:", "-1", "2026-01-01", "2026-01-01T10:00"):
        with pytest.raises(LakehouseError) as caught:
            point(wrong)
        assert "tag:" in str(caught.value.fields["hint"])
