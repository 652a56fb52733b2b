"""The deadline of an attempt whose body's size is learned from the first bytes of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class _Open:
    limit: asyncio.Timeout
    bytes_per_second: float


_OPEN: Final[ContextVar[_Open | None]] = ContextVar("lakehouse_deadline", default=None)


@contextmanager
def size_unknown(limit: asyncio.Timeout, bytes_per_second: float) -> Iterator[None]:
    """``limit`` is that of the answer's beginning; ``body_expected`` adds that of its body."""
    token = _OPEN.set(_Open(limit, bytes_per_second))
    try:
        yield
    finally:
        _OPEN.reset(token)


def body_expected(size_bytes: int) -> None:
    """For adapters: the answer has begun and its body has ``size_bytes``."""
    found = _OPEN.get()
    if found is None or found.limit.expired():
        return
    until = found.limit.when()
    if until is not None:
        found.limit.reschedule(until + size_bytes / found.bytes_per_second)
