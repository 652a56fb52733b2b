"""A store whose process dies at a chosen operation, and the roles of a process upon it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.catalogd.tokens import Tokens
from lakehouse.ingestd.journal.service import Journal
from lakehouse.ingestd.rows.service import Rows
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ByteRange, ObjectMeta, ObjectStore
from lakehouse.objectstore.wrapping import ForwardingStore

T = TypeVar("T")

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
SETTINGS = CatalogSettings(
    history_seconds=0,
    ledger=LedgerSettings(fold_records=3, records_kept=1, reader_retention_seconds=0),
)


@dataclass(slots=True)
class Doom:
    """The process dies at its write number ``at`` (None: never), before or ``after`` that took
    effect; from then on nothing it does reaches the store, and nothing comes back. To die at a read
    is to die before the next write, but for what the dead one knew."""

    at: int | None = None
    after: bool = False
    writes: int = 0
    died: asyncio.Event = field(default_factory=asyncio.Event)


class DoomedStore(ForwardingStore):
    """``inner`` as long as the process lives."""

    def __init__(self, inner: ObjectStore, doom: Doom) -> None:
        super().__init__(inner)
        self._doom = doom

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self._read(lambda: self.inner.get(key, byte_range))

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self._write(lambda: self.inner.put(key, data, if_absent=if_absent))

    async def head(self, key: str) -> ObjectMeta:
        return await self._read(lambda: self.inner.head(key))

    async def delete(self, keys: Sequence[str]) -> None:
        # Each by itself: a process can die between two of them.
        for key in keys:
            await self._write(lambda key=key: self.inner.delete([key]))  # type: ignore[misc]

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self._read(
            lambda: self.inner.list(prefix, start_after=start_after, limit=limit)
        )

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        yield await self.get(key)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        return await self.put(key, b"".join([chunk async for chunk in chunks]))

    async def _read(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self._doom.died.is_set():
            await asyncio.Event().wait()
        return await operation()

    async def _write(self, operation: Callable[[], Awaitable[T]]) -> T:
        doom = self._doom
        if doom.died.is_set():
            await asyncio.Event().wait()
        last, doom.writes = doom.writes == doom.at, doom.writes + 1
        if last:
            doom.died.set()
            if doom.after:
                await operation()
            await asyncio.Event().wait()
        return await operation()


class DoomedBuckets(Buckets):
    """One bucket, that of a process which may die."""

    def __init__(self, store: ObjectStore, doom: Doom) -> None:
        super().__init__([BucketSettings("primary", store.url)], CLOCK, IDS)
        self._only = MeteredStore(DoomedStore(store, doom))

    def _meter(self, name: str) -> MeteredStore:
        self.settings(name)
        return self._only


@dataclass(slots=True)
class Roles:
    """What one process runs."""

    memory: MemoryStore
    buckets: DoomedBuckets
    catalog: Catalog
    tokens: Tokens
    ingest: Ingest
    rows: Rows
    journal: Journal

    async def close(self) -> None:
        await self.ingest.close()
        await self.catalog.close()


async def start(
    memory: MemoryStore, doom: Doom, spool: Path, graves: list[Ingest] | None = None
) -> Roles:
    """Everything started, in the order of a node; ``graves`` gets what must be buried."""
    buckets = DoomedBuckets(memory, doom)
    writer = WriterInfo(IDS.ulid(), "")
    catalog = await open_catalog(SETTINGS, buckets, writer, CLOCK, IDS)
    settings = IngestSettings(spool_dir=str(spool / IDS.ulid()), threads=1, concurrent_max=1)
    ingest = Ingest(settings, catalog, buckets, CLOCK, IDS)
    if graves is not None:
        graves.append(ingest)
    await ingest.start()
    rows, journal = Rows(ingest.parts), Journal(ingest.parts)
    return Roles(memory, buckets, catalog, Tokens(catalog, CLOCK, IDS), ingest, rows, journal)


async def live(doom: Doom, life: Awaitable[None]) -> bool:
    """Run ``life`` until it ends or its process dies, and then nothing of it any more; True if it
    got to its end."""
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(life)
    death = asyncio.ensure_future(doom.died.wait())
    await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
    if doom.died.is_set() and doom.after:
        # The operation that it dies after takes its effect, whoever waits for it.
        for _ in range(3):
            await asyncio.sleep(0)
    if not doom.died.is_set():
        death.cancel()
        await task
        return True
    while left := [each for each in asyncio.all_tasks() - before if not each.done()]:
        for each in left:
            each.cancel()
        await asyncio.wait(left, timeout=1)
    if not task.cancelled():
        task.exception()
    return False


def bury(ingest: Ingest) -> None:
    """Free what a dead process would have left to the operating system: threads and files."""
    for pool in (ingest._jobs, ingest._parsers, ingest._disk, ingest.parts.jobs):
        if isinstance(pool, ThreadPoolExecutor):
            pool.shutdown(wait=True, cancel_futures=True)
    ingest.parts.reader.close()
    ingest._spool.close()
