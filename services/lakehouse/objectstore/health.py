"""How one bucket fares: what all its handles in this process saw, and its breaker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.model.health import BreakerState, BucketHealth
from lakehouse.objectstore.answers import is_bucket_fault, is_ordinary, was_sent
from lakehouse.objectstore.breaker import Breaker, BreakerSettings
from lakehouse.objectstore.bulkhead import Bulkhead
from lakehouse.objectstore.deadlines import Deadlines
from lakehouse.objectstore.settings import ResilienceSettings

log = logging.getLogger(__name__)

# Weight of the newest attempt in the moving average of latencies.
_NEWEST: Final = 0.1


class BucketWatch:
    """The counters and the breaker of one bucket, shared by its handles; one loop uses it.

    Attributes:
        name: of the bucket.
        bulkhead, deadlines: of the attempts under way.
        retries: attempts that followed a failed one.
        users: requests and open streams, of any handle, that still need the adapter.
        removed: the bucket is none of this process's any more; nothing new begins.
        idle: called once when it is removed and nobody needs it any more.
    """

    def __init__(self, name: str, clock: Clock, settings: ResilienceSettings) -> None:
        self.name = name
        self.clock = clock
        self.settings = settings
        self.breaker = Breaker(
            BreakerSettings(
                settings.breaker_failures, settings.breaker_seconds, settings.probe_seconds
            )
        )
        self.bulkhead = Bulkhead(settings.in_flight_max, settings.waiting_max)
        self.deadlines = Deadlines()
        self.retries = 0
        self.users = 0
        self.removed = False
        self.idle: Callable[[], None] | None = None
        self.latency_seconds = 0.0
        self._failures = 0
        self._last_error = ""
        self._last_error_us = 0
        self._answered_at: float | None = None
        self._unavailable_us = 0

    def enter(self) -> None:
        """Somebody needs the adapter until ``leave``."""
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        if self.removed and not self.users and self.idle is not None:
            idle, self.idle = self.idle, None
            idle()

    def answered(self, began: float, now: float) -> None:
        """An attempt that began at ``began`` got an answer, if only that there is no such key."""
        took = now - began
        if self.latency_seconds:
            self.latency_seconds += (took - self.latency_seconds) * _NEWEST
        else:
            self.latency_seconds = took
        self._answered_at = now
        self._unavailable_us = 0
        if self.breaker.succeeded(now):
            log.warning("a bucket answers again", extra={"bucket": self.name})

    def failed(self, error: LakehouseError, began: float, now: float) -> None:
        """An attempt failed of ``error``, which may be an ordinary answer."""
        if is_ordinary(error):
            self.answered(began, now)
            return
        self._last_error = _described(error)
        self._last_error_us = self.clock.now_us()
        if error.kind is ErrorKind.CORRUPT:
            self._failures += 1
        elif not was_sent(error):
            # As with keys that cannot be had: nobody reaches the bucket, whatever it does.
            self._failures += 1
            self._unavailable_us = self._unavailable_us or self._last_error_us
        elif not is_bucket_fault(error):
            # Refused, but by a bucket that answers.
            self.breaker.succeeded(now)
            self._unavailable_us = 0
        else:
            self._failures += 1
            self._unavailable_us = self._unavailable_us or self._last_error_us
            if self.breaker.failed(began, now):
                self._opened()

    def health(self) -> BucketHealth:
        """The figures now."""
        return BucketHealth(
            breaker=self.breaker.state,
            latency_ms=round(self.latency_seconds * 1_000, 3),
            in_flight=self.bulkhead.in_flight,
            waiting=self.bulkhead.waiting,
            failures=self._failures,
            retries=self.retries,
            last_error=self._last_error,
            last_error_at=to_datetime(self._last_error_us) if self._last_error_us else None,
            last_success_at=self._last_success_at(),
            unavailable_since=to_datetime(self._unavailable_us) if self._unavailable_us else None,
        )

    def _last_success_at(self) -> datetime | None:
        if self._answered_at is None:
            return None
        # Only monotonic time is taken of each answer; wall time costs as much again.
        ago = self.clock.monotonic() - self._answered_at
        return to_datetime(self.clock.now_us() - round(ago * 1e6))

    def check_kept(self) -> None:
        """Raise ``not_found`` if the bucket was removed."""
        if self.removed:
            raise LakehouseError(
                ErrorKind.NOT_FOUND, "the bucket was removed", what="bucket", bucket=self.name
            )

    def _opened(self) -> None:
        log.error(
            "a bucket does not answer: requests are refused until it does",
            extra={"bucket": self.name, "reason": self._last_error},
        )
        self.bulkhead.dismiss()

    @property
    def closed(self) -> bool:
        """Whether requests pass."""
        return self.breaker.state is BreakerState.CLOSED


def _described(error: LakehouseError) -> str:
    cause = error.fields.get("cause")
    return f"{error}: {cause}" if cause else str(error)
