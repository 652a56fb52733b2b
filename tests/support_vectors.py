"""A whole store with indexes over it in one process; vectors are made of words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from lakehouse.catalogd.service import open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts.catalog import CatalogService, GetRequest
from lakehouse.contracts.ingest import IngestMode, IngestOptions, IngestRequest
from lakehouse.contracts.query import QueryRequest, ResultFormat
from lakehouse.contracts.rows import ChangeRowsRequest, RowChange
from lakehouse.ingestd.journal.service import Journal
from lakehouse.ingestd.rows.service import Rows
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.queryd.service import Query
from lakehouse.queryd.settings import QuerySettings
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from lakehouse.vectord.settings import RetrievalSettings, VectorSettings

ADA = Context(Principal("ada", (Scope.OPERATOR,)), "request-1")
READER = Context(Principal("rea", (Scope.READ,)), "request-2")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@dataclass
class Shelf:
    """The roles as they are, near. Datasets are made of dictionaries, and read back as such."""

    folder: Path
    buckets: Buckets
    catalog: CatalogService
    ingest: Ingest
    rows: Rows
    journal: Journal
    query: Query
    clock: SystemClock
    ids: SystemIds
    stack: AsyncExitStack
    settings: VectorSettings = field(default_factory=VectorSettings)

    def parts(self, embedder: Any, **settings: Any) -> VectorParts:
        """What a vectors service of its own needs."""
        given = {"cache_dir": str(self.folder / "vectors"), "profiles_dir": "", **settings}
        return VectorParts(
            settings=VectorSettings(**given),
            catalog=self.catalog,
            ingest=self.ingest,
            rows=self.rows,
            query=self.query,
            journal=self.journal,
            buckets=self.buckets,
            embedder=embedder,
            clock=self.clock,
            ids=self.ids,
            jobs=ThreadPoolExecutor(2, "vectors"),
            retrievals=RetrievalSettings(spool_dir=str(self.folder / "retrievals")),
        )

    @asynccontextmanager
    async def vectors(
        self, embedder: HashingEmbedder | None = None, *, follow: bool = False, **settings: Any
    ) -> AsyncIterator[tuple[Vectors, Profiles, HashingEmbedder]]:
        """A vectors service over the store; without ``follow`` it builds only what is asked for."""
        embedder = embedder or HashingEmbedder()
        parts = self.parts(embedder, **settings)
        vectors = Vectors(parts)
        if follow:
            await vectors.start()
        try:
            yield vectors, Profiles(parts), embedder
        finally:
            await vectors.close()

    async def put(
        self, name: str, rows: list[dict[str, Any]], key: tuple[str, ...] = ("id",), **fields: Any
    ) -> int:
        """Make a dataset of ``rows``; the version of the store after it."""
        mode = IngestMode(fields.pop("mode", "create"))
        columns = fields.pop("columns", ())
        options = IngestOptions(content_type="application/json", columns=columns)
        request = IngestRequest(name, mode, key, options, **fields)
        report = await self.ingest.ingest(ADA, request, _once(orjson.dumps(rows)))
        return report.version

    async def upsert(self, name: str, *rows: dict[str, Any]) -> int:
        request = ChangeRowsRequest(name, RowChange.UPSERT, orjson.dumps(list(rows)))
        return (await self.rows.change(ADA, request)).version

    async def delete(self, name: str, *keys: Any) -> int:
        request = ChangeRowsRequest(name, RowChange.DELETE, orjson.dumps(list(keys)))
        return (await self.rows.change(ADA, request)).version

    async def sql(self, text: str, **fields: Any) -> list[dict[str, Any]]:
        stream = await self.query.run(ADA, QueryRequest(text, format=ResultFormat.ARROW, **fields))
        data = b"".join([chunk async for chunk in stream.chunks])
        table = pa.ipc.open_stream(pa.BufferReader(data)).read_all()
        found: list[dict[str, Any]] = table.to_pylist()
        return found

    async def dataset(self, name: str) -> Dataset:
        return (await self.catalog.get(ADA, GetRequest(name))).dataset


@asynccontextmanager
async def shelf(folder: Path, **told: Any) -> AsyncIterator[Shelf]:
    """An empty store with a bucket of its own, ``eu`` and ``eu_two`` in the EU, and all roles;
    ``told``: settings of the catalog."""
    clock = SystemClock()
    ids = SystemIds(clock)
    async with AsyncExitStack() as stack:
        settings = [
            BucketSettings("primary", f"file://{folder}/primary"),
            BucketSettings("eu", f"file://{folder}/eu", residency="eu"),
            BucketSettings("eu_two", f"file://{folder}/eu_two", residency="eu"),
        ]
        buckets = Buckets(settings, clock, ids)
        stack.push_async_callback(buckets.close)
        await init_store(buckets.raw("primary"), clock, ids)
        writer = WriterInfo(ids.ulid(), "")
        catalog = await open_catalog(CatalogSettings(**told), buckets, writer, clock, ids)
        stack.push_async_callback(catalog.close)
        spool = IngestSettings(spool_dir=str(folder / "spool"))
        ingest = Ingest(spool, catalog, buckets, clock, ids)
        await ingest.start()
        stack.push_async_callback(ingest.close)
        places = QuerySettings(
            cache_dir=str(folder / "cache"), spill_dir=str(folder / "spill"), workers_max=1
        )
        query = Query(places, catalog, buckets, clock, ids)
        await query.start()
        stack.push_async_callback(query.close)
        ingest.parts.query = query
        rows, journal = Rows(ingest.parts), Journal(ingest.parts)
        yield Shelf(folder, buckets, catalog, ingest, rows, journal, query, clock, ids, stack)
