"""A journal whose every step a test decides: commits, folds, and pages of the catalog that break
where they hurt. The catalog is a fake; objects, events and all that reads them are real."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.contracts import catalog as c
from lakehouse.contracts.inventory import JournalRequest, JournalResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.objects import EventObjects
from lakehouse.ingestd.journal.service import Journal
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import Clock, SystemClock, to_datetime
from lakehouse.kit.ids import SystemIds
from lakehouse.model.dataset import (
    EVENTS,
    Card,
    DataFile,
    Dataset,
    DatasetStatus,
    VersionEntry,
)
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.model.schema import Column, Schema
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.table.changes import RowChanges, delete, upsert
from lakehouse.table.events import EVENT_COLUMNS, EVENT_SCHEMA, Why, batch_events, events_of
from lakehouse.table.keys import match
from lakehouse.table.stats import file_stats
from lakehouse.table.types import arrow_schema

CTX = Context(ANONYMOUS_OPERATOR, "r-1")
SCHEMA = Schema(
    1, (Column(1, "id", "int64"), Column(2, "name", "string"), Column(3, "phone", "string"))
)
KEY = ("id",)
START_US = 1_790_000_000_000_000
SECOND_US = 1_000_000


def rows_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), arrow_schema(SCHEMA))


@dataclass(slots=True)
class Held:
    """A dataset with a key: its rows of now, and the objects of its journal."""

    dataset: Dataset
    rows: pa.Table
    files: list[DataFile] = field(default_factory=list)
    entries: list[VersionEntry] = field(default_factory=list)
    past: dict[int, pa.Table] = field(default_factory=dict)


class FakeCatalog:
    """Just what the journal asks of a catalog. ``page`` files and entries a page at most; ``turn``
    is called before each page but the first: a commit or a fold between two pages."""

    def __init__(self, buckets: Buckets, clock: Clock) -> None:
        self.buckets = buckets
        self.clock = clock
        self.ids = SystemIds(SystemClock())
        self.version = 0
        self.horizon = 0
        self.held: dict[str, Held] = {}
        self.page = 1000
        self.turn: Any = None
        self.journal_calls = 0
        self.status_calls = 0
        self.with_stats = True

    # What a writer does.

    def at_us(self, version: int) -> int:
        return START_US + version * SECOND_US

    def create(self, name: str, *rows: dict[str, Any], key: tuple[str, ...] = KEY) -> Held:
        self.version += 1
        never = to_datetime(0)
        dataset = Dataset(
            id=self.ids.ulid(),
            name=name,
            fingerprint="",
            schema=SCHEMA,
            status=DatasetStatus.LIVE,
            card=Card(),
            created_at=never,
            updated_at=never,
            version=self.version,
            files=0,
            size_bytes=0,
            row_count=len(rows),
            primary_key=key,
            rows_version=self.version,
            history_since=self.version if key else 0,
        )
        self.held[name] = held = Held(dataset, rows_of(*rows))
        self._entry(held, "create", len(rows))
        held.past[self.version] = held.rows
        return held

    def bulk(self, name: str, rows: int = 1) -> int:
        """A commit whose only event is its version entry."""
        self.version += 1
        held = self.held[name]
        self._touch(held)
        self._entry(held, "append", rows)
        return self.version

    async def upsert(self, name: str, *rows: dict[str, Any], **why: str) -> int:
        held = self.held[name]
        return await self._change(
            held, upsert(rows_of(*rows), held.rows, SCHEMA, KEY), "upsert", why
        )

    async def delete(self, name: str, *ids: int, **why: str) -> int:
        held = self.held[name]
        keys = pa.table({"id": pa.array(ids, pa.int64())})
        return await self._change(held, delete(keys, held.rows, SCHEMA, KEY), "delete", why)

    async def fold(self, name: str, first: int, last: int, entries: bool = False) -> None:
        """Event files ``first`` to ``last`` of now as one, clustered by entity, versions filled."""
        held = self.held[name]
        inputs = held.files[first:last]
        tables = [await self._filled(one) for one in inputs]
        seq = max((one.seq for one in inputs), default=0)
        if entries and held.entries:
            tables.append(batch_events(tuple(held.entries), held.dataset.id))
            seq = max(seq, held.entries[-1].version)
            held.dataset = replace(held.dataset, journaled=held.entries[-1].version)
            held.entries.clear()
        if tables:
            events = pa.concat_tables(tables).sort_by([("entity", "ascending")])
            made = await self._put(held, events, seq)
            held.files[first:last] = [made]
            held.files.sort(key=lambda one: one.seq)

    async def _filled(self, file: DataFile) -> pa.Table:
        data = await self.buckets.get("primary").get(file.key)
        table = pq.read_table(pa.BufferReader(data))
        at = table.schema.get_field_index("version")
        filled = table["version"].fill_null(file.seq)
        return table.set_column(at, EVENT_SCHEMA.field("version"), filled)

    async def _change(
        self, held: Held, changes: RowChanges, operation: str, why: dict[str, str]
    ) -> int:
        version = self.version + 1  # and not before all of it is there
        base = held.dataset.rows_version
        said = Why(
            dataset_id=held.dataset.id,
            base_version=base,
            operation=operation,
            actor=why.pop("actor", "ann"),
            at_us=self.at_us(version),
            **why,
        )
        events = events_of(changes, said, SCHEMA, KEY, "datasets/s/d/rows.parquet", "ab")
        file = await self._put(held, events, version)
        self.version = version
        gone = match(held.rows, changes.keys, KEY).is_null()
        held.rows = pa.concat_tables([held.rows.filter(gone), changes.rows])
        held.past[version] = held.rows
        self._touch(held)
        held.files.append(file)
        return version

    def _touch(self, held: Held) -> None:
        held.dataset = replace(held.dataset, version=self.version, rows_version=self.version)

    def _entry(self, held: Held, operation: str, rows: int) -> None:
        when = to_datetime(self.at_us(self.version))
        held.entries.append(
            VersionEntry(self.version, when, operation, "loader", "r-0", rows, 0, 1, 0, rows, 1)
        )

    async def _put(self, held: Held, events: pa.Table, seq: int) -> DataFile:
        sink = io.BytesIO()
        pq.write_table(events, sink, write_page_checksum=True, row_group_size=1000)
        data = sink.getvalue()
        key = f"datasets/s/{held.dataset.id}/{self.ids.ulid()}.parquet"
        await self.buckets.get("primary").put(key, data)
        return DataFile(
            key=key,
            size_bytes=len(data),
            rows=events.num_rows,
            sha256=hashlib.sha256(data).hexdigest(),
            content=EVENTS,
            seq=seq,
            stats=file_stats(events, EVENT_COLUMNS) if self.with_stats else (),
        )

    # What the journal asks.

    async def journal(self, ctx: Context, request: JournalRequest) -> JournalResult:
        self.journal_calls += 1
        after = int(request.cursor or request.after)
        if request.cursor and self.turn is not None:
            await self.turn()
        held = self._named(request.name)
        files = [one for one in held.files if one.seq > after]
        entries = [one for one in held.entries if one.version > after]
        places = sorted({one.seq for one in files} | {one.version for one in entries})
        cursor = ""
        if len(places) > self.page:
            end = places[self.page - 1]
            files = [one for one in files if one.seq <= end]
            entries = [one for one in entries if one.version <= end]
            cursor = str(end)
        return JournalResult(
            held.dataset, tuple(files), tuple(entries), self.horizon, self.version, cursor
        )

    async def list(self, ctx: Context, request: c.ListRequest) -> c.ListResult:
        return c.ListResult(tuple(one.dataset for one in self.held.values()), self.version)

    async def status(self, ctx: Context, request: c.StatusRequest) -> c.CatalogStatus:
        self.status_calls += 1
        return c.CatalogStatus("s", self.version, 1, 1, "w", "", 1, 0, 0, 0, 0, self.horizon)

    async def snapshot(self, ctx: Context, request: c.SnapshotRequest) -> c.SnapshotResult:
        held = self._named(request.names[0])
        if request.as_of == c.AsOf() and held.dataset.status is DatasetStatus.DROPPED:
            raise LakehouseError(ErrorKind.NOT_FOUND, "it was dropped")
        version = request.as_of.version
        if request.as_of.time is not None:
            version = int((request.as_of.time.timestamp() * SECOND_US - START_US) // SECOND_US)
        if version is not None and version < self.horizon:
            raise LakehouseError(
                ErrorKind.NOT_FOUND, "version is below the horizon", horizon=self.horizon
            )
        then = self.version if version is None else version
        one = c.DatasetSnapshot(replace(held.dataset, version=then), (), (SCHEMA,))
        return c.SnapshotResult((one,), then)

    def _named(self, name: str) -> Held:
        if name not in self.held:
            raise LakehouseError(ErrorKind.NOT_FOUND, "there is no dataset of this name", name=name)
        return self.held[name]


class FakeReader:
    """The rows that the fake catalog remembers; objects by the real reader."""

    def __init__(self, catalog: FakeCatalog, real: Any) -> None:
        self._catalog = catalog
        self._real = real
        self.found = 0

    async def snapshot(
        self,
        ctx: Context,
        name: str,
        as_of: c.AsOf = c.AsOf(),  # noqa: B008
    ) -> tuple[c.DatasetSnapshot, int]:
        result = await self._catalog.snapshot(ctx, c.SnapshotRequest((name,), as_of))
        return result.datasets[0], result.version

    async def find(self, snapshot: c.DatasetSnapshot, keys: pa.Table) -> pa.Table:
        self.found += 1
        past = self._catalog.held[snapshot.dataset.name].past
        rows = past[max(one for one in past if one <= snapshot.dataset.version)]
        return rows.filter(match(rows, keys, KEY).is_valid())

    async def local(self, files: Sequence[DataFile]) -> list[str]:
        paths: list[str] = await self._real.local(files)
        return paths


@dataclass(slots=True)
class Desk:
    catalog: FakeCatalog
    parts: RowParts
    journal: Journal
    reader: FakeReader


@asynccontextmanager
async def desk(folder: Path, clock: Clock | None = None) -> AsyncIterator[Desk]:
    clock = clock or SystemClock()
    ids = SystemIds(SystemClock())
    buckets = Buckets([BucketSettings("primary", f"memory://{ids.ulid()}")], clock, ids)
    catalog = FakeCatalog(buckets, clock)
    parts = RowParts(IngestSettings(), cast(Any, catalog), buckets, clock, ids)
    folder.mkdir(parents=True, exist_ok=True)
    await parts.start(folder)
    reader = FakeReader(catalog, parts.reader)
    parts.reader = cast(Any, reader)
    parts.events = EventObjects(buckets, parts.reader, parts.jobs)
    try:
        yield Desk(catalog, parts, Journal(parts), reader)
    finally:
        parts.reader = reader._real
        await parts.close()
        await buckets.close()
