"""What the use cases around rows share: one of each a process, made and closed by ``Ingest``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.query import QueryService
from lakehouse.ingestd.journal.objects import EventObjects
from lakehouse.ingestd.rows.reading import TableReader
from lakehouse.ingestd.rows.turns import Turns
from lakehouse.ingestd.rows.writing import TableWriter
from lakehouse.ingestd.sessions import WriterSession
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.rescue import KnownReads

__all__ = ["RowParts"]

_THREADS: Final = 4


def _nobody_compacts(name: str) -> None:
    """Until a compactor takes its place."""


class RowParts:
    """Belongs to one event loop. ``start`` before the first use, ``close`` at the end.

    Attributes:
        sessions: the writing session that objects are put under.
        known: reads of whole objects, with what rescues them.
        reader, writer: of tables and of their objects.
        events: the journal's objects, as far as they are held in memory.
        query: for predicates; None in a process that has no query service and no peer for it.
        turns: writers of one dataset in this process take turns, so that none redoes its work.
        compaction_wanted: told the name of a dataset that has many row changes; must not block.
        folder: local scratch of this process, once started.
        closing: what use cases have under way; each is ended before all else is.
        jobs: threads for whatever blocks or takes longer than a millisecond.
    """

    def __init__(
        self,
        settings: IngestSettings,
        catalog: CatalogService,
        buckets: Buckets,
        clock: Clock,
        ids: Ids,
        known: KnownReads | None = None,
    ) -> None:
        self.settings = settings
        self.catalog = catalog
        self.buckets = buckets
        self.clock = clock
        self.ids = ids
        self.sessions = WriterSession(settings, catalog, clock, ids)
        self.jobs = ThreadPoolExecutor(_THREADS, "rows")
        self.known = known = known or KnownReads(buckets, clock, ids)
        self.reader = TableReader(settings, catalog, buckets, known, self.jobs)
        self.writer = TableWriter(settings, buckets, ids, self.jobs)
        self.events = EventObjects(buckets, self.reader, self.jobs)
        self.query: QueryService | None = None
        self.turns = Turns()
        self.compaction_wanted: Callable[[str], None] = _nobody_compacts
        self.folder: Path | None = None
        self.closing: list[Callable[[], Awaitable[None]]] = []

    async def start(self, folder: Path) -> None:
        """``folder``: this process's own on a local disk; what is put in it goes with it."""
        self.folder = folder
        self.reader.start(folder)
        await self.sessions.start()

    async def close(self) -> None:
        """End the session, the threads and what is held locally. Idempotent."""
        for close in self.closing:
            await close()
        await self.sessions.close()
        await asyncio.to_thread(self.jobs.shutdown, wait=True, cancel_futures=True)
        self.reader.close()
