"""Who may ask the model next: queries before indexing, in their order, so many at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

from lakehouse_sidecar.errors import Code, SidecarError

QUERIES_IN_A_ROW: Final = 16


class Lane(StrEnum):
    QUERY = "query"
    INDEX = "index"


class Lanes:
    """``permits`` to the model and a bounded queue a lane. Belongs to one event loop.

    A request is admitted once and then takes a permit for each of its pieces, so a query waits for
    at most one piece of indexing. Indexing gets every ``QUERIES_IN_A_ROW``-th turn: it is slow
    under queries, but it goes on.
    """

    def __init__(self, permits: int, queue_max: int) -> None:
        self._free = permits
        self._queue_max = queue_max
        self._admitted = dict.fromkeys(Lane, 0)
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in Lane}
        self._queries = 0

    def depth(self) -> dict[str, int]:
        """Requests of each lane that are at work or wait."""
        return {lane.value: count for lane, count in self._admitted.items()}

    @asynccontextmanager
    async def admitted(self, lane: Lane) -> AsyncIterator[None]:
        """Raises ``EXHAUSTED`` when the lane is full."""
        if self._admitted[lane] >= self._queue_max:
            raise SidecarError(Code.EXHAUSTED, "the queue is full", lane=lane.value)
        self._admitted[lane] += 1
        try:
            yield
        finally:
            self._admitted[lane] -= 1

    @asynccontextmanager
    async def permit(self, lane: Lane) -> AsyncIterator[Callable[[], None]]:
        """A turn at the model; what it yields gives the turn back before its end."""
        await self._take(lane)
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._free += 1
                self._pass_on()

        try:
            yield give_back
        finally:
            give_back()

    async def _take(self, lane: Lane) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(turn)
        self._pass_on()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The turn came in the same moment: the next one has it.
                self._free += 1
                self._pass_on()
            else:
                self._waiting[lane].remove(turn)
            raise

    def _pass_on(self) -> None:
        while self._free and (lane := self._next()) is not None:
            turn = self._waiting[lane].popleft()
            self._free -= 1
            turn.set_result(None)

    def _next(self) -> Lane | None:
        queries, indexing = (bool(self._waiting[lane]) for lane in (Lane.QUERY, Lane.INDEX))
        if queries and not (indexing and self._queries >= QUERIES_IN_A_ROW):
            self._queries = self._queries + 1 if indexing else 0
            return Lane.QUERY
        self._queries = 0
        return Lane.INDEX if indexing else None
