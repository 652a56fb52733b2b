"""Compaction against a real catalog: what it leaves, what it costs, what becomes of it when the
world moves or breaks meanwhile."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import ColumnOverride, IngestOptions, SourceFormat
from lakehouse.contracts.inventory import JournalRequest
from lakehouse.contracts.rows import (
    ChangeRowsRequest,
    CompactReport,
    CompactRequest,
    RowChange,
    WidenRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction.planning import EVENTS_RUN, MAJOR, Run
from lakehouse.ingestd.compaction.running import Runner, Stand
from lakehouse.ingestd.compaction.settings import CompactionSettings
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.changes import AddFiles, RewriteFiles
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile, Dataset
from lakehouse.table.keys import keys_schema
from support_ingest import CTX, Lake, build_lake

SETTINGS = CompactionSettings(deltas_max=4)
Commit = Callable[[Any, c.CommitRequest], Any]


class Table:
    """A keyed dataset ``t`` with ten rows, and short ways to change and to read it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.rows = Rows(lake.ingest.parts)
        self.background = lake.ingest.parts.compaction_wanted
        lake.ingest.parts.compaction_wanted = lambda name: None

    async def change(self, *ids: int, name: str = "x", kind: RowChange = RowChange.UPSERT) -> int:
        rows = [{"id": one} | ({"name": name} if kind is RowChange.UPSERT else {}) for one in ids]
        options = IngestOptions(format=SourceFormat.JSON)
        body = json.dumps(rows).encode()
        report = await self.rows.change(CTX, ChangeRowsRequest("t", kind, body, options))
        return report.version

    async def changes(self, count: int) -> None:
        for at in range(count):
            await self.change(at % 10, 100 + at, name=f"v{at}")

    async def compact(self, ctx: Any = CTX, **how: bool) -> CompactReport:
        return await self.rows.compact(ctx, CompactRequest("t", **how))

    async def seen(self) -> dict[int, str]:
        parts = self.lake.ingest.parts
        snapshot, _ = await parts.reader.snapshot(CTX, "t")
        rows = (await parts.reader.read(snapshot)).to_pylist()
        assert len(rows) == snapshot.dataset.row_count
        return {row["id"]: row["name"] for row in rows}

    async def dataset(self) -> Dataset:
        return (await self.lake.catalog.get(CTX, c.GetRequest("t"))).dataset

    async def files(self, content: str = "") -> list[DataFile]:
        found = (await self.lake.catalog.files(CTX, c.PageRequest("t"))).files
        return [file for file in found if content in ("", file.content)]


@pytest.fixture
async def lake(tmp_path: Path) -> AsyncIterator[Lake]:
    built = await build_lake(tmp_path, compaction=SETTINGS, compaction_files=5)
    yield built
    await built.close()


@pytest.fixture
async def table(lake: Lake) -> Table:
    rows = "".join(f"{at},n{at}\n" for at in range(10))
    await lake.put(f"id,name\n{rows}".encode(), key=("id",))
    return Table(lake)


def on_rewrite(
    monkeypatch: pytest.MonkeyPatch, lake: Lake, meanwhile: Callable[[], Any], times: int = 1
) -> list[c.CommitRequest]:
    """Have something done just before the first commits that rewrite files; all of these."""
    commit: Commit = lake.catalog.commit
    seen: list[c.CommitRequest] = []

    async def wrapped(ctx: Any, request: c.CommitRequest) -> c.CommitResult:
        if any(isinstance(change, RewriteFiles) for change in request.changes):
            seen.append(request)
            if len(seen) <= times:
                await meanwhile()
        result: c.CommitResult = await commit(ctx, request)
        return result

    monkeypatch.setattr(lake.catalog, "commit", wrapped)
    return seen


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


async def test_a_crash_between_upload_and_commit_leaves_no_trace(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    before, seen = await table.files(), await table.seen()

    async def die() -> None:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "the catalog does not answer")

    with monkeypatch.context() as patched:
        on_rewrite(patched, table.lake, die)
        with pytest.raises(LakehouseError) as caught:
            await table.compact(full=True)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert await table.files() == before
    assert not list(table.lake.spool.glob("*/compaction-*"))
    assert not (await table.compact(full=True)).no_op
    assert await table.seen() == seen


