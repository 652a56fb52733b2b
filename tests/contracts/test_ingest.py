"""The ingest contract, direct and over gRPC."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import zstandard

from contracts.world import READER, WRITER, World, caller
from lakehouse.contracts.catalog import GetRequest, ListRequest
from lakehouse.contracts.ingest import (
    CardHints,
    ColumnOverride,
    IngestMode,
    IngestOptions,
    IngestReport,
    IngestRequest,
    NestedAs,
    SourceFormat,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Scope

CSV = b"id,name,score\n1,Anna,0.5\n2,Ben,\n3,,1.5\n"
ROWS = [
    {"id": 1, "name": "Anna", "score": 0.5},
    {"id": 2, "name": "Ben", "score": None},
    {"id": 3, "name": "Cy", "score": 1.5},
]
TYPES = {"id": "int64", "name": "string", "score": "float64"}


async def in_chunks(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def send(
    ingest: Any, dataset: str, data: bytes, ctx: Any = WRITER, **fields: Any
) -> IngestReport:
    report: IngestReport = await ingest.ingest(
        ctx, IngestRequest(dataset, **fields), in_chunks(data, 4_096)
    )
    return report


async def refused(call: Any, kind: ErrorKind) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind, (caught.value, caught.value.fields)
    return caught.value


async def names(here: World) -> list[str]:
    listed = await here.near["catalog"].list(READER, ListRequest())
    return [dataset.name for dataset in listed.datasets]


def arrow_stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


TABLE = pa.Table.from_pylist(ROWS)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
SOURCES = {
    "csv": (b"id,name,score\n1,Anna,0.5\n2,Ben,\n3,Cy,1.5\n", SourceFormat.CSV),
    "tsv": (b"id\tname\tscore\n1\tAnna\t0.5\n2\tBen\t\n3\tCy\t1.5\n", SourceFormat.TSV),
    "json": (json.dumps(ROWS).encode(), SourceFormat.JSON),
    "ndjson": (LINES, SourceFormat.NDJSON),
    "parquet": (parquet(TABLE), SourceFormat.PARQUET),
    "arrow": (arrow_stream(TABLE), SourceFormat.ARROW),
    "csv.gz": (gzip.compress(b"id,name,score\n1,Anna,0.5\n2,Ben,\n3,Cy,1.5\n"), SourceFormat.CSV),
    "ndjson.zst": (zstandard.compress(LINES), SourceFormat.NDJSON),
}


@pytest.mark.parametrize("stated", [False, True], ids=["detected", "stated"])
@pytest.mark.parametrize("source", SOURCES)
async def test_every_format_gives_the_same_dataset(
    ingest: Any, here: World, source: str, stated: bool
) -> None:
    data, kind = SOURCES[source]
    options = IngestOptions(format=kind) if stated else IngestOptions(file_name=f"people.{source}")
    report = await send(ingest, "people", data, options=options)
    assert (report.dataset, report.rows, report.created, report.no_op) == ("people", 3, True, False)
    assert {column.name: column.type for column in report.schema} == TYPES
    assert (report.format, report.bytes_read, report.dead_letters) == (kind.value, len(data), 0)
    result = await here.near["catalog"].get(READER, GetRequest("people"))
    assert (result.dataset.row_count, result.dataset.files) == (3, report.files)
    assert result.dataset.version == report.version
    assert result.dataset.schema.columns == report.schema


async def test_the_same_content_again_is_a_no_op(ingest: Any) -> None:
    first = await send(ingest, "people", CSV)
    again = await send(ingest, "people", CSV)
    assert (again.no_op, again.created, again.files) == (True, False, 0)
    assert (again.version, again.content_digest) == (first.version, first.content_digest)
    forced = await send(
        ingest, "people", CSV, mode=IngestMode.APPEND, options=IngestOptions(force=True)
    )
    assert (forced.no_op, forced.version) == (False, first.version + 1)


async def test_other_content_needs_a_mode(ingest: Any, here: World) -> None:
    await send(ingest, "people", CSV)
    other = b"id,name,score\n4,Dora,2\n"
    error = await refused(send(ingest, "people", other), ErrorKind.CONFLICT)
    said = f"{error} {error.fields}"
    assert "append" in said
    assert "replace" in said
    await refused(send(ingest, "people", other, mode=IngestMode.CREATE), ErrorKind.ALREADY_EXISTS)
    added = await send(ingest, "people", other, mode=IngestMode.APPEND)
    assert (added.rows, added.created, added.mode) == (1, False, "append")
    assert (await here.near["catalog"].get(READER, GetRequest("people"))).dataset.row_count == 4
    await send(ingest, "people", other + b"5,Eve,3\n", mode=IngestMode.REPLACE)
    assert (await here.near["catalog"].get(READER, GetRequest("people"))).dataset.row_count == 2


async def test_drift_is_a_conflict_with_its_diff(ingest: Any, here: World) -> None:
    first = await send(ingest, "people", CSV)
    drifted = b"id,name,age\nx7,Fay,30\n"
    error = await refused(
        send(ingest, "people", drifted, mode=IngestMode.APPEND), ErrorKind.CONFLICT
    )
    assert "age" in json.dumps(error.fields)
    result = await here.near["catalog"].get(READER, GetRequest("people"))
    assert result.dataset.version == first.version


async def test_what_the_caller_states_is_followed(ingest: Any, here: World) -> None:
    options = IngestOptions(
        delimiter="|",
        header=False,
        null_values=("-",),
        columns=(ColumnOverride("column_1", "string"),),
    )
    card = CardHints("anna", "who", "confidential", ("crm",), "crm", 60)
    report = await send(ingest, "people", b"1|-\n2|5\n", options=options, card=card)
    types = {column.name: column.type for column in report.schema}
    assert types == {"column_1": "string", "column_2": "int64"}
    dataset = (await here.near["catalog"].get(READER, GetRequest("people"))).dataset
    assert (dataset.card.owner, dataset.card.tags) == ("anna", ("crm",))
    assert dataset.card.lineage.source_system == "crm"
    keyed = await send(ingest, "keyed", CSV, key=("id",))
    assert keyed.rows == 3
    dataset = (await here.near["catalog"].get(READER, GetRequest("keyed"))).dataset
    assert dataset.primary_key == ("id",)


async def test_nested_values_are_columns_or_text(ingest: Any) -> None:
    line = b'{"id": 1, "address": {"city": "Bonn", "zip": ["5", "3"]}}\n'
    deep = await send(ingest, "deep", line, options=IngestOptions(format=SourceFormat.NDJSON))
    assert next(column for column in deep.schema if column.name == "address").type.startswith(
        "struct<"
    )
    options = IngestOptions(format=SourceFormat.NDJSON, nested=NestedAs.JSON)
    flat = await send(ingest, "flat", line, options=options)
    assert next(column for column in flat.schema if column.name == "address").type == "string"


async def test_a_dry_run_shows_and_writes_nothing(ingest: Any, here: World) -> None:
    report = await send(ingest, "people", CSV, dry_run=True)
    assert report.dry_run
    assert {column.name: column.type for column in report.schema} == TYPES
    assert len(json.loads(report.sample_json)) == 3
    assert await names(here) == []


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (b"", IngestOptions()),
        (gzip.compress(CSV * 100)[:-20], IngestOptions()),
        (b"PAR1 not really PAR1", IngestOptions(format=SourceFormat.PARQUET)),
        (b'[{"a": 1}', IngestOptions(format=SourceFormat.JSON)),
        (CSV, IngestOptions(columns=(ColumnOverride("id", "integer(7)"),))),
        (CSV, IngestOptions(encoding="klingon")),
    ],
    ids=["empty", "truncated gzip", "no parquet", "truncated json", "bad type", "bad encoding"],
)
async def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    ingest: Any, here: World, data: bytes, options: IngestOptions
) -> None:
    error = await refused(send(ingest, "people", data, options=options), ErrorKind.INVALID)
    assert error.message
    assert await names(here) == []


async def test_a_body_that_breaks_off_leaves_nothing(ingest: Any, here: World) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CSV
        raise LakehouseError(ErrorKind.INVALID, "the client went away")

    error = await refused(
        ingest.ingest(WRITER, IngestRequest("people"), broken()), ErrorKind.INVALID
    )
    assert error.message == "the client went away"
    assert await names(here) == []


async def test_an_object_that_is_there_can_be_read(ingest: Any, here: World) -> None:
    await here.buckets.get("primary").put("inbox/people.csv", CSV)
    report = await send(ingest, "people", b"", object_key="inbox/people.csv")
    assert (report.rows, report.bytes_read) == (3, len(CSV))
    await refused(send(ingest, "other", b"", object_key="inbox/nothing.csv"), ErrorKind.NOT_FOUND)


async def test_one_key_has_one_effect(ingest: Any, here: World) -> None:
    ctx = caller(Scope.WRITE, idempotency_key="upload-1")
    first = await send(ingest, "people", CSV, ctx, mode=IngestMode.APPEND)
    again = await send(ingest, "people", CSV, ctx, mode=IngestMode.APPEND)
    assert again.version == first.version
    result = await here.near["catalog"].get(READER, GetRequest("people"))
    assert result.dataset.row_count == 3


async def test_a_large_body_streams_through(ingest: Any) -> None:
    lines = b"".join(b"%d,name %d,%d.5\n" % (n, n, n) for n in range(50_000))
    body = in_chunks(b"id,name,score\n" + lines, 30_000)
    report = await ingest.ingest(WRITER, IngestRequest("people"), body)
    assert report.rows == 50_000
    assert {column.name: column.type for column in report.schema} == TYPES


async def test_reading_is_not_enough(ingest: Any, here: World) -> None:
    error = await refused(send(ingest, "people", CSV, READER), ErrorKind.FORBIDDEN)
    assert error.fields["required"] == "write"
    assert await names(here) == []


@pytest.mark.parametrize("name", ["", "a/b", "\u202eevil", ".hidden", 'quo"te'])
async def test_a_name_that_is_none_is_refused(ingest: Any, name: str) -> None:
    await refused(send(ingest, name, CSV), ErrorKind.INVALID)


async def test_a_repeated_ingest_gets_the_first_answer(ingest: Any) -> None:
    ctx = replace(WRITER, idempotency_key="once")
    first = await send(ingest, "people", CSV, ctx, mode=IngestMode.CREATE)
    assert first.created
    assert await send(ingest, "people", CSV, ctx, mode=IngestMode.CREATE) == first
    error = await refused(send(ingest, "people", CSV + b"4,x,1\n", ctx), ErrorKind.INVALID)
    assert error.http_status == 422


async def test_the_home_of_a_dataset_is_chosen_when_it_is_made(ingest: Any, here: World) -> None:
    assert (await send(ingest, "people", CSV, bucket="extra")).created
    catalog = here.near["catalog"]
    assert (await catalog.get(READER, GetRequest("people"))).dataset.bucket == "extra"
    moved = send(ingest, "people", b"id,name,score\n9,Z,1.0\n", bucket="primary")
    error = await refused(moved, ErrorKind.CONFLICT)
    assert (error.fields["home"], error.fields["bucket"]) == ("extra", "primary")
    await refused(send(ingest, "more", CSV, bucket="nowhere"), ErrorKind.NOT_FOUND)
    for meta in await here.buckets.get("primary").list("datasets/"):
        raise AssertionError(meta.key)
