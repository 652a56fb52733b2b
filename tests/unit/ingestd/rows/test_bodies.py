"""What batches may look like, value by value, without any store."""

from __future__ import annotations

import base64
import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.convert import Work
from lakehouse.ingestd.rows.batches import read_keys, read_rows
from lakehouse.ingestd.rows.json_bodies import json_keys, json_patches, set_fields
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.model.dataset import Card, Dataset, DatasetStatus
from lakehouse.model.schema import Column, Schema
from lakehouse.table.types import arrow_schema
from lakehouse.table.values import row_json

SETTINGS = IngestSettings()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
JSON = IngestOptions(format=SourceFormat.JSON)
TYPES = {
    "k": "int64",
    "s": "string",
    "b": "bool",
    "u": "uint64",
    "f": "float64",
    "d": "date",
    "t": "time",
    "ts": "timestamp",
    "tz": "timestamptz",
    "bin": "binary",
    "dec": "decimal(20,3)",
    "l": "list<int64>",
    "st": "struct<a:int64,b:string>",
    "m": "map<string,int64>",
}
FULL = {
    "k": 2**60 + 1,
    "s": 'ä"\n',
    "b": True,
    "u": 2**64 - 1,
    "f": 0.1,
    "d": date(2026, 3, 1),
    "t": time(1, 2, 3, 4),
    "ts": datetime(2026, 1, 1, 2, 3, 4, 5),
    "tz": datetime(2026, 1, 1, 2, 3, tzinfo=UTC),
    "bin": b"\x00\xff",
    "dec": Decimal("12345678901234567.125"),
    "l": [1, None, 3],
    "st": {"a": 1, "b": "x"},
    "m": [("a", 1), ("b", 2)],
}


def dataset(types: dict[str, str], key: tuple[str, ...] = ("k",)) -> Dataset:
    columns = tuple(Column(at, name, kind) for at, (name, kind) in enumerate(types.items(), 1))
    return Dataset(
        id="d",
        name="people",
        fingerprint="fp1:x",
        schema=Schema(1, columns),
        status=DatasetStatus.LIVE,
        card=Card(),
        created_at=NOW,
        updated_at=NOW,
        version=1,
        files=0,
        size_bytes=0,
        row_count=0,
        primary_key=key,
    )


@pytest.fixture
def work() -> Any:
    with ThreadPoolExecutor(1) as pool:
        yield Work(Path(), SETTINGS, pool, lambda: None, "", 0)


def test_a_row_as_it_was_read_may_be_sent_back(work: Work) -> None:
    """What the rows API shows a client of a row is read as that very row, of every type."""
    whole = dataset(TYPES)
    table = pa.Table.from_pylist(
        [FULL, {**dict.fromkeys(TYPES), "k": 1}], arrow_schema(whole.schema)
    )
    shown = [row_json(table, at, whole.schema) for at in range(2)]
    assert read_rows(f"[{','.join(shown)}]".encode(), JSON, whole, work).equals(table)
    lines = IngestOptions(format=SourceFormat.NDJSON)
    assert read_rows("\n\n".join(shown).encode(), lines, whole, work).equals(table)


def test_a_patch_reads_values_of_every_type() -> None:
    whole = dataset(TYPES)
    table = pa.Table.from_pylist([FULL], arrow_schema(whole.schema))
    shown = json.loads(row_json(table, 0, whole.schema))
    key = shown.pop("k")
    body = json.dumps({"key": key, "set": shown, "expect": shown}).encode()
    patches = json_patches(body, JSON, whole, SETTINGS)
    assert patches.keys.column("k").to_pylist() == [FULL["k"]]
    for name, cells in patches.sets.items():
        assert cells.values.equals(table.column(name).combine_chunks()), name
        assert patches.expects[name].given.to_pylist() == [True]
    assert set(patches.sets) == set(shown)


