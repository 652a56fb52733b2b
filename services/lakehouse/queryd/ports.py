"""What queryd needs from an engine, and from the buckets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import pyarrow as pa

from lakehouse.model.identity import Context
from lakehouse.objectstore.rescue import Stores
from lakehouse.queryd.plan import TableScan


class FoundStores(Stores, Protocol):
    """Buckets by name, and a look for those that came since."""

    async def find(self, ctx: Context, names: Iterable[str]) -> None:
        """Open those of ``names`` that were added meanwhile; the rest stays unknown."""
        ...


class SqlEngine(Protocol):
    """One engine in a worker process; one query at a time.

    It reads exactly the files of the scans it is given, runs one read-only statement, and keeps
    nothing of one query that the next could see.
    """

    @property
    def prepared(self) -> bool:
        """Whether ``prepare`` has nothing to do."""
        ...

    def prepare(self) -> None:
        """Do now, between two queries, what the next one would wait for."""
        ...

    def execute(
        self, sql: str, tables: Sequence[TableScan], memory_bytes: int
    ) -> pa.RecordBatchReader:
        """Start ``sql`` over ``tables``; batches are made as they are read.

        Raises LakehouseError: ``invalid`` (types, division by zero, overflow, a failed cast),
        ``exhausted`` (memory, spill), ``forbidden`` (the engine's own read-only check). Reading
        the batches may raise foreign exceptions: hand them to ``translate``.
        """
        ...

    def translate(self, error: Exception) -> Exception:
        """A foreign exception of this engine as a LakehouseError, others as they are."""
        ...