async def test_rows_that_come_meanwhile_go_on_hiding_what_they_hid(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)

    async def more() -> None:
        await table.change(3, 102, 999, name="later")
        await table.change(4, kind=RowChange.DELETE)

    on_rewrite(monkeypatch, table.lake, more)
    report = await table.compact(full=True)
    assert not report.no_op
    seen = await table.seen()
    assert (seen[3], seen[102], seen[999], 4 in seen) == ("later", "later", "later", False)
    assert len(seen) == 16


async def test_a_replace_meanwhile_wins(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    await table.changes(6)

    async def replaced() -> None:
        await table.lake.put(b"id,name\n1,only\n", mode="replace")

    on_rewrite(monkeypatch, table.lake, replaced)
    report = await table.compact(full=True)
    assert await table.seen() == {1: "only"}
    assert report.rebased == 1


async def test_the_loser_of_two_plans_again_and_uses_what_it_has(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    seen = await table.seen()
    puts: list[int] = []
    put_all = table.lake.ingest.parts.writer.put_all

    async def counted(*args: Any) -> Any:
        puts.append(1)
        return await put_all(*args)

    async def lost() -> None:
        raise LakehouseError(ErrorKind.CONFLICT, "an input is no longer live")

    monkeypatch.setattr(table.lake.ingest.parts.writer, "put_all", counted)
    commits = on_rewrite(monkeypatch, table.lake, lost)
    report = await table.compact(full=False)
    assert (report.rebased, len(commits)) == (1, 2)
    rows = [
        [change.files for change in one.changes if change.files[0].content == ROWS]  # type: ignore[union-attr]
        for one in commits
    ]
    assert rows[0] == rows[1], "the rows were made again"
    assert await table.seen() == seen


async def test_it_gives_up_after_some_conflicts(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)

    async def lost() -> None:
        raise LakehouseError(ErrorKind.CONFLICT, "an input is no longer live")

    commits = on_rewrite(monkeypatch, table.lake, lost, times=99)
    with pytest.raises(LakehouseError) as caught:
        await table.compact()
    assert caught.value.kind is ErrorKind.CONFLICT
    assert len(commits) == SETTINGS.rebases_max + 1


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


async def test_who_asks_for_what_is_under_way_joins(table: Table) -> None:
    await table.changes(6)
    before = (await table.dataset()).version
    reports = await asyncio.gather(*(table.compact() for _ in range(4)))
    assert len({report.version for report in reports}) == 1
    await table.change(1)
    first = asyncio.create_task(table.compact())
    full = await table.compact(full=True)
    # Whichever came first: it asked for less than the other.
    assert (await first).version <= full.version
    assert full.strategy.startswith("major")
    assert (await table.dataset()).version == before + 3


async def test_what_comes_during_a_long_one_is_folded_beside_it(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    begun, release = asyncio.Event(), asyncio.Event()
    run = Runner.run

    async def slow(self: Runner, stand: Stand, one: Run) -> tuple[DataFile, ...]:
        if one.strategy == MAJOR:
            begun.set()
            await release.wait()
        return await run(self, stand, one)

    monkeypatch.setattr(Runner, "run", slow)
    long = asyncio.create_task(table.compact(full=True))
    await begun.wait()
    for at in range(6):
        await table.change(at, 200 + at, name=f"later {at}")
    seen, before = await table.seen(), await table.dataset()
    table.background("t")
    for _ in range(500):
        if (await table.dataset()).key_files < before.key_files:
            break
        await asyncio.sleep(0.01)
    assert (await table.dataset()).key_files == before.key_files - 5
    assert not long.done()
    release.set()
    report = await long
    assert (report.strategy.split("+")[0], report.rebased) == ("major", 1)
    assert await table.seen() == seen
    assert (await table.dataset()).key_files == 1


async def test_what_is_done_is_kept_though_more_came(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.changes(6)
    runs: list[str] = []
    run = Runner.run

    async def counted(self: Runner, stand: Stand, one: Run) -> tuple[DataFile, ...]:
        runs.append(one.strategy)
        return await run(self, stand, one)

    async def more() -> None:
        await table.change(3, 300, name="later")

    monkeypatch.setattr(Runner, "run", counted)
    commits = on_rewrite(monkeypatch, table.lake, more)
    report = await table.compact(full=True)
    # Its first commit told the dataset's birth, and so had to be alone; the second does not.
    assert (runs, len(commits), report.rebased) == ([MAJOR, EVENTS_RUN, EVENTS_RUN], 2, 1)
    assert (await table.dataset()).key_files == 1
    assert len((await table.lake.catalog.journal(CTX, JournalRequest("t"))).entries) == 1


async def test_a_caller_that_goes_away_stops_nothing(table: Table) -> None:
    await table.changes(6)
    seen = await table.seen()
    task = asyncio.create_task(table.compact(full=True))
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await table.compact(full=True)).key_files_after == 0
    assert await table.seen() == seen


async def test_a_stop_ends_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lake = await build_lake(tmp_path, compaction=SETTINGS)
    await lake.put(b"id,name\n1,a\n", key=("id",))
    table = Table(lake)
    await table.changes(6)
    task = asyncio.create_task(table.compact(full=True))
    for _ in range(50):
        await asyncio.sleep(0)
    await lake.close()
    with pytest.raises((LakehouseError, asyncio.CancelledError)):
        await task
    with pytest.raises(LakehouseError) as caught:
        await table.rows.compact(CTX, CompactRequest("t"))
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_repeated_call_is_answered_from_the_commit(table: Table) -> None:
    await table.changes(6)
    ctx = replace(CTX, idempotency_key="k-1")
    first = await table.compact(ctx)
    await table.changes(6)
    again = await table.compact(ctx)
    assert replace(again, elapsed_ms=first.elapsed_ms) == first
    with pytest.raises(LakehouseError) as caught:
        await table.compact(ctx, full=True)
    assert caught.value.kind is ErrorKind.INVALID


async def test_many_changes_are_folded_in_the_background(table: Table) -> None:
    table.lake.ingest.parts.compaction_wanted = table.background
    for _ in range(40):
        await table.change(1, name="again")
        await table.change(1, name="and again")
        dataset = await table.dataset()
        if dataset.version > 8 and dataset.key_files < 5:
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("nothing was folded")
    assert (await table.seen())[1] == "and again"


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


async def test_too_little_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    settings = replace(SETTINGS, spill_bytes_max=2_000)
    lake = await build_lake(tmp_path, compaction=settings)
    try:
        rows = "".join(f"{at},n{at}\n" for at in range(500))
        await lake.put(f"id,name\n{rows}".encode(), key=("id",))
        table = Table(lake)
        await table.changes(2)
        with pytest.raises(LakehouseError) as caught:
            await table.compact(full=True)
        assert caught.value.kind in (ErrorKind.EXHAUSTED, ErrorKind.UNAVAILABLE)
        assert "compaction.spill_bytes_max" in str(caught.value.fields)
        assert len(await table.seen()) == 500
    finally:
        await lake.close()


class Peak(threading.Thread):
    """The most that Arrow held at once, looked at every millisecond."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = pa.total_allocated_bytes()
        self.most = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.001):
            self.most = max(self.most, pa.total_allocated_bytes() - self.start_bytes)

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._done.set()
        self.join()


async def test_memory_stays_within_a_part_of_the_data(tmp_path: Path) -> None:
    count = 60_000
    ids = pc.sort_indices(pc.random(count, initializer=7)).cast(pa.int64())
    names = pc.binary_join_element_wise(ids.cast(pa.string()), "x" * 200, "-")
    data = pa.table({"id": ids, "name": names})
    body = io.BytesIO()
    pq.write_table(data, body)
    size = data.nbytes
    settings = replace(SETTINGS, memory_bytes=size // 20)
    lake = await build_lake(tmp_path, compaction=settings)
    try:
        await lake.put(body.getvalue(), key=("id",))
        del data, ids, names, body
        table = Table(lake)
        await table.change(5, count + 5, name="new")
        with Peak() as peak:
            report = await table.compact(full=True)
        assert report.rows == count + 1
        # Beside the rows: pages and dictionaries that a Parquet writer has, a MiB or so a column.
        assert peak.most < size // 20 + (3 << 20) < size // 3, f"{peak.most:,} of {size:,}"
        (rows,) = await table.files(ROWS)
        paths = await lake.ingest.parts.reader.local([rows])
        found = pq.read_table(paths[0], columns=["id"]).column("id")
        assert pc.all(pc.less(found[:-1], found[1:])).as_py()
    finally:
        await lake.close()
