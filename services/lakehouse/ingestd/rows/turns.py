"""Who changes the rows of a dataset next, in this process: one after the other, first come first.

What two processes do is settled by the commit alone; turns only save work that would be redone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """A lock a dataset, kept only while somebody has it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._present: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait for the turn at the dataset with this ``name_key``; whoever is cancelled while
        waiting leaves no trace."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._present[name] += 1
        try:
            async with lock:
                yield
        finally:
            self._present[name] -= 1
            if not self._present[name]:
                del self._present[name], self._locks[name]
