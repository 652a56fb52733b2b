"""Waits for builds that end when their node does.

Who waits for a build may wait for minutes; a graceful stop would give all its time to them, and
then cut them off. The build itself goes on with the node's next start.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from lakehouse.contracts import vectors as c
from lakehouse.model.identity import Context


class EndingBuilds:
    """``vectors``, with waits for builds that ``end`` ends; belongs to one event loop."""

    def __init__(self, vectors: c.VectorsService) -> None:
        self._build = vectors.build
        self._ending = asyncio.Event()
        self.create_index = vectors.create_index
        self.get_index = vectors.get_index
        self.list_indexes = vectors.list_indexes
        self.cut_over = vectors.cut_over
        self.delete_index = vectors.delete_index
        self.search = vectors.search
        self.put_vectors = vectors.put_vectors
        self.delete_vectors = vectors.delete_vectors
        self.get_vectors = vectors.get_vectors
        self.compare = vectors.compare

    async def build(self, ctx: Context, request: c.BuildRequest) -> c.IndexResult:
        """As the contract says; answered earlier, by what is done then, where the node ends."""
        seconds = request.wait_seconds
        begun = await self._build(ctx, request if seconds < 0 else replace(request, wait_seconds=0))
        if seconds <= 0 or not begun.building:
            return begun
        # Begun it is; what follows commits nothing, and so may be given up at any time.
        joined = c.BuildRequest(request.name, wait_seconds=seconds)
        waiting = asyncio.ensure_future(self._build(ctx, joined))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else begun
        finally:
            for task in (waiting, ending):
                task.cancel()
            await asyncio.gather(waiting, ending, return_exceptions=True)

    def end(self) -> None:
        """Nobody waits any more."""
        self._ending.set()
