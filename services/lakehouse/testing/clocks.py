"""A clock that moves when told, and identifiers that repeat: for tests and simulations."""

from __future__ import annotations

import asyncio
import heapq
import random

from lakehouse.kit.ids import encode_ulid

_START_US = 1_790_000_000_000_000  # 2026-09-21, any fixed time will do


class ManualClock:
    """Stands still until ``advance``; sleepers wake in order of their time.

    Args:
        now_us: wall time at the start; monotonic time starts at 0.
    """

    def __init__(self, now_us: int = _START_US) -> None:
        self._now_us = now_us
        self._monotonic_us = 0
        self._order = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._monotonic_us / 1e6

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        wake_us = self._monotonic_us + max(1, round(seconds * 1e6))
        heapq.heappush(self._sleepers, (wake_us, self._order, waiter))
        await waiter

    @property
    def sleepers(self) -> int:
        """How many tasks wait now."""
        return sum(not waiter.done() for _, _, waiter in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move both times by ``seconds``, waking each sleeper at its own time, then let the woken
        tasks run; a task that sleeps again within the span is woken again."""
        end_us = self._monotonic_us + round(seconds * 1e6)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end_us:
            wake_us, _, waiter = heapq.heappop(self._sleepers)
            self._move_to(wake_us)
            if not waiter.done():
                waiter.set_result(None)
            await self._settle()
        self._move_to(end_us)

    def jump(self, seconds: float) -> None:
        """Move the wall time alone, as an operator or NTP does."""
        self._now_us += round(seconds * 1e6)

    def _move_to(self, monotonic_us: int) -> None:
        self._now_us += monotonic_us - self._monotonic_us
        self._monotonic_us = monotonic_us

    async def _settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


class SeededIds:
    """``Ids`` whose values depend on the seed alone; never for anything that must be secret."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._millis = _START_US // 1_000

    def ulid(self) -> str:
        self._millis += 1
        return encode_ulid(self._millis, self._random.getrandbits(80))

    def token(self, size_bytes: int) -> str:
        return self._random.randbytes(size_bytes).hex()

    def uniform(self) -> float:
        return self._random.random()
