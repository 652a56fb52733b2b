"""Compaction against a real catalog: what it leaves, what it says, what it finds wrong."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import ColumnOverride, IngestOptions, SourceFormat
from lakehouse.contracts.inventory import JournalRequest
from lakehouse.contracts.rows import (
    ChangeRowsRequest,
    CompactRequest,
    RowChange,
    RowRequest,
    WidenRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction.planning import MAJOR
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.changes import AddFiles, PutDocument
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, stats_key
from lakehouse.objectstore.buckets import BucketSettings
from lakehouse.table.keys import keys_schema
from support_ingest import CTX, Lake
from unit.ingestd.compaction.tables import Table


async def test_the_report_says_what_it_did_and_a_dry_run_what_it_would(table: Table) -> None:
    await table.changes(6)
    before = await table.dataset()
    plan = await table.compact(dry_run=True)
    assert await table.dataset() == before
    assert (plan.strategy, plan.dry_run, plan.inputs) == ("minor+events", True, 19)
    report = await table.compact()
    after = await table.dataset()
    assert (report.files_before, report.files_after) == (19, after.files)
    # What hides nothing outside needs no keys: that is known when it is folded.
    assert after.files <= plan.files_after == 3
    assert (report.key_files_before, report.key_files_after) == (6, after.key_files)
    assert report.size_bytes_after == after.size_bytes < report.size_bytes_before
    assert (report.rows, report.rows_hash) == (16, plan.rows_hash)
    assert (report.inputs, report.outputs, report.version) == (19, 2, after.version)
    assert min(report.bytes_read, report.bytes_written, report.elapsed_ms) > 0
    assert (await table.compact()).no_op
    assert after.rows_version == before.rows_version


async def test_a_full_one_leaves_rows_by_key_and_nothing_that_is_hidden(table: Table) -> None:
    await table.change(3, 50, 7, name="new")
    await table.change(5, 50, kind=RowChange.DELETE)
    seen = await table.seen()
    report = await table.compact(full=True)
    assert report.strategy == "major+events"
    assert await table.seen() == seen
    assert await table.files(KEYS) == []
    (rows,) = await table.files(ROWS)
    data = await table.lake.buckets.get("primary").get(rows.key)
    found = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    assert found.read().column("id").to_pylist() == sorted(seen)
    assert (rows.stats[0].minimum, rows.stats[0].maximum) == ("0", "9")
    assert found.schema_arrow.field("id").metadata[b"PARQUET:field_id"] == b"1"


async def test_events_keep_their_version_and_the_birth_becomes_one(table: Table) -> None:
    version = await table.change(1, name="one")
    await table.changes(4)
    await table.compact(full=True)
    (file,) = await table.files(EVENTS)
    data = await table.lake.buckets.get("primary").get(file.key)
    events = pq.read_table(pa.BufferReader(data)).to_pylist()
    assert all(event["version"] for event in events)
    (one,) = [event for event in events if event["new"] == '"one"']
    assert (one["version"], one["entity"]) == (version, "[1]")
    assert [event["operation"] for event in events if event["kind"] == "batch"] == ["create"]
    entities = [event["entity"] or "" for event in events]
    assert entities == sorted(entities)
    journal = await table.lake.catalog.journal(CTX, JournalRequest("t"))
    assert journal.entries == ()


async def test_keys_that_lie_are_found_and_nothing_is_committed(table: Table) -> None:
    await table.changes(1)
    parts = table.lake.ingest.parts
    snapshot, _ = await parts.reader.snapshot(CTX, "t")
    dataset = snapshot.dataset
    columns = keys_schema(dataset.schema, ("id",))
    wrong = pa.table([[9], ["delete"], [0], pa.array([7], pa.uint64())], schema=columns)
    async with parts.sessions.writing() as session_id:
        file = await parts.writer.put(CTX, dataset, session_id, wrong, KEYS, dataset.schema)
        await table.lake.catalog.commit(CTX, c.CommitRequest((AddFiles(dataset.id, (file,)),)))
    before = await table.files()
    with pytest.raises(LakehouseError) as caught:
        await table.compact(full=True)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert "nothing was compacted" in caught.value.message
    assert await table.files() == before


async def test_a_wrong_byte_is_found_and_nothing_is_committed(table: Table) -> None:
    await table.changes(6)
    file = (await table.files(ROWS))[3]
    store = table.lake.buckets.get("primary")
    data = bytearray(await store.get(file.key))
    data[len(data) // 2] ^= 1
    await store.put(file.key, bytes(data))
    before = await table.files()
    with pytest.raises(LakehouseError) as caught:
        await table.compact()
    assert caught.value.kind is ErrorKind.CORRUPT
    assert caught.value.fields["key"] == file.key
    assert await table.files() == before


async def test_small_files_of_a_dataset_without_a_key_go_together(lake: Lake) -> None:
    table = Table(lake)
    await lake.put(b"id,name\n0,first\n")
    for at in range(1, 12):
        await lake.put(f"id,name\n{at},n{at}\n".encode(), mode="append")
    seen = await table.seen()
    report = await table.compact()
    assert (report.strategy, report.rows) == ("files+events", 12)
    assert await table.seen() == seen
    assert len(await table.files(ROWS)) == 1
    (told,) = await table.files(EVENTS)
    assert told.rows == 12
    journal = await lake.catalog.journal(CTX, JournalRequest("t"))
    assert journal.entries == ()
    await lake.put(b"id,name\n99,late\n", mode="append")
    journal = await lake.catalog.journal(CTX, JournalRequest("t"))
    assert [entry.operation for entry in journal.entries] == ["append"]


async def test_rows_from_before_a_type_was_widened_go_with_those_since(lake: Lake) -> None:
    rows = "".join(f"{at},{at}\n" for at in range(100))
    await lake.put(f"id,name\n{rows}".encode(), key=("id",))
    table = Table(lake)

    async def change(*ids: int, value: object) -> None:
        body = json.dumps([{"id": one, "name": value} for one in ids]).encode()
        options = IngestOptions(format=SourceFormat.JSON)
        await table.rows.change(CTX, ChangeRowsRequest("t", RowChange.UPSERT, body, options))

    for at in range(3):
        await change(at, 50, value=1000 + at)
    wider = WidenRequest(
        "t", (ColumnOverride("more", "string"),), (ColumnOverride("name", "string"),)
    )
    await table.rows.widen(CTX, wider)
    for at in range(3):
        await change(50, 60 + at, value=f"text {at}")
    seen = await table.seen()
    assert (seen[0], seen[50], seen[99]) == ("1000", "text 2", "99")
    assert (await table.compact()).strategy.startswith("minor")
    assert await table.seen() == seen
    for at in range(3):
        await change(70 + at, value=None)
    seen = await table.seen()
    assert (await table.compact(full=True)).strategy.startswith("major")
    assert await table.seen() == seen
    await change(70, value="again")
    assert (await table.compact(full=True)).strategy.startswith("major")
    assert (await table.seen()) == seen | {70: "again"}


async def test_a_column_may_be_called_as_the_order_of_changes_is(lake: Lake) -> None:
    await lake.put(b"id,__seq\n1,a\n2,b\n3,c\n", "t", key=("id",))
    rows = Rows(lake.ingest.parts)
    for body, how in (([{"id": 1, "__seq": "z"}], RowChange.UPSERT), ([3], RowChange.DELETE)):
        await rows.change(CTX, ChangeRowsRequest("t", how, json.dumps(body).encode()))
    report = await rows.compact(CTX, CompactRequest("t", full=True))
    assert (report.strategy.split("+")[0], report.key_files_after) == (MAJOR, 0)
    found = await rows.get(CTX, RowRequest("t", "1"))
    assert json.loads(found.row_json) == {"id": 1, "__seq": "z"}
    error = await lake.refused(b"__seq\n1\n", "u", key=("__seq",))
    assert error.kind is ErrorKind.INVALID


async def test_a_dataset_stays_in_its_bucket_and_so_do_its_statistics(lake: Lake) -> None:
    place = f"memory://{lake.spool.name}-{id(lake)}"
    body = json.dumps({"name": "client_eu", "url": place, "residency": "eu"})
    await lake.catalog.commit(CTX, c.CommitRequest((PutDocument("bucket", "client_eu", body),)))
    lake.buckets.add(BucketSettings("client_eu", place, residency="eu"))
    rows = "".join(f"{at},n{at}\n" for at in range(100))
    await lake.put(f"id,name\n{rows}".encode(), key=("id",), bucket="client_eu")
    table = Table(lake)
    for full in (False, True):
        await table.changes(6)
        seen = await table.seen()
        report = await table.compact(full=full)
        assert report.strategy.startswith("major" if full else "minor")
        assert await table.seen() == seen
        files = await table.files()
        assert {file.bucket for file in files} == {"client_eu"}
        made = [file for file in files if file.seq > 2 and file.content != EVENTS]
        assert made
        for file in made:
            assert not file.stats
            beside = await lake.buckets.get("client_eu").get(stats_key(file.key))
            assert hashlib.sha256(beside).hexdigest() == file.stats_sha256
