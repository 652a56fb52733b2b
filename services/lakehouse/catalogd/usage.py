"""Which buckets the datasets are in."""

from __future__ import annotations

from lakehouse.catalogd.core import Core
from lakehouse.contracts.catalog import BucketUse, UsageRequest, UsageResult
from lakehouse.model.identity import Context

__all__ = ["Usage"]


class Usage:
    """``CatalogService.usage``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def usage(self, ctx: Context, request: UsageRequest) -> UsageResult:
        """From counts that are kept, whatever the number of files."""
        state = await self._core.read(ctx)
        found = [
            BucketUse(bucket, residency, count)
            for bucket, counts in state.placed.items()
            for residency, count in counts.items()
        ]
        found.sort(key=lambda use: (use.bucket, use.residency))
        return UsageResult(tuple(found), state.version)
