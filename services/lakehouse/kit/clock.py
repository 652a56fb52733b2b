"""The only door to time. Everything else is handed a ``Clock``, so that simulations own it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, Protocol

_DAY_US: Final = 86_400_000_000.0


class Clock(Protocol):
    """Wall time for people, monotonic time for waiting; neither is ever used for safety."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back and counts time asleep (boot time)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait at least ``seconds`` (>= 0)."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def to_datetime(micros: int) -> datetime:
    """Microseconds since the epoch as an aware UTC time."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)


def to_micros(when: datetime) -> int:
    """An aware time as microseconds since the epoch, exactly."""
    whole = when.astimezone(UTC)
    return int(whole.replace(microsecond=0).timestamp()) * 1_000_000 + whole.microsecond


def days_before(now_us: int, days: float) -> datetime:
    """The time so many days before ``now_us``; 1970 where it is longer ago, up to infinity."""
    return to_datetime(int(max(0.0, now_us - days * _DAY_US)))


def thread_seconds() -> float:
    """Processor time of the calling thread: what work costs, whatever else the machine does."""
    return time.thread_time_ns() / 1e9
