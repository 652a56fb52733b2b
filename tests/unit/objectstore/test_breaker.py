"""The circuit breaker: by hand, and against a model that remembers everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lakehouse.model.health import BreakerState
from lakehouse.objectstore.breaker import Admission, Breaker, BreakerSettings

SETTINGS = BreakerSettings(failures=3, span_seconds=2.0, probe_seconds=1.0)


def opened(at: float = 2.0) -> Breaker:
    breaker = Breaker(SETTINGS)
    for now in (0.0, 1.0, at):
        breaker.failed(now, now)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_it_opens_after_faults_in_a_row_that_are_far_enough_apart() -> None:
    breaker = Breaker(SETTINGS)
    assert not any(breaker.failed(0.0, now) for now in (0.0, 0.5, 1.0, 1.9))
    assert breaker.state is BreakerState.CLOSED
    assert breaker.failed(0.0, 2.0)
    assert breaker.admit(2.5) is Admission.REFUSED


def test_a_success_begins_the_row_again() -> None:
    breaker = Breaker(SETTINGS)
    breaker.failed(0.0, 0.0)
    breaker.failed(1.0, 1.0)
    assert not breaker.succeeded(1.5)
    assert not breaker.failed(2.0, 2.0)
    assert breaker.state is BreakerState.CLOSED


def test_what_began_before_the_last_success_says_nothing_new() -> None:
    breaker = Breaker(SETTINGS)
    breaker.succeeded(10.0)
    assert not any(breaker.failed(9.0, now) for now in (11.0, 15.0, 20.0, 25.0))
    assert breaker.faults == 0


def test_one_probe_at_a_time_and_not_too_often() -> None:
    breaker = opened(2.0)
    assert breaker.wait_seconds(2.25) == 0.75
    assert breaker.admit(3.0) is Admission.PROBE
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit(10.0) is Admission.REFUSED
    breaker.probed(11.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.admit(11.9) is Admission.REFUSED
    assert breaker.admit(12.0) is Admission.PROBE
    assert breaker.succeeded(12.5)
    breaker.probed(12.5)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit(12.5) is Admission.PASS


def test_anybody_s_success_closes_it() -> None:
    breaker = opened()
    assert breaker.succeeded(2.1)
    assert breaker.admit(2.1) is Admission.PASS


def test_no_number_of_faults_is_never() -> None:
    breaker = Breaker(BreakerSettings(failures=0, span_seconds=0.0))
    assert not any(breaker.failed(now, now) for now in range(1000))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "ok", "fault", "drop"]),
            st.integers(0, 3),
            st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        ),
        max_size=60,
    )
)
def test_against_a_model(steps: list[tuple[str, int, float]]) -> None:
    """Up to four attempts at once; the model works from the whole history."""
    breaker, now = Breaker(SETTINGS), 0.0
    under_way: dict[int, tuple[float, bool]] = {}
    row: list[float] = []
    last_success, is_open, next_probe, probing = float("-inf"), False, 0.0, False
    for what, lane, wait in steps:
        now += wait
        if what == "begin" and lane not in under_way:
            admission = breaker.admit(now)
            if not is_open:
                assert admission is Admission.PASS
            elif probing or now < next_probe:
                assert admission is Admission.REFUSED
            else:
                assert admission is Admission.PROBE
                probing = True
            if admission is not Admission.REFUSED:
                under_way[lane] = (now, admission is Admission.PROBE)
        elif what != "begin" and lane in under_way:
            began, probe = under_way.pop(lane)
            if what == "ok":
                assert breaker.succeeded(now) == is_open
                row, last_success, is_open = [], now, False
            elif what == "fault":
                counts = began >= last_success and not is_open
                row += [now] if counts else []
                opens = counts and len(row) >= 3 and now - row[0] >= 2.0
                assert breaker.failed(began, now) == opens
                if opens:
                    is_open, next_probe = True, now + 1.0
            if probe:
                breaker.probed(now)
                probing = False
                if is_open:
                    next_probe = now + 1.0
        states = {True: (BreakerState.OPEN, BreakerState.HALF_OPEN), False: (BreakerState.CLOSED,)}
        assert breaker.state in states[is_open]
