"""What the use cases around rows share: one of each a process, made and closed by ``Ingest``."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.query import QueryService
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.reading import TableReader
from lakehouse.ingestd.rows.writing import TableWriter
from lakehouse.ingestd.sessions import WriterSession
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.rescue import KnownReads

__all__ = ["RowParts"]

_THREADS: Final = 4


class RowParts:
    """Belongs to one event loop. ``start`` before the first use, ``close`` at the end.

    Attributes:
        sessions: the writing session that objects are put under.
        reader, writer: of tables and of their objects.
        query: for predicates; None in a process that has no query service and no peer for it.
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
        self.reader = TableReader(
            settings, catalog, buckets, known or KnownReads(buckets, clock, ids)
        )
        self.writer = TableWriter(settings, buckets, ids)
        self.query: QueryService | None = None
        self._jobs: ThreadPoolExecutor | None = None

    @property
    def jobs(self) -> ThreadPoolExecutor:
        if self._jobs is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "ingest has not been started")
        return self._jobs

    async def start(self, folder: Path) -> None:
        """``folder``: this process's own on a local disk; what is put in it goes with it."""
        self._jobs = ThreadPoolExecutor(_THREADS, "rows")
        self.reader.start(folder, self._jobs)
        await self.sessions.start()

    async def close(self) -> None:
        """End the session, the threads and what is held locally. Idempotent."""
        await self.sessions.close()
        if self._jobs is not None:
            await asyncio.to_thread(self._jobs.shutdown, wait=True, cancel_futures=True)
            self._jobs = None
        self.reader.close()
