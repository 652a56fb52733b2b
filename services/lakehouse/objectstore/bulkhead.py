"""Bounded places for attempts at one bucket, so that a slow one holds up its own callers only."""

from __future__ import annotations

import asyncio
from collections import deque


class NoPlaceError(Exception):
    """``full``: nobody else may wait. Otherwise the bucket stopped answering meanwhile."""

    def __init__(self, *, full: bool) -> None:
        super().__init__()
        self.full = full


class Bulkhead:
    """First come, first served; one loop uses it.

    Args:
        places: attempts at once, at least 1.
        waiting_max: that may wait for a place.

    Attributes:
        in_flight: places that are taken, also by those who need not wait (``take``).
    """

    __slots__ = ("_places", "_queue", "_waiting_max", "in_flight")

    def __init__(self, places: int, waiting_max: int) -> None:
        self._places = max(1, places)
        self._waiting_max = waiting_max
        self._queue: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    @property
    def free(self) -> bool:
        """Whether ``take`` keeps to the bound and passes nobody by."""
        return self.in_flight < self._places and not self._queue

    def take(self) -> None:
        """Take a place, also beyond the bound."""
        self.in_flight += 1

    async def wait(self) -> None:
        """Wait for a place and take it. Raises ``NoPlaceError``."""
        if len(self._queue) >= self._waiting_max:
            raise NoPlaceError(full=True)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                # Handed over in the moment in which its owner went away.
                self.leave()
            elif place in self._queue:
                self._queue.remove(place)
            raise

    def leave(self) -> None:
        """Hand the place to who waits longest, if anybody does and there are not too many."""
        self.in_flight -= 1
        while self._queue and self.in_flight < self._places:
            place = self._queue.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

    def dismiss(self) -> None:
        """Nobody is to wait any more: ``NoPlaceError`` for all who do."""
        queue, self._queue = self._queue, deque()
        for place in queue:
            if not place.done():
                place.set_exception(NoPlaceError(full=False))
