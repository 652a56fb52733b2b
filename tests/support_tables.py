"""Tables made of objects by hand, in a memory bucket, and a reader of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.ingestd.rows.reading import TableReader
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.dataset import KEYS, ROWS, Card, DataFile, Dataset, DatasetStatus, stats_key
from lakehouse.model.schema import Column, Schema
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.rescue import KnownReads
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.keys import keys_schema
from lakehouse.table.rowhash import format_hash, hash_each, rows_hash
from lakehouse.table.stats import file_stats
from lakehouse.table.statsfile import encode_stats
from lakehouse.table.types import arrow_schema

_COUNT = itertools.count()
CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
NEVER = datetime(2026, 1, 1, tzinfo=UTC)


def schema_of(*columns: tuple[str, str]) -> Schema:
    return Schema(1, tuple(Column(at, name, kind) for at, (name, kind) in enumerate(columns, 1)))


@dataclass
class Table:
    """A dataset as its files make it; nothing here is a catalog's."""

    reader: TableReader
    buckets: Buckets
    schema: Schema
    key: tuple[str, ...]
    files: list[DataFile] = field(default_factory=list)
    older: list[Schema] = field(default_factory=list)
    seq: int = 0
    bucket: str = "primary"

    async def put(
        self, table: pa.Table, content: str, seq: int, rows_hash_text: str = "", group: int = 1000
    ) -> DataFile:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=group)
        data = sink.getvalue().to_pybytes()
        key = f"datasets/s/d/{len(self.files):06d}.parquet"
        store = self.buckets.get(self.bucket)
        await store.put(key, data)
        stats, beside = file_stats(table, self.schema), ""
        if self.bucket != "primary":
            encoded = encode_stats(stats)
            await store.put(stats_key(key), encoded)
            stats, beside = (), hashlib.sha256(encoded).hexdigest()
        file = DataFile(
            key,
            len(data),
            table.num_rows,
            hashlib.sha256(data).hexdigest(),
            schema_id=self.schema.id,
            rows_hash=rows_hash_text,
            stats=stats,
            content=content,
            seq=seq,
            bucket=self.bucket,
            stats_sha256=beside,
        )
        self.files.append(file)
        return file

    async def add(self, rows: Sequence[dict[str, Any]], group: int = 1000) -> None:
        """Rows as a commit of their own."""
        self.seq += 1
        table = pa.Table.from_pylist(list(rows), schema=arrow_schema(self.schema))
        text = format_hash(rows_hash(table, self.schema))
        await self.put(table, ROWS, self.seq, text, group)

    async def change(
        self, rows: Sequence[dict[str, Any]], hidden: Sequence[dict[str, Any]]
    ) -> None:
        """New rows and the keys of whole rows that are hidden, as one commit."""
        if rows:
            await self.add(rows)
        else:
            self.seq += 1
        if hidden:
            old = pa.Table.from_pylist(list(hidden), schema=arrow_schema(self.schema))
            hashes = hash_each(old.combine_chunks().to_batches()[0], self.schema)
            columns = [old.column(name) for name in self.key]
            ordinals = pa.array(range(len(hidden)), pa.int64())
            ops = pa.array(["update"] * len(hidden), pa.string())
            schema = keys_schema(self.schema, self.key)
            keys = pa.Table.from_arrays([*columns, ops, ordinals, hashes], schema=schema)
            await self.put(keys, KEYS, self.seq)

    def widen(self, schema: Schema) -> None:
        self.older.append(self.schema)
        self.schema = schema

    def snapshot(self) -> DatasetSnapshot:
        rows = sum(file.rows for file in self.files if file.content == ROWS)
        dataset = Dataset(
            "d",
            "t",
            fingerprint(self.schema.columns),
            self.schema,
            DatasetStatus.LIVE,
            Card(),
            NEVER,
            NEVER,
            self.seq,
            len(self.files),
            sum(file.size_bytes for file in self.files),
            rows,
            self.key,
            rows_version=self.seq,
        )
        return DatasetSnapshot(dataset, tuple(self.files), (*self.older, self.schema))

    def keys(self, rows: Sequence[dict[str, Any]]) -> pa.Table:
        whole = arrow_schema(self.schema)
        schema = pa.schema([whole.field(name) for name in self.key])
        return pa.Table.from_pylist(list(rows), schema=schema)

    async def find(self, *rows: dict[str, Any]) -> list[dict[str, Any]]:
        found = await self.reader.find(self.snapshot(), self.keys(rows))
        assert found.schema.equals(arrow_schema(self.schema))
        return sorted(found.to_pylist(), key=lambda row: tuple(row[name] for name in self.key))

    async def all(self) -> list[dict[str, Any]]:
        found = await self.reader.read(self.snapshot())
        return sorted(found.to_pylist(), key=lambda row: tuple(row[name] for name in self.key))


class Tables:
    """Makes tables that share a reader."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.jobs = ThreadPoolExecutor(2)
        names = ("primary", "other")
        buckets = [BucketSettings(name, f"memory://tables-{next(_COUNT)}") for name in names]
        self.buckets = Buckets(buckets, CLOCK, IDS)
        known = KnownReads(self.buckets, CLOCK, IDS)
        options = IngestSettings(spool_dir=str(folder), **settings)
        catalog: Catalog | None = None
        self.reader = TableReader(options, catalog, self.buckets, known, self.jobs)  # type: ignore[arg-type]
        self.reader.start(folder)

    def table(self, schema: Schema, *key: str) -> Table:
        return Table(self.reader, self.buckets, schema, key)

    async def close(self) -> None:
        self.reader.close()
        self.jobs.shutdown()
        await self.buckets.close()
