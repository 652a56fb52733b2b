"""The bytes of a large file on their way to the disk while more of them come: less is left to wait
for at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

from lakehouse.objectstore.local_tree import translated

_EVERY_BYTES: Final = 64 << 20


def sync_data(fd: int, key: str) -> None:
    """Have what was written so far on the disk. Blocking."""
    with translated(key):
        os.fdatasync(fd)


class EarlySync:
    """One sync at a time beside the writing, after every ``_EVERY_BYTES``.

    An error of it is told once by the system, and then forgotten: so it must be raised here, for
    the last sync would not know of it.
    """

    def __init__(self, sync: Callable[[], Awaitable[None]]) -> None:
        self._sync = sync
        self._running: asyncio.Future[None] | None = None
        self._unsynced = 0

    def wrote(self, size_bytes: int) -> None:
        """Note so many bytes more. Raises what a sync that has ended failed of."""
        self._unsynced += size_bytes
        if self._unsynced < _EVERY_BYTES or not (self._running is None or self._running.done()):
            return
        if self._running is not None:
            self._running.result()
        self._running = asyncio.ensure_future(self._sync())
        self._unsynced = 0

    async def settled(self) -> None:
        """Wait for the one under way; raises what it failed of."""
        if self._running is not None:
            await asyncio.shield(self._running)

    async def ended(self) -> None:
        """Wait for the one under way, whatever comes of it: its file may be closed then."""
        if self._running is None:
            return
        try:
            await asyncio.wait([self._running])
        except asyncio.CancelledError:
            await asyncio.wait([self._running])
            raise
        finally:
            if self._running.done() and not self._running.cancelled():
                self._running.exception()  # seen, whoever else looks at it
