"""An event loop in virtual time: nothing waits for real, and one seed gives one history."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_THREAD_SECONDS_MAX = 0.03


class Deadlock(RuntimeError):
    """Every task waits and nothing is due: a defect of the code under test or of its test."""


class _Leap:
    """In place of a selector: instead of waiting, time moves on."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("every task waits and nothing is due")
        self._loop.leap(timeout)
        return []

    def close(self) -> None:
        """Nothing is held."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """No sockets, no threads: what would run in a thread runs at once and ends a little later."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._now = 0.0
        self._random = random.Random(seed)
        self._selector = _Leap(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._now

    def leap(self, seconds: float) -> None:
        """Move virtual time on."""
        if seconds > 0:
            self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        self.call_later(
            self._random.random() * _THREAD_SECONDS_MAX, self._run_now, future, func, args
        )
        return future

    @staticmethod
    def _run_now(future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
        if future.cancelled():
            return
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - carried to whoever awaits, as a thread pool does
            future.set_exception(error)
        else:
            future.set_result(result)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in ``select``."""


def run_simulated(seed: int, main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    """The result of ``main`` in a loop of its own; what it left running is cancelled."""
    loop = SimulatedLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
