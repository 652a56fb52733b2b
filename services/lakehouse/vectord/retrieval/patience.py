"""An embedder that is waited for a little, by those who can do without it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock

__all__ = ["Patience"]

T = TypeVar("T")

_SECONDS: Final = 2.0
# Started with the first text, a model loads for some seconds: that is not being away.
_FIRST_SECONDS: Final = 10.0
_SECONDS_A_TEXT: Final = 0.02
_AWAY_SECONDS: Final = 2.0
_AWAY: Final = (ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.EXHAUSTED)
# A model is quick with these: that one takes long says something of the server.
_SMALL_TEXTS: Final = 8
_SMALL_CHARACTERS: Final = 2_000

Asker = tuple[str, bool]
"""A model, and whether little is asked of it."""


class Patience:
    """Belongs to one event loop. What is asked goes on when nobody waits for it any more, so that a
    server that takes long to start is started all the same. That the server takes long for much
    text, or has no room for it, is no reason not to ask it for a little."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._met: set[str] = set()
        self._away: dict[Asker, tuple[float, str]] = {}
        self._slow: dict[Asker, asyncio.Task[object]] = {}

    async def embedded(
        self, model: str, texts: Sequence[str], ask: Callable[[], Awaitable[T]]
    ) -> tuple[T | None, str]:
        """What ``ask`` gives for ``texts``; or None and why, where the embedder is away, full or
        slow. What else ``ask`` raises is raised."""
        now = self._clock.monotonic()
        small = len(texts) <= _SMALL_TEXTS and sum(map(len, texts)) <= _SMALL_CHARACTERS
        asker = (model, small)
        until, reason = self._away.get(asker, (0.0, ""))
        slow = self._slow.get(asker)
        if slow is not None and not slow.done():
            return None, "the embedding server has not answered yet"
        if now < until:
            return None, reason
        task = asyncio.ensure_future(ask())
        try:
            seconds = _SECONDS if model in self._met else _FIRST_SECONDS
            done, _ = await asyncio.wait({task}, timeout=seconds + len(texts) * _SECONDS_A_TEXT)
        except asyncio.CancelledError:
            task.cancel()
            raise
        self._met.add(model)
        if not done:
            self._slow[asker] = task
            task.add_done_callback(_taken_note_of)
            return None, "the embedding server has not answered in time"
        try:
            found = task.result()
        except LakehouseError as error:
            if error.kind not in _AWAY:
                raise
            self._away[asker] = (self._clock.monotonic() + _AWAY_SECONDS, str(error.message))
            if error.kind is ErrorKind.UNAVAILABLE or small:
                self._away[model, not small] = self._away[asker]
            return None, str(error.message)
        self._away.pop(asker, None)
        return found, ""

    async def close(self) -> None:
        """End what is still asked; idempotent."""
        slow = [task for task in self._slow.values() if not task.done()]
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        self._slow.clear()


def _taken_note_of(task: asyncio.Task[object]) -> None:
    """Nobody waits for it; that it failed is found out by who asks next."""
    if not task.cancelled():
        task.exception()
