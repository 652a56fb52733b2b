"""Deadlines of attempts: one timer a bucket, for a timer an attempt costs more than the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Final

_SOONEST_SECONDS: Final = 0.001


class Deadline:
    """Of one attempt of the current task; ``until`` in the loop's time, None while none runs."""

    __slots__ = ("cancelling", "expired", "task", "until")

    def __init__(self, task: asyncio.Task[object], until: float) -> None:
        self.task = task
        self.cancelling = task.cancelling()
        self.until: float | None = until
        self.expired = False


class Deadlines:
    """Cancels the tasks whose attempt takes too long, as ``asyncio.timeout`` does, which is
    slower; one loop uses it."""

    __slots__ = ("_loop", "_open", "_timer", "_when")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._when = 0.0

    def start(self, seconds: float) -> Deadline:
        """A deadline of the current task; whoever starts it calls ``ended``."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        one = Deadline(task, loop.time() + seconds)
        self._open.add(one)
        if self._timer is None or self._when > loop.time() + seconds or self._loop is not loop:
            self._set(loop, loop.time() + seconds)
        return one

    def move(self, one: Deadline, seconds: float | None) -> None:
        """Another deadline, from now; None stops its time."""
        loop = one.task.get_loop()
        one.until = None if seconds is None else loop.time() + seconds
        if one.until is not None and (self._timer is None or self._when > one.until):
            self._set(loop, one.until)

    def add(self, one: Deadline, seconds: float) -> None:
        """Grant so much more."""
        if one.until is not None and not one.expired:
            one.until += seconds

    def ended(self, one: Deadline, error: BaseException | None) -> bool:
        """The attempt is over; whether it was its deadline that ended it by ``error``."""
        self._open.discard(one)
        if not one.expired:
            return False
        # Another's wish to cancel the task goes before.
        ours = one.task.uncancel() <= one.cancelling
        return ours and isinstance(error, asyncio.CancelledError)

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop = loop
        self._when = when
        seconds = max(when - loop.time(), _SOONEST_SECONDS)
        self._timer = loop.call_later(seconds, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        soonest: float | None = None
        for one in self._open:
            if one.until is None or one.expired:
                continue
            if one.until <= now:
                one.expired = True
                one.task.cancel()
            elif soonest is None or one.until < soonest:
                soonest = one.until
        if soonest is not None:
            self._set(loop, soonest)


_SIZED: Final[ContextVar[Callable[[int], None] | None]] = ContextVar("lakehouse_body", default=None)


def size_told_to(told: Callable[[int], None]) -> Token[Callable[[int], None] | None]:
    """From here on ``body_expected`` calls ``told``, until ``size_told`` gets the token."""
    return _SIZED.set(told)


def size_told(token: Token[Callable[[int], None] | None]) -> None:
    with suppress(ValueError):  # a coroutine that is thrown away ends in another context
        _SIZED.reset(token)


def body_expected(size_bytes: int) -> None:
    """For adapters: the answer to a read has begun and its body has ``size_bytes``."""
    told = _SIZED.get()
    if told is not None:
        told(size_bytes)
