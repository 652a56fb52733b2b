"""Parquet and Arrow: widened exactly, checked before they are believed."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import SourceFormat
from lakehouse.errors import ErrorKind
from support_ingest import CTX, Lake

TABLE = pa.table(
    {
        "i": pa.array([1, None], pa.int16()),
        "u": pa.array([2**64 - 1, 0], pa.uint64()),
        "f": pa.array([1.5, float("nan")], pa.float32()),
        "s": pa.array(["x", None], pa.string_view()),
        "d": pa.array(["a", "a"]).dictionary_encode(),
        "t": pa.array([datetime(2020, 1, 2), None], pa.timestamp("ns", "Europe/Berlin")),
        "dec": pa.array([Decimal("1.10"), None], pa.decimal128(5, 2)),
        "l": pa.array([[1], None], pa.large_list(pa.int8())),
        "st": pa.array([{"a": 1}, None], pa.struct([("a", pa.int32())])),
        "du": pa.array([timedelta(seconds=1), None], pa.duration("ms")),
        "nothing": pa.nulls(2),
    }
)
TYPES = {
    "i": "int64",
    "u": "uint64",
    "f": "float64",
    "s": "string",
    "d": "string",
    "t": "timestamptz",
    "dec": "decimal(5,2)",
    "l": "list<int64>",
    "st": "struct<a:int64>",
    "du": "int64",
    "nothing": "string",
}


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def stream(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def packed(table: pa.Table) -> bytes:
    return pa.compress(stream(table), codec="gzip", asbytes=True)


@pytest.mark.parametrize("write", [parquet, stream, file, packed])
async def test_types_are_widened(lake: Lake, write: object) -> None:
    report = await lake.put(write(TABLE))  # type: ignore[operator]
    assert report.format == ("parquet" if write is parquet else "arrow")
    assert await lake.types() == TYPES
    first, second = await lake.rows()
    assert (first["i"], first["u"], first["d"], first["dec"]) == (
        1,
        2**64 - 1,
        "a",
        Decimal("1.10"),
    )
    assert (first["l"], first["st"], first["du"]) == ([1], {"a": 1}, 1_000_000)
    assert second["f"] != second["f"]
    assert {second[name] for name in ("i", "s", "t", "dec", "l", "st", "du")} == {None}
    files = await lake.catalog.files(CTX, c.PageRequest("t"))
    bounds = {stats.column_id: stats for stats in files.files[0].stats}
    assert (bounds[1].minimum, bounds[1].null_count) == ("1", 1)
    assert bounds[3].minimum is None  # NaN was seen


async def test_feather_is_arrow(lake: Lake) -> None:
    sink = io.BytesIO()
    feather.write_feather(pa.table({"a": [1]}), sink, compression="zstd")
    assert (await lake.put(sink.getvalue(), file_name="x.feather")).format == "arrow"


async def test_nanoseconds_that_count_stay_text(lake: Lake) -> None:
    exact = pa.table({"t": pa.array([1_000, 2_000], pa.timestamp("ns"))})
    await lake.put(parquet(exact))
    assert await lake.types() == {"t": "timestamp"}
    fine = pa.table({"t": pa.array([1_000, 2_001], pa.timestamp("ns"))})
    await lake.put(parquet(fine), "fine")
    assert [row["t"] for row in await lake.rows("fine")] == [
        "1970-01-01 00:00:00.000001000",
        "1970-01-01 00:00:00.000002001",
    ]


async def test_typed_rows_meet_a_schema(lake: Lake) -> None:
    await lake.put(b"id,v,s\n1,1.5,x\n")
    await lake.put(parquet(pa.table({"V": [2], "S": [True], "id": [3]})), mode="append")
    assert (await lake.rows())[1] == {"id": 3, "v": 2.0, "s": "true"}
    error = await lake.refused(parquet(pa.table({"id": [2.5, 3.0]})), mode="append")
    assert error.fields["samples"][0] == {"column": "id", "value": "2.5", "line": 1}  # type: ignore[index,call-overload]
    error = await lake.refused(parquet(pa.table({"v": [2**60 + 1]})), mode="append")
    assert error.kind is ErrorKind.CONFLICT


async def test_damage_is_invalid(lake: Lake) -> None:
    body = parquet(pa.table({"a": list(range(1_000))}))
    for damaged in (body[:-9], body[:4] + b"\xff" * 40 + body[44:], b"PAR1" + b"\x00" * 100):
        error = await lake.refused(damaged)
        assert error.kind is ErrorKind.INVALID
        assert "parquet" in error.message
    wire = stream(pa.table({"a": ["x" * 50] * 100}))
    for damaged in (wire[:-300], wire[:600] + b"\xff" * 64 + wire[664:]):
        error = await lake.refused(damaged)
        assert error.kind is ErrorKind.INVALID


async def test_a_stated_format_must_be_so(lake: Lake) -> None:
    error = await lake.refused(b"a,b\n1,2\n", format=SourceFormat.PARQUET)
    assert error.kind is ErrorKind.INVALID
    error = await lake.refused(parquet(pa.table({"a": [1]})), format=SourceFormat.CSV)
    assert "parquet" in error.message
    await lake.put(parquet(pa.table({"a": [1]})), content_type="text/csv")
    await lake.put(b"PAR1,PAR2\n1,2\n", "text", file_name="x.csv")
    assert await lake.rows("text") == [{"PAR1": 1, "PAR2": 2}]


async def test_repeated_names_are_renamed(lake: Lake) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "A"])
    await lake.put(stream(table))
    assert await lake.rows() == [{"a": 1, "A_2": 2}]


async def test_files_follow_the_rules(lake: Lake) -> None:
    await lake.put(b"id,name\n1,ann\n")
    dataset = await lake.catalog.files(CTX, c.PageRequest("t"))
    data = await lake.buckets.get("primary").get(dataset.files[0].key)
    read = pq.ParquetFile(pa.BufferReader(data))
    assert [f.metadata[b"PARQUET:field_id"] for f in read.schema_arrow] == [b"1", b"2"]
    column = read.metadata.row_group(0).column(0)
    assert (column.compression, column.is_stats_set) == ("ZSTD", True)
    assert dataset.files[0].rows_hash.startswith("rh1:")
    assert len(dataset.files[0].rows_hash) == 20


@pytest.mark.parametrize("write", [parquet, stream])
async def test_a_table_without_rows_keeps_its_types(
    lake: Lake, write: Callable[[pa.Table], bytes]
) -> None:
    await lake.put(write(TABLE.slice(0, 0).drop_columns(["s"])))
    assert await lake.types() == {name: one for name, one in TYPES.items() if name != "s"}
