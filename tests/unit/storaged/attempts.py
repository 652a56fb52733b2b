"""Failed attempts for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.model.failures import AttemptOutcome, FailedAttempt

START = datetime(2026, 11, 21, 2, tzinfo=UTC)


def attempt(number: int, **fields: Any) -> FailedAttempt:
    """Attempt ``number``, as many seconds after ``START``."""
    made = FailedAttempt(
        id=f"E{number:025d}",
        at=START + timedelta(seconds=number),
        bucket="eu",
        operation="get",
        key=f"datasets/{number}",
        error_kind="timeout",
        reason="no answer",
        http_status=0,
        store_request_id="",
        latency_ms=1.5,
        op_id=f"O{number}",
        attempt=1,
        final=True,
        outcome=AttemptOutcome.FAILED,
        actor="anna",
        request_id="r-1",
    )
    return replace(made, **fields)
