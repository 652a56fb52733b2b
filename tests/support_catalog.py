"""Catalogs on memory buckets, and what tests put into them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts import catalog as c
from lakehouse.kit.clock import Clock, SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.changes import AddFiles, Change, CreateDataset
from lakehouse.model.dataset import Card, ColumnStats, DataFile
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.model.schema import Column, Schema
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.port import ObjectStore
from lakehouse.table.fingerprint import fingerprint

COLUMNS = (Column(1, "id", "int64"), Column(2, "name", "string"))
CARD = Card(owner="ann", description="people we know")
CTX = Context(principal=ANONYMOUS_OPERATOR, request_id="r-1")


def parquet_bytes(rows: int = 3, start: int = 0, **columns: list[object]) -> bytes:
    """A small Parquet file; by default of ``COLUMNS``."""
    data: dict[str, list[object]] = {
        "id": list(range(start, start + rows)),
        "name": [f"n{at}" for at in range(start, start + rows)],
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns or data), sink)
    return sink.getvalue()


def key_ctx(key: str) -> Context:
    return replace(CTX, idempotency_key=key)


@dataclass(slots=True)
class House:
    """One store, and the catalogs opened on it."""

    buckets: Buckets
    clock: Clock
    ids: SystemIds
    settings: CatalogSettings
    opened: list[Catalog] = field(default_factory=list)

    @property
    def store(self) -> ObjectStore:
        return self.buckets.get("primary")

    async def open(self, **changes: object) -> Catalog:
        settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        writer = WriterInfo(self.ids.ulid(), "")
        catalog = await open_catalog(settings, self.buckets, writer, self.clock, self.ids)
        self.opened.append(catalog)
        return catalog

    async def close(self) -> None:
        for catalog in self.opened:
            await catalog.close()
        await self.buckets.close()


async def build_house(clock: Clock | None = None, extra: tuple[str, ...] = ()) -> House:
    clock = clock or SystemClock()
    ids = SystemIds(clock)
    tag = SystemIds(SystemClock()).ulid() + SystemIds(SystemClock()).token(4)
    names = ("primary", *extra)
    buckets = Buckets([BucketSettings(n, f"memory://{tag}-{n}") for n in names], clock, ids)
    await init_store(buckets.get("primary"), clock, ids)
    return House(buckets, clock, ids, CatalogSettings())


def file_of(session_id: str, dataset_id: str, name: str, rows: int = 5, low: int = 0) -> DataFile:
    return DataFile(
        key=f"datasets/{session_id}/{dataset_id}/{name}.parquet",
        size_bytes=100 + rows,
        rows=rows,
        sha256=f"{abs(hash(name)) % 16**12:064x}",
        rows_hash="rh1:0123456789abcdef",
        stats=(ColumnStats(1, 0, str(low), str(low + rows)), ColumnStats(2, None, None, None)),
    )


def create(dataset_id: str, name: str, *files: DataFile, digest: str = "") -> tuple[Change, ...]:
    made = CreateDataset(dataset_id, name, fingerprint(COLUMNS), Schema(1, COLUMNS), CARD)
    return (made, AddFiles(dataset_id, files, content_digest=digest)) if files else (made,)


async def commit(catalog: Catalog, *changes: Change, needs: tuple[object, ...] = ()) -> int:
    request = c.CommitRequest(changes, needs)  # type: ignore[arg-type]
    return (await catalog.commit(CTX, request)).version


async def put_parquet(house: House, key: str, data: bytes | None = None) -> c.ForeignObject:
    await house.store.put(key, parquet_bytes() if data is None else data)
    return c.ForeignObject(key)
