"""What a request selects from failed attempts: filters, counts, pages, each attempt once."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from lakehouse.contracts.storage import ErrorCount, ErrorsRequest, ReportRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.failures import FailedAttempt
from lakehouse.storaged.errors import (
    REPORT_MAX,
    Selection,
    check_report,
    from_event,
    text_time,
    to_event,
)
from unit.storaged.attempts import START, attempt


def selected(attempts: list[FailedAttempt], **asked: Any) -> tuple[list[str], Selection, str]:
    found = Selection(ErrorsRequest(**asked))
    found.take(to_event(one) for one in attempts)
    page, following = found.page()
    return [one.id for one in page], found, following


def ids(*numbers: int) -> list[str]:
    return [attempt(number).id for number in numbers]


def test_an_attempt_comes_back_from_the_log_as_it_went_in() -> None:
    for one in (attempt(1), attempt(2, sent=False, http_status=503, key='ü "x"\n', final=False)):
        assert from_event(to_event(one)) == one
    there = attempt(3, at=START.astimezone(timezone(timedelta(hours=2))))
    assert from_event(to_event(there)) == replace(there, at=START)


@pytest.mark.parametrize(
    "event", [{}, {**to_event(attempt(1)), "at": "yesterday"}, {**to_event(attempt(1)), "at": 3}]
)
def test_what_is_no_attempt_is_corrupt(event: dict[str, Any]) -> None:
    with pytest.raises(LakehouseError) as caught:
        from_event(event)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_times_compare_as_their_texts() -> None:
    chance = random.Random(7)
    epoch = datetime(1, 1, 1, tzinfo=UTC)
    times = [epoch + timedelta(microseconds=chance.randrange(300 * 10**15)) for _ in range(500)]
    assert [text_time(when) for when in sorted(times)] == sorted(text_time(when) for when in times)


def test_newest_first_whatever_the_order_they_come_in() -> None:
    attempts = [attempt(n) for n in (3, 1, 2)]
    assert selected(attempts)[0] == ids(3, 2, 1)


def test_an_attempt_that_comes_again_is_there_once() -> None:
    page, found, _ = selected([attempt(1), attempt(2), attempt(1), attempt(1)])
    assert page == ids(2, 1)
    assert found.counts() == (ErrorCount("eu", "get", "timeout", 2, 2),)


FOUR = [
    attempt(1, final=False),
    attempt(2, bucket="us"),
    attempt(3, operation="put"),
    attempt(4, error_kind="unavailable"),
]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"bucket": "us"}, (2,)),
        ({"operation": "put"}, (3,)),
        ({"error_kind": "unavailable"}, (4,)),
        ({"bucket": "eu", "operation": "get"}, (4, 1)),
        ({"bucket": "nowhere"}, ()),
        ({"final_only": True}, (4, 3, 2)),
        ({"since": START + timedelta(seconds=3)}, (4, 3)),
        ({"until": START + timedelta(seconds=3)}, (2, 1)),
        ({"since": START + timedelta(seconds=2), "until": START + timedelta(seconds=3)}, (2,)),
        ({"since": (START + timedelta(seconds=4)).astimezone(timezone(timedelta(hours=9)))}, (4,)),
    ],
)
def test_each_filter(asked: dict[str, Any], expected: tuple[int, ...]) -> None:
    page, found, _ = selected(FOUR, **asked)
    assert page == ids(*expected)
    assert sum(count.attempts for count in found.counts()) == len(expected)


def test_counts_are_over_all_and_tell_attempts_from_operations() -> None:
    tries = [attempt(n, op_id="O", attempt=n, final=n == 3) for n in (1, 2, 3)]
    _, found, _ = selected([*tries, attempt(4, bucket="us")], limit=1)
    assert found.counts() == (
        ErrorCount("eu", "get", "timeout", 3, 1),
        ErrorCount("us", "get", "timeout", 1, 1),
    )


def test_pages_hold_everything_once_while_new_errors_come_in() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    # Many at one time: the ids decide.
    there = [attempt(n, at=START + timedelta(seconds=n // 7)) for n in range(100)]
    first, cursor, seen = True, "", []
    while first or cursor:
        page, found, cursor = selected(chance.sample(there, len(there)), limit=9, cursor=cursor)
        assert sum(count.attempts for count in found.counts()) == len(there)
        first, seen = False, seen + page
        there.append(attempt(1000 + len(there)))
    assert seen == [attempt(n).id for n in reversed(range(100))]


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_limit_that_is_none(limit: int) -> None:
    with pytest.raises(LakehouseError) as caught:
        Selection(ErrorsRequest(limit=limit))
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("cursor", ["x", "W10", "ü", "eyJhIjoxfQ", "WyJ4IiwieSJd", "WzEsMl0"])
def test_a_cursor_that_is_none(cursor: str) -> None:
    with pytest.raises(LakehouseError) as caught:
        Selection(ErrorsRequest(cursor=cursor))
    assert caught.value.kind is ErrorKind.INVALID
    assert "cursor" in caught.value.message


@pytest.mark.parametrize(
    "when", [datetime(2026, 1, 1), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))]
)
def test_a_time_that_is_none(when: datetime) -> None:
    with pytest.raises(LakehouseError) as caught:
        Selection(ErrorsRequest(since=when))
    assert caught.value.kind is ErrorKind.INVALID


def test_a_line_that_is_no_attempt_is_left_out_and_counted() -> None:
    found = Selection(ErrorsRequest())
    found.take([{}, {"id": 3}, to_event(attempt(1)), {**to_event(attempt(2)), "outcome": "eaten"}])
    page, _ = found.page()
    assert [one.id for one in page] == ids(1)
    assert found.unreadable == 3


def test_a_report_has_bounds() -> None:
    check_report(ReportRequest((attempt(1),) * REPORT_MAX, 0))
    for request in (ReportRequest((attempt(1),) * (REPORT_MAX + 1)), ReportRequest((), -1)):
        with pytest.raises(LakehouseError) as caught:
            check_report(request)
        assert caught.value.kind is ErrorKind.INVALID