def test_numbers_are_never_rounded(work: Work) -> None:
    floats = dataset({"k": "int64", "f": "float64"})
    for body in (b'[{"k": 1, "f": 9007199254740993}]', b'[{"k": 1, "f": 0.12345678901234567891}]'):
        with pytest.raises(LakehouseError):
            read_rows(body, JSON, floats, work)
        patch = body.replace(b'"k": 1, "f"', b'"key": 1, "set": {"f"').replace(b"}", b"}}")
        with pytest.raises(LakehouseError):
            json_patches(patch, JSON, floats, SETTINGS)
    patch = b'[{"key": 1, "set": {"f": 1e5}}, {"key": 2, "set": {"f": "NaN"}}]'
    assert json_patches(patch, JSON, floats, SETTINGS).sets["f"].values[0].as_py() == 1e5
    whole = dataset({"k": "decimal(30,10)", "n": "int64"})
    body = b'[{"key": 12345678901234567890.0123456789, "set": {"n": 9007199254740993}}]'
    patches = json_patches(body, JSON, whole, SETTINGS)
    assert patches.keys.column("k")[0].as_py() == Decimal("12345678901234567890.0123456789")
    assert patches.sets["n"].values[0].as_py() == 2**53 + 1


@pytest.mark.parametrize(
    ("types", "body", "wanted"),
    [
        ({"k": "int64"}, b"7", [[7]]),
        ({"k": "int64"}, b"[7]", [[7]]),
        ({"k": "int64"}, b'[7, [8], {"K": 9}, {"key": 10}, "11"]', [[7], [8], [9], [10], [11]]),
        ({"k": "int64"}, b"7 8\n\n9\n", [[7], [8], [9]]),
        ({"k": "string"}, b'["a", "7"]', [["a"], ["7"]]),
        ({"k": "string", "l": "date"}, b'["a", "2026-01-01"]', [["a", date(2026, 1, 1)]]),
        ({"k": "string", "l": "int64"}, b'[["a", 1], {"l": 2, "k": "b"}]', [["a", 1], ["b", 2]]),
        ({"k": "string", "l": "int64"}, b'["a", 1]\n["b", 2]', [["a", 1], ["b", 2]]),
        ({"k": "binary"}, b'["AP8="]', [[b"\x00\xff"]]),
    ],
)
def test_forms_of_keys(types: dict[str, str], body: bytes, wanted: list[list[Any]]) -> None:
    keys = json_keys(body, JSON, dataset(types, tuple(types)), SETTINGS)
    assert [list(row.values()) for row in keys.to_pylist()] == wanted


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'[1, "x", 2, 2.5, null, true]', [2, 4, 6]),
        (b"[1, null]", [2]),
        (b"[1, [2, 3], {}]", [2, 3]),
        (b"[5, 6, 5, 7, 6, 5]", [3, 5, 6]),
        (b'[{"k": 1, "s": "x"}]', [1]),
    ],
)
def test_bad_keys_are_named(body: bytes, rows: list[int]) -> None:
    with pytest.raises(LakehouseError) as caught:
        json_keys(body, JSON, dataset({"k": "int64", "s": "string"}), SETTINGS)
    assert caught.value.kind is ErrorKind.INVALID
    named = caught.value.fields["rows"]
    assert isinstance(named, list)
    assert [row["row"] for row in named if isinstance(row, dict)] == rows


def test_unreadable_rows_of_a_csv_count(work: Work) -> None:
    whole = dataset({"k": "int64", "s": "string", "n": "int64"})
    body = b"k,s,n\n1,a,1\n2,b,c,d,e\n3,c,x\n4,d,y,z,z\n5,e,q\n"
    with pytest.raises(LakehouseError) as caught:
        read_rows(body, IngestOptions(format=SourceFormat.CSV), whole, work)
    named = caught.value.fields["rows"]
    assert isinstance(named, list)
    found = [(row["row"], row["column"]) for row in named if isinstance(row, dict)]
    assert found == [(2, ""), (3, "n"), (4, ""), (5, "n")]
    assert caught.value.fields["count"] == 4


