"""Reads of files where they are, in threads of each bucket's own.

A dead network mount answers nothing, not even an error, and the thread that asked it is lost until
it does. Such a bucket costs its own threads only; who asks learns of the silence and goes by the
bucket's own door, where there are deadlines, a breaker and a copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

__all__ = ["Beat", "InPlace", "SilentError"]

R = TypeVar("R")

# A healthy disk that sleeps needs some seconds to wake up.
_SILENCE_SECONDS: Final = 5.0


class SilentError(Exception):
    """Nothing came for too long, here or for too many others."""


class Beat:
    """Called by a thread whenever it has got on."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class InPlace:
    """The threads of one bucket; one loop uses it.

    Args:
        places: calls at once; as many threads more stand in for those that are lost.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._threads: ThreadPoolExecutor | None = None
        self._lost: list[Future[Any]] = []

    async def run(self, function: Callable[[Beat], R]) -> R:
        """What ``function`` returns or raises.

        Raises ``SilentError`` once it has not called its beat for 5 s or a little more, and at
        once where ``places`` threads are lost.
        """
        self._lost = [job for job in self._lost if not job.done()]
        if len(self._lost) >= self._places:
            raise SilentError
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2 * self._places, thread_name_prefix="in-place")
        beat = Beat()
        job = self._threads.submit(function, beat)
        answer = asyncio.wrap_future(job)
        try:
            while True:
                seen = beat.count
                await asyncio.wait({answer}, timeout=_SILENCE_SECONDS)
                if job.done():
                    return job.result()
                if beat.count == seen:
                    raise SilentError
        finally:
            answer.cancel()
            if not (job.done() or job.cancel()):
                self._lost.append(job)

    def close(self) -> None:
        """Let the threads go; they are made again if they are needed."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None
