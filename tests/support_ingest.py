"""An ingest service over a real catalog and a memory bucket, and ways to look at what it did."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import (
    IngestMode,
    IngestOptions,
    IngestReport,
    IngestRequest,
)
from lakehouse.errors import LakehouseError
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.objectstore.buckets import Buckets, BucketSettings, open_adapter
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ObjectStore

_COUNT = itertools.count()
CTX = Context(principal=Principal("ada", (Scope.OPERATOR,)), request_id="r-1")


async def chunks(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@dataclass
class Lake:
    """``put`` ingests bytes; ``rows`` reads the live rows back in file order."""

    ingest: Ingest
    catalog: Catalog
    buckets: Buckets
    spool: Path

    async def put(
        self, data: bytes, name: str = "t", mode: str = "auto", **options: Any
    ) -> IngestReport:
        request = IngestRequest(name, IngestMode(mode))
        known = {"key", "card", "dry_run", "object_key", "object_bucket", "bucket", "reason"}
        fields = known & options.keys()
        request = replace(request, **{field: options.pop(field) for field in fields})
        ctx = options.pop("ctx", CTX)
        request = replace(request, options=IngestOptions(**options))
        return await self.ingest.ingest(ctx, request, chunks(data))

    async def refused(self, data: bytes, name: str = "t", **how: Any) -> LakehouseError:
        try:
            report = await self.put(data, name, **how)
        except LakehouseError as error:
            return error
        raise AssertionError(f"it was accepted: {report}")

    async def table(self, name: str = "t") -> pa.Table:
        snapshot = await self.catalog.snapshot(CTX, c.SnapshotRequest((name,)))
        found = snapshot.datasets[0]
        tables = []
        for file in found.files:
            data = await self.buckets.get(file.bucket).get(file.key)
            assert len(data) == file.size_bytes
            table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
            assert table.num_rows == file.rows
            tables.append(table)
        if not tables:
            return pa.table({column.name: [] for column in found.dataset.schema.columns})
        return pa.concat_tables(tables)

    async def rows(self, name: str = "t") -> list[dict[str, Any]]:
        return (await self.table(name)).to_pylist()

    async def types(self, name: str = "t") -> dict[str, str]:
        dataset = (await self.catalog.get(CTX, c.GetRequest(name))).dataset
        return {column.name: column.type for column in dataset.schema.columns}

    async def close(self) -> None:
        await self.ingest.close()
        assert not list(self.spool.iterdir())
        await self.catalog.close()
        await self.buckets.close()


class WrappedBuckets(Buckets):
    """Buckets whose adapters are wrapped, below meter and retries."""

    def __init__(self, bucket: BucketSettings, wrap: Callable[[ObjectStore], ObjectStore]) -> None:
        clock = SystemClock()
        super().__init__([bucket], clock, SystemIds(clock))
        self._meters[bucket.name] = MeteredStore(wrap(open_adapter(bucket, clock)))


async def build_lake(
    spool: Path,
    bucket: BucketSettings | None = None,
    wrap: Callable[[ObjectStore], ObjectStore] = lambda store: store,
    **settings: Any,
) -> Lake:
    """A lake on a fresh bucket; ``settings`` override those of ingest."""
    clock = SystemClock()
    ids = SystemIds(clock)
    bucket = bucket or BucketSettings("primary", f"memory://ingest-{next(_COUNT)}")
    buckets = WrappedBuckets(bucket, wrap)
    await init_store(buckets.get("primary"), clock, ids)
    writer = WriterInfo("tests", "")
    catalog = await open_catalog(CatalogSettings(), buckets, writer, clock, ids)
    options = IngestSettings(spool_dir=str(spool), **settings)
    ingest = Ingest(options, catalog, buckets, clock, ids)
    await ingest.start()
    return Lake(ingest, catalog, buckets, spool)


MakeLake = Callable[..., Awaitable[Lake]]
