"""How a bucket fares, as this process sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class BreakerState(StrEnum):
    """``CLOSED``: requests pass. ``OPEN``: they are refused at once. ``HALF_OPEN``: one at a time
    may try whether the bucket is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BucketHealth:
    """Counters and marks of one bucket since it was opened.

    Attributes:
        latency_ms: moving average of answered attempts, 0 before the first.
        in_flight: attempts under way; ``waiting`` for a place among them.
        failures: attempts that failed by the bucket's fault (unavailable, timeout, corrupt).
        retries: attempts beyond the first of an operation.
        unavailable_since: the first failure since the last success; None while it answers.
    """

    breaker: BreakerState
    latency_ms: float
    in_flight: int
    waiting: int
    failures: int
    retries: int
    last_error: str = ""
    last_error_at: datetime | None = None
    last_success_at: datetime | None = None
    unavailable_since: datetime | None = None
