"""Searches that were answered, made by hand, and a recorder of them over a store that may be away.

A store in memory, no index and no query worker: what is tested here is how records are kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lakehouse.contracts import retrievals as r
from lakehouse.contracts import vectors as c
from lakehouse.contracts.tags import Tag, TagsRequest, TagsResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.retrieval import Retrieval, SearchedIndex
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ByteRange, ObjectMeta, ObjectStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.recorder import Recorder
from lakehouse.vectord.records.service import Retrievals
from lakehouse.vectord.retrieval.searched import Searched
from lakehouse.vectord.settings import RetrievalSettings, VectorSettings

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
ANN = Context(Principal("ann", (Scope.WRITE,)), "request-1", workspace="lab", source="test")
INDEX = SearchedIndex(
    "books", 1, "default", "mini", "d1", "parquet", "hnsw", "books", "D", ("text",), "v", "V", 5, 7
)


def searched(text: str = "red fox", hits: int = 3, ctx: Context = ANN, **fields: Any) -> Searched:
    """A search that was answered just now; ``fields`` are of its request."""
    request = c.SearchRequest("books", (c.VectorQuery(text),), **fields)
    known = IDS.ulid()
    found = c.Hits(
        tuple(c.Hit(f"[{at}]", 1.0 / (at + 3), 0, 0, 9, f"text {at}", 5) for at in range(hits)),
        known,
    )
    result = c.SearchResult(
        (found,), "books", 1, "mini", "parquet", "hnsw", 5, False, 9, 1.5, 2.5, request.mode
    )
    return Searched(
        known, CLOCK.now_us(), ctx, request, 0, result, found, b"\x00\x00\x80?", (INDEX,)
    )


class Away(ForwardingStore):
    """A store that does not answer while ``away``; ``writes_away``: takes nothing."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.away = False
        self.writes_away = False

    def _check(self, write: bool = False) -> None:
        if self.away or (write and self.writes_away):
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the bucket does not answer")

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        self._check()
        return await self.inner.get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self._check(write=True)
        return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        self._check()
        return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        self._check(write=True)
        await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        self._check()
        return await self.inner.list(prefix, start_after=start_after, limit=limit)


class Catalog:
    """Knows its store, and no tags but those it was given."""

    def __init__(self, store_id: str) -> None:
        self.store_id = store_id
        self.named: tuple[Tag, ...] = ()

    async def status(self, ctx: Context, request: object) -> Any:
        return SimpleNamespace(store_id=self.store_id)

    async def tags(self, ctx: Context, request: TagsRequest) -> TagsResult:
        begins = request.prefix.casefold()
        named = tuple(tag for tag in self.named if tag.name.casefold().startswith(begins))
        return TagsResult(named, 9)


class Memory:
    """A store, and processes that remember in it."""

    def __init__(self, store: Away, catalog: Catalog, folder: Path) -> None:
        self.store = store
        self.catalog = catalog
        self.folder = folder
        self.opened: list[Recorder] = []

    def process(self, **settings: Any) -> tuple[Recorder, Retrievals]:
        """One of its own; not started yet."""
        given = {"spool_dir": str(self.folder), **settings}
        parts = VectorParts(
            settings=VectorSettings(),
            catalog=cast("Any", self.catalog),
            ingest=cast("Any", None),
            rows=cast("Any", None),
            query=cast("Any", None),
            journal=cast("Any", None),
            buckets=cast("Any", _Primary(self.store)),
            embedder=cast("Any", None),
            clock=CLOCK,
            ids=IDS,
            jobs=cast("Any", None),
            retrievals=RetrievalSettings(**given),
        )
        recorder = Recorder(parts)
        self.opened.append(recorder)
        return recorder, Retrievals(parts, recorder)


class _Primary:
    """Buckets with one of them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get(self, name: str) -> ObjectStore:
        return self._store

    raw = get

    def settings(self, name: str) -> Any:
        return SimpleNamespace(endpoint="", url=self._store.url)


@asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[Memory]:
    """A store of this test alone, and the end of all processes over it."""
    inner = MemoryStore(f"records-{IDS.ulid()}", CLOCK)
    identity = await init_store(inner, CLOCK, IDS)
    made = Memory(Away(inner), Catalog(identity.store_id), folder)
    try:
        yield made
    finally:
        made.store.away = made.store.writes_away = False
        for each in made.opened:
            await each.close()
        await inner.close()


async def got(service: Retrievals, known: str) -> Retrieval:
    return (await service.get(ANN, r.RetrievalRequest(known))).retrieval


async def listed(service: Retrievals, **fields: Any) -> r.ListRetrievalsResult:
    return await service.list(ANN, r.ListRetrievalsRequest(**fields))


def figures(recorder: Recorder) -> dict[str, Any]:
    return {figure.name: dict(values) for figure, values in recorder.figures()}
