"""The circuit breaker of one bucket: pure state, told of time and of what became of attempts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from lakehouse.model.health import BreakerState


class Admission(Enum):
    """``PASS``: go. ``PROBE``: go, alone, to see whether the bucket is back. ``REFUSED``: stay."""

    PASS = "pass"
    PROBE = "probe"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When it opens, and how often it looks again.

    Attributes:
        failures: faults in a row after which it may open, 0 is never.
        span_seconds: the first and the last of them are at least so far apart, so that a burst of
            requests that meets one short fault does not open it.
        probe_seconds: between looks while it is open.
    """

    failures: int = 5
    span_seconds: float = 1.0
    probe_seconds: float = 1.0


_NEVER: Final = float("-inf")


class Breaker:
    """Closed until enough faults in a row; then open, with one probe at a time every so often.

    Any success closes it, whoever's it was. A fault of an attempt that began before the last
    success says nothing new and does not count. Times are monotonic seconds, not going back.
    """

    __slots__ = ("_first", "_probing", "_settings", "_state", "_succeeded", "_tried", "faults")

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._state = BreakerState.CLOSED
        self._first = 0.0
        self._succeeded = _NEVER
        self._tried = 0.0
        self._probing = False
        self.faults = 0

    @property
    def state(self) -> BreakerState:
        """``HALF_OPEN`` exactly while a probe is under way."""
        return self._state

    def admit(self, now: float) -> Admission:
        """May an attempt go now? Who gets ``PROBE`` must call ``probed`` when it is over."""
        if self._state is BreakerState.CLOSED:
            return Admission.PASS
        if self._probing or now < self._tried + self._settings.probe_seconds:
            return Admission.REFUSED
        self._state = BreakerState.HALF_OPEN
        self._probing = True
        self._tried = now
        return Admission.PROBE

    def probed(self, now: float) -> None:
        """The probe is over, whatever came of it: without a success it stays open."""
        self._probing = False
        if self._state is BreakerState.HALF_OPEN:
            self._state = BreakerState.OPEN
            self._tried = now

    def succeeded(self, now: float) -> bool:
        """The bucket answered; whether that closed the breaker."""
        self.faults = 0
        self._succeeded = now
        if self._state is BreakerState.CLOSED:
            return False
        self._state = BreakerState.CLOSED
        return True

    def failed(self, began: float, now: float) -> bool:
        """An attempt that began at ``began`` met a fault; whether that opened the breaker."""
        if began < self._succeeded or self._state is not BreakerState.CLOSED:
            return False
        if self.faults == 0:
            self._first = now
        self.faults += 1
        settings = self._settings
        if not settings.failures or self.faults < settings.failures:
            return False
        if now - self._first < settings.span_seconds:
            return False
        self._state = BreakerState.OPEN
        self._tried = now
        return True

    def wait_seconds(self, now: float) -> float:
        """Until the next probe may go, 0 while closed."""
        if self._state is BreakerState.CLOSED:
            return 0.0
        return max(0.0, self._tried + self._settings.probe_seconds - now)