def test_many_bad_rows_are_counted_and_twenty_named(work: Work) -> None:
    whole = dataset({"k": "int64", "n": "int64"})
    body = json.dumps([{"k": at, "n": "x" * 500} for at in range(50)]).encode()
    with pytest.raises(LakehouseError) as caught:
        read_rows(body, JSON, whole, work)
    named = caught.value.fields["rows"]
    assert isinstance(named, list)
    assert len(named) == 20
    assert all(isinstance(row, dict) and len(str(row["value"])) <= 100 for row in named)


def test_packed_and_marked_bodies(work: Work) -> None:
    whole = dataset({"k": "int64", "s": "string"})
    rows = read_rows(gzip.compress(b"k,s\n1,a\n"), IngestOptions(), whole, work)
    assert rows.to_pylist() == [{"k": 1, "s": "a"}]
    rows = read_rows("k,s\n1,ä\n".encode("utf-16"), IngestOptions(), whole, work)
    assert rows.to_pylist() == [{"k": 1, "s": "ä"}]
    rows = read_rows("k,s\n1,ä\n".encode("latin-1"), IngestOptions(), whole, work)
    assert rows.to_pylist() == [{"k": 1, "s": "ä"}]
    keys = json_keys(gzip.compress(b"[1, 2]"), JSON, whole, SETTINGS)
    assert keys.num_rows == 2
    sink = io.BytesIO()
    keys_table = pa.table({"k": pa.array([3], pa.int8())})
    with pa.ipc.new_stream(sink, keys_table.schema) as writer:
        writer.write_table(keys_table)
    assert read_keys(sink.getvalue(), IngestOptions(), whole, work).to_pylist() == [{"k": 3}]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2000 + b"]" * 2000,
        b'{"key": 1, "set": {"s": "\xff"}}',
        b'{"key": 1, "set": {"s": "a", "s": "b"}}',
        b'{"key": 1, "set": {"s": "\\ud800"}}',
        b'{"key": 1, "sets": {}}',
        b'{"key": 1, "set": 5}',
        b'{"key": 1, "set": {}} trailing',
        b"7",
        b"null",
    ],
)
def test_patches_that_cannot_be_read(body: bytes) -> None:
    with pytest.raises(LakehouseError) as caught:
        json_patches(body, JSON, dataset({"k": "int64", "s": "string"}), SETTINGS)
    assert caught.value.kind is ErrorKind.INVALID


def test_fields_to_set() -> None:
    whole = dataset({"k": "int64", "s": "string", "n": "int64"})
    found = set_fields('{"S": "x", "n": null}', whole, SETTINGS)
    assert {name: value.as_py() for name, value in found.items()} == {"s": "x", "n": None}
    for text, kind in (
        ('{"k": 1}', ErrorKind.INVALID),
        ('{"q": 1}', ErrorKind.CONFLICT),
        ('{"n": "x"}', ErrorKind.INVALID),
        ("[]", ErrorKind.INVALID),
        ("{}", ErrorKind.INVALID),
        ("nope", ErrorKind.INVALID),
    ):
        with pytest.raises(LakehouseError) as caught:
            set_fields(text, whole, SETTINGS)
        assert caught.value.kind is kind, text


def test_binary_is_base64_in_json_and_bytes_in_arrow(work: Work) -> None:
    whole = dataset({"k": "int64", "b": "binary"})
    text = base64.b64encode(b"\x01").decode()
    assert (
        read_rows(f'[{{"k":1,"b":"{text}"}}]'.encode(), JSON, whole, work)["b"][0].as_py()
        == b"\x01"
    )
    with pytest.raises(LakehouseError) as caught:
        read_rows(b'[{"k":1,"b":"no base64!"}]', JSON, whole, work)
    assert caught.value.fields["column"] == "b"
