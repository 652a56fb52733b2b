"""Rows of a dataset of vectors, read through SQL at one version of the store."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion
from lakehouse.vectord.book import KEY, ROW_SCHEMA
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import RangeReader, Scan, pieces_of, quoted

__all__ = ["VectorReader"]

VECTOR: Final = "vector"


class VectorReader:
    """Reads what an image is made of. ``reads``: how often it was asked to."""

    def __init__(self, parts: VectorParts) -> None:
        self._ranges = RangeReader(parts)
        self.reads = 0

    async def rows(
        self, ctx: Context, version: IndexVersion, at: int, *, vectors: bool
    ) -> pa.Table:
        """All rows at version ``at`` of the store, in no order: ``ROW_SCHEMA``, and their vectors
        if they are wanted."""
        names = [*ROW_SCHEMA.names, *([VECTOR] if vectors else [])]
        return await self._select(ctx, version, at, names)

    async def vectors(
        self, ctx: Context, version: IndexVersion, at: int, since: int | None
    ) -> pa.Table:
        """Key and vector of the rows whose own version is ``since`` or later."""
        return await self._select(ctx, version, at, [*KEY, VECTOR], since)

    async def _select(
        self,
        ctx: Context,
        version: IndexVersion,
        at: int,
        names: list[str],
        since: int | None = None,
    ) -> pa.Table:
        self.reads += 1
        columns = ", ".join(quoted(name) for name in names)
        condition = "" if since is None else f'"version" >= {int(since)}'
        scan = Scan(version.vectors_dataset, columns, KEY, condition)
        vectors = version.chunks * version.dimensions * 4 if VECTOR in names else 0
        pieces = pieces_of(version.chunks, vectors) if since is None else 1
        return await self._ranges.whole(ctx, scan, at, pieces)
