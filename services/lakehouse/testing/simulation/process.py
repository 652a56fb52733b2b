"""A simulated process: it can be stopped, woken and killed between any two of its requests."""

from __future__ import annotations

import asyncio

from lakehouse.testing.simulation.loop import SimulatedLoop

_START_US = 1_790_000_000_000_000


class Process:
    """Everything it awaits passes ``gate``: closed while stopped, for good once killed.

    Args:
        loop: the world's loop.
        name: writer id.
        kill_at: kill it just before its request of this number (from 0), None for never;
            ``after_effect`` kills it when the request has happened but not been answered.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        name: str,
        kill_at: int | None = None,
        *,
        after_effect: bool = False,
    ) -> None:
        self.name = name
        self.alive = True
        self.requests = 0
        self.died = loop.create_future()
        self._loop = loop
        self._open = asyncio.Event()
        self._open.set()
        self._kill_at = kill_at
        self._after_effect = after_effect
        self._never = loop.create_future()

    async def gate(self) -> None:
        """Pass if it runs."""
        while not (self.alive and self._open.is_set()):
            if not self.alive:
                await asyncio.shield(self._never)
            await self._open.wait()

    def stop(self) -> None:
        """SIGSTOP."""
        self._open.clear()

    def wake(self) -> None:
        """SIGCONT."""
        self._open.set()

    def kill(self) -> None:
        """SIGKILL; what it has sent is under way all the same."""
        self.alive = False
        self._open.set()
        if not self.died.done():
            self.died.set_result(None)

    def before_request(self) -> None:
        """Counts; may kill. The request that it dies in front of is never sent."""
        number, self.requests = self.requests, self.requests + 1
        if number == self._kill_at and not self._after_effect:
            self.kill()

    def at_effect(self) -> None:
        """A request of this process happens now; may kill."""
        if self._kill_at is not None and self._after_effect and self.requests > self._kill_at:
            self.kill()


class SimulatedClock:
    """``Clock`` of one process; ``skew_seconds`` is how wrong its wall time is."""

    def __init__(self, loop: SimulatedLoop, process: Process, skew_seconds: float = 0.0) -> None:
        self._loop = loop
        self._process = process
        self.skew_seconds = skew_seconds

    def now_us(self) -> int:
        return _START_US + int((self._loop.time() + self.skew_seconds) * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._process.gate()
