"""Waits for a newer version of the store; all that wait share one look at the catalog."""

from __future__ import annotations

import asyncio
from typing import Final

from lakehouse.contracts.catalog import CatalogService, StatusRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context

__all__ = ["VersionWatch"]

PAUSE_SECONDS: Final = 0.2
PAUSE_SECONDS_MAX: Final = 1.0
_COST: Final = 400.0
"""A pause is at least so many times as long as the look took: a catalog far away is asked less."""


class VersionWatch:
    """Belongs to one event loop."""

    def __init__(self, catalog: CatalogService, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._version = 0
        self._looked = float("-inf")
        self._took = 0.0
        self._look = asyncio.Lock()

    async def beyond(self, ctx: Context, version: int) -> None:
        """Return once the store has a version later than ``version``.

        Raises ``timeout`` at the deadline of ``ctx``, and what the catalog raises.
        """
        while self._version <= version:
            async with self._look:
                if self._version > version:
                    return
                await self._pause(ctx)
                started = self._clock.monotonic()
                self._version = (await self._catalog.status(ctx, StatusRequest())).version
                self._looked = self._clock.monotonic()
                self._took = self._looked - started

    async def _pause(self, ctx: Context) -> None:
        pause = min(PAUSE_SECONDS_MAX, max(PAUSE_SECONDS, _COST * self._took))
        now = self._clock.monotonic()
        if ctx.deadline is not None and now >= ctx.deadline:
            raise LakehouseError(
                ErrorKind.TIMEOUT,
                "the deadline passed while the feed waited for more",
                hint="go on after the last version that was told",
            )
        due = max(0.0, self._looked + pause - now)
        await self._clock.sleep(due if ctx.deadline is None else min(due, ctx.deadline - now))
