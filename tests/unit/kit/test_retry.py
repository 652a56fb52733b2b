"""The backoff policy by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.kit.retry import Backoff


def test_waits_double_up_to_their_bound() -> None:
    policy = Backoff(attempts_max=9, budget_seconds=100, base_seconds=0.1, delay_seconds_max=1.0)
    waits = [policy.next_delay(attempts, 0.0, 0.999999) for attempts in range(1, 9)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0], rel=1e-4)
    assert policy.next_delay(9, 0.0, 0.5) is None


@given(
    attempts=st.integers(1, 200),
    elapsed=st.floats(0, 100),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_never_over_the_budget_and_never_in_a_tight_loop(
    attempts: int, elapsed: float, jitter: float
) -> None:
    policy = Backoff(attempts_max=50, budget_seconds=30.0)
    delay = policy.next_delay(attempts, elapsed, jitter)
    if delay is None:
        assert attempts >= 50 or elapsed + policy.delay_seconds_max > 30.0
    else:
        assert 0.5 * policy.base_seconds <= delay <= policy.delay_seconds_max
        assert elapsed + delay <= 30.0


def test_one_attempt_is_none_more() -> None:
    assert Backoff(attempts_max=1).next_delay(1, 0.0, 0.0) is None
