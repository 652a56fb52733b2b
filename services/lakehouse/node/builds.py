"""Waits for builds that end when their node does.

Who waits for a build may wait for minutes; a graceful stop would give all its time to them, and
then cut them off. The build itself goes on with the node's next start.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from lakehouse.contracts import vectors as c
from lakehouse.model.identity import Context

_LOOK_SECONDS: Final = 0.01
_LOOK_SECONDS_MAX: Final = 0.25


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
        if not 0 < seconds <= c.WAIT_SECONDS_MAX:
            # Nothing to wait for, or refused before anything of it is done.
            return await self._build(ctx, request)
        begun = await self._build(ctx, replace(request, wait_seconds=0))
        if not begun.building:
            return begun
        # Begun it is; what follows only looks, and so may be given up at any time.
        waiting = asyncio.ensure_future(self._built(ctx, request.name))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            tasks = (waiting, ending)
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if ending.done():
                return begun
            return await self.get_index(ctx, c.IndexRequest(request.name))
        finally:
            for task in (waiting, ending):
                task.cancel()
            await asyncio.gather(waiting, ending, return_exceptions=True)

    async def _built(self, ctx: Context, name: str) -> c.IndexResult:
        pause = _LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            result = await self.get_index(ctx, c.IndexRequest(name))
            if not result.building:
                return result
            pause = min(pause * 2, _LOOK_SECONDS_MAX)

    def end(self) -> None:
        """Nobody waits any more."""
        self._ending.set()
