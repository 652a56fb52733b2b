"""The doors to time and randomness."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.kit.blocking import run_blocking, run_in
from lakehouse.kit.clock import SystemClock, days_before, to_datetime, to_micros
from lakehouse.kit.ids import SystemIds, encode_ulid, ulid_millis
from lakehouse.testing.clocks import ManualClock

MICROS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


@given(micros=MICROS)
def test_times_go_there_and_back_exactly(micros: int) -> None:
    when = to_datetime(micros)
    assert when.tzinfo is UTC
    assert to_micros(when) == micros


def test_times_of_other_zones() -> None:
    when = datetime(2026, 11, 21, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    assert to_datetime(to_micros(when)).isoformat() == "2026-11-21T12:00:00+00:00"


@pytest.mark.parametrize("days", [21_000.0, 1e6, 1e12, 1e308, float("inf")])
def test_what_is_longer_ago_than_any_time_is_1970(days: float) -> None:
    now = 1_800_000_000_000_000
    assert days_before(now, days) == to_datetime(0)
    assert days_before(now, 0.5) == to_datetime(now) - timedelta(hours=12)


async def test_the_system_clock_moves_forward() -> None:
    clock = SystemClock()
    wall, monotonic = clock.now_us(), clock.monotonic()
    await clock.sleep(0.002)
    assert clock.monotonic() - monotonic >= 0.002
    assert clock.now_us() > wall > to_micros(datetime(2024, 1, 1, tzinfo=UTC))


def test_the_ulid_encoding_is_the_specifications() -> None:
    # The example of the ulid specification: 1469922850259 ms.
    assert encode_ulid(1_469_922_850_259, 0).startswith("01ARZ3NDEK")
    assert encode_ulid(0, 0) == "0" * 26
    assert encode_ulid((1 << 48) - 1, (1 << 80) - 1) == "7" + "Z" * 25


def test_ulids_rise_also_within_a_millisecond_and_when_the_clock_goes_back() -> None:
    clock = ManualClock()
    ids = SystemIds(clock)
    made = []
    for step in (0, 0, 0.005, -3600, 0, 3601):
        clock.jump(step)
        made += [ids.ulid() for _ in range(50)]
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {26}


def test_ulids_are_unique_across_threads() -> None:
    ids = SystemIds(SystemClock())
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ids.ulid(), range(2_000)))
    assert len(set(made)) == 2_000


def test_tokens_and_jitter() -> None:
    ids = SystemIds(SystemClock())
    tokens = {ids.token(16) for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 32 and int(token, 16) >= 0 for token in tokens)
    assert all(0 <= ids.uniform() < 1 for _ in range(100))


async def test_blocking_calls_leave_the_loop_free() -> None:
    with ThreadPoolExecutor(1) as pool:
        both = await asyncio.gather(
            run_blocking(divmod, 7, 2), run_in(pool, sorted, [2, 1], reverse=True)
        )
        assert both == [(3, 1), [2, 1]]
        with pytest.raises(ZeroDivisionError):
            await run_blocking(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            await run_in(pool, divmod, 1, 0)


@given(millis=st.integers(0, (1 << 48) - 1), entropy=st.integers(0, (1 << 80) - 1))
def test_an_id_says_when_it_was_made(millis: int, entropy: int) -> None:
    assert ulid_millis(encode_ulid(millis, entropy)) == millis


@pytest.mark.parametrize(
    "text", ["", "0" * 25, "0" * 27, "8" + "0" * 25, "0" * 25 + "I", "0" * 25 + "a", "é" * 26]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ULID"):
        ulid_millis(text)
