"""A catalog over Parquet files in a local bucket, for tests of the query service alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.contracts.catalog import (
    AsOf,
    DatasetResult,
    DatasetSnapshot,
    FilesResult,
    GetRequest,
    ListRequest,
    ListResult,
    PageRequest,
    SnapshotRequest,
    SnapshotResult,
    VersionsResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.dataset import ROWS, Card, DataFile, Dataset, DatasetStatus, VersionEntry
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.queryd.service import Query
from lakehouse.queryd.settings import QuerySettings
from lakehouse.table.stats import file_stats
from lakehouse.table.types import arrow_schema, schema_from_arrow

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
CTX = Context(principal=ANONYMOUS_OPERATOR, request_id="test")


class FakeCatalog:
    """Datasets by name; every change is a version, each a day after the one before; old versions
    stay readable, also by ``tags``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.version = 0
        self.states: list[dict[str, DatasetSnapshot]] = [{}]
        self.snapshots = 0
        self.tags: dict[str, int] = {}

    def put(
        self, name: str, *tables: pa.Table, append: bool = False, schema: Schema | None = None
    ) -> DatasetSnapshot:
        """Write each table as one file; a new version of the store."""
        state = dict(self.states[-1])
        old = state.get(name_key(name))
        self.version += 1
        schema = schema or schema_from_arrow(tables[0].schema)
        if old is not None and append:
            schema = replace(schema, id=old.dataset.schema.id + 1)
        files = tuple(self._write(table, schema, index) for index, table in enumerate(tables))
        schemas: tuple[Schema, ...] = (schema,)
        if old is not None and append:
            files = (*old.files, *files)
            schemas = (*old.schemas, schema)
        dataset = Dataset(
            id=f"ds-{name_key(name)}",
            name=name,
            fingerprint="",
            schema=schema,
            status=DatasetStatus.LIVE,
            card=Card(),
            created_at=WHEN,
            updated_at=WHEN,
            version=self.version,
            files=len(files),
            size_bytes=sum(file.size_bytes for file in files),
            row_count=sum(file.rows for file in files),
        )
        snapshot = DatasetSnapshot(dataset, files, schemas)
        state[name_key(name)] = snapshot
        self.states.append(state)
        return snapshot

    def change(self, name: str, *files: tuple[str, pa.Table], schema: Schema | None = None) -> int:
        """A row change: files by content, at one new version, which it returns."""
        self.version += 1
        state = dict(self.states[-1])
        old = state[name_key(name)]
        schema = schema or old.dataset.schema
        more = tuple(
            self._write(table, schema, index, content)
            for index, (content, table) in enumerate(files)
        )
        schemas = old.schemas if schema in old.schemas else (*old.schemas, schema)
        dataset = replace(old.dataset, version=self.version, schema=schema)
        state[name_key(name)] = DatasetSnapshot(dataset, (*old.files, *more), schemas)
        self.states.append(state)
        return self.version

    def read(self, file: DataFile) -> pa.Table:
        """What a file holds."""
        return pq.ParquetFile(self.root / file.key).read()

    def rewrite(
        self, name: str, gone: list[DataFile], files: list[tuple[str, pa.Table]], seq: int
    ) -> None:
        """The same rows in other files, which stand for ``seq``."""
        kept = [file for file in self.states[-1][name_key(name)].files if file not in gone]
        self.change(name, *files)
        made = self.states[-1][name_key(name)]
        new = made.files[len(made.files) - len(files) :]
        whole = (*kept, *(replace(file, seq=seq) for file in new))
        self.states[-1][name_key(name)] = replace(made, files=whole)

    def declare(self, name: str, *key: str) -> None:
        """The primary key of a dataset."""
        old = self.states[-1][name_key(name)]
        dataset = replace(old.dataset, primary_key=key)
        self.states[-1][name_key(name)] = replace(old, dataset=dataset)

    def _write(self, table: pa.Table, schema: Schema, index: int, content: str = ROWS) -> DataFile:
        there = set(table.column_names)
        names = [column.name for column in schema.columns if column.name in there]
        known = arrow_schema(schema)
        written = pa.schema([known.field(name) for name in names])
        rows = table.select(names).cast(written)
        key = f"datasets/s/{self.version}-{index}.parquet"
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table if content != ROWS else rows, path)
        data = path.read_bytes()
        return DataFile(
            key,
            len(data),
            rows.num_rows,
            hashlib.sha256(data).hexdigest(),
            schema_id=schema.id,
            stats=file_stats(rows, schema),
            content=content,
            seq=self.version,
        )

    def _state(self, as_of: AsOf) -> tuple[dict[str, DatasetSnapshot], int]:
        version = self.version if as_of.version is None else as_of.version
        if as_of.tag:
            version = self.tags[as_of.tag]
        if as_of.time is not None:
            version = (as_of.time - WHEN).days
        if not 0 <= version <= self.version:
            raise LakehouseError(
                ErrorKind.NOT_FOUND, "the store has no such version yet", as_of=version
            )
        return self.states[version], version

    async def snapshot(self, ctx: Context, request: SnapshotRequest) -> SnapshotResult:
        self.snapshots += 1
        pins = {name_key(pin.name): pin.as_of for pin in request.pins}
        _, version = self._state(request.as_of)
        found = []
        for name in request.names:
            state, _ = self._state(pins.get(name_key(name), request.as_of))
            if name_key(name) not in state:
                raise LakehouseError(ErrorKind.NOT_FOUND, "no such dataset", dataset=name)
            found.append(state[name_key(name)])
        return SnapshotResult(tuple(found), version)

    async def list(self, ctx: Context, request: ListRequest) -> ListResult:
        state, version = self._state(AsOf())
        names = sorted(name for name in state if name > request.cursor)
        page = names[: request.limit]
        cursor = page[-1] if len(page) < len(names) else ""
        return ListResult(tuple(state[name].dataset for name in page), version, cursor)

    async def get(self, ctx: Context, request: GetRequest) -> DatasetResult:
        state, version = self._state(request.as_of)
        if name_key(request.name) not in state:
            raise LakehouseError(ErrorKind.NOT_FOUND, "no such dataset", dataset=request.name)
        return DatasetResult(state[name_key(request.name)].dataset, version)

    async def files(self, ctx: Context, request: PageRequest) -> FilesResult:
        state, version = self._state(request.as_of)
        return FilesResult(state[name_key(request.name)].files, version)

    async def versions(self, ctx: Context, request: PageRequest) -> VersionsResult:
        state, version = self._state(request.as_of)
        dataset = state[name_key(request.name)].dataset
        entry = VersionEntry(
            dataset.version, WHEN, "create", "test", "", 0, 0, 0, 0, dataset.row_count, 1
        )
        return VersionsResult((entry,), version)


def columns(*pairs: tuple[int, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*pair) for pair in pairs)


def make_query(
    root: Path, catalog: FakeCatalog, url: str = "", **settings: object
) -> tuple[Query, Buckets]:
    """A query service over ``catalog``; its bucket is the catalog's folder unless ``url``."""
    clock = SystemClock()
    ids = SystemIds(clock)
    bucket = BucketSettings("primary", url or f"file://{catalog.root}")
    buckets = Buckets((bucket,), clock, ids)
    values: dict[str, object] = {
        "cache_dir": str(root / "cache"),
        "spill_dir": str(root / "spill"),
        "workers_min": 1,
        "workers_max": 1,
        "threads": 1,
        "memory_bytes_max": 512 << 20,
    }
    values.update(settings)
    chosen = QuerySettings(**values)  # type: ignore[arg-type]
    return Query(chosen, catalog, buckets, clock, ids), buckets  # type: ignore[arg-type]
