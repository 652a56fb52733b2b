"""The backoff policy: how long to wait before which attempt. Pure; the caller sleeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounded exponential backoff with full jitter.

    Attributes:
        attempts_max: attempts in all, the first included; >= 1.
        budget_seconds: no wait starts that would end later than this after the first attempt.
        base_seconds: upper bound of the first wait; doubles with every further one.
        delay_seconds_max: upper bound of any wait.
    """

    attempts_max: int = 6
    budget_seconds: float = 20.0
    base_seconds: float = 0.05
    delay_seconds_max: float = 3.0

    def next_delay(self, attempts: int, elapsed_seconds: float, jitter: float) -> float | None:
        """Seconds to wait after ``attempts`` failed ones (>= 1), or None to give up.

        Args:
            attempts: how many attempts were made so far.
            elapsed_seconds: time since the first attempt began.
            jitter: a float in [0, 1) from ``Ids.uniform``; half the bound is always waited, so
                that a store that answers at once is not asked in a tight loop.
        """
        if attempts >= self.attempts_max:
            return None
        bound = min(self.delay_seconds_max, self.base_seconds * 2.0 ** (attempts - 1))
        delay = bound * (0.5 + 0.5 * jitter)
        return delay if elapsed_seconds + delay <= self.budget_seconds else None
