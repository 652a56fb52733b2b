"""Failed attempts as the journal keeps and shows them: plain functions and values, no I/O.

In the log an attempt is one JSON object with the fields of ``FailedAttempt``; readers
take what they know and ignore the rest.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from lakehouse.contracts.storage import ErrorCount, ErrorsRequest, ReportRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.failures import AttemptOutcome, FailedAttempt

LIMIT_MAX: Final = 1000
REPORT_MAX: Final = 4096

Event = Mapping[str, Any]
_Place = tuple[datetime, str]


def to_event(attempt: FailedAttempt) -> dict[str, Any]:
    """The attempt as a JSON object; ``at`` is RFC 3339 in UTC to the microsecond."""
    at = attempt.at.astimezone(UTC).isoformat(timespec="microseconds")
    return {
        "id": attempt.id,
        "at": at.replace("+00:00", "Z"),
        "bucket": attempt.bucket,
        "operation": attempt.operation,
        "key": attempt.key,
        "error_kind": attempt.error_kind,
        "reason": attempt.reason,
        "http_status": attempt.http_status,
        "store_request_id": attempt.store_request_id,
        "latency_ms": attempt.latency_ms,
        "op_id": attempt.op_id,
        "attempt": attempt.attempt,
        "final": attempt.final,
        "outcome": attempt.outcome.value,
        "sent": attempt.sent,
        "actor": attempt.actor,
        "request_id": attempt.request_id,
    }


def from_event(event: Event) -> FailedAttempt:
    """The attempt of an object of the log. Raises ``corrupt`` for one that is none."""
    try:
        at = datetime.fromisoformat(event["at"])
        return FailedAttempt(
            id=event["id"],
            at=at.astimezone(UTC),
            bucket=event["bucket"],
            operation=event["operation"],
            key=event["key"],
            error_kind=event["error_kind"],
            reason=event["reason"],
            http_status=event["http_status"],
            store_request_id=event["store_request_id"],
            latency_ms=event["latency_ms"],
            op_id=event["op_id"],
            attempt=event["attempt"],
            final=event["final"],
            outcome=AttemptOutcome(event["outcome"]),
            sent=event.get("sent", True),
            actor=event.get("actor", ""),
            request_id=event.get("request_id", ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT, "a line of the error journal is no failed attempt"
        ) from error


def check_request(request: ErrorsRequest) -> None:
    """Raises ``invalid`` for a limit, a time or a cursor that is none."""
    if not 1 <= request.limit <= LIMIT_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, f"limit must be in [1, {LIMIT_MAX}]", limit=request.limit
        )
    for name, when in (("since", request.since), ("until", request.until)):
        if when is not None and when.tzinfo is None:
            raise LakehouseError(ErrorKind.INVALID, f"{name} must be a time with its zone")
    if request.cursor:
        _place_of(request.cursor)


def check_report(request: ReportRequest) -> None:
    """Raises ``invalid`` for a report that is too large or counts backwards."""
    if len(request.attempts) > REPORT_MAX or request.dropped < 0:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"a report has at most {REPORT_MAX} attempts, and drops of zero or more",
            attempts=len(request.attempts),
            dropped=request.dropped,
        )


class Selection:
    """What a request selects from attempts that are taken in any order, each id once.

    Holds one page of attempts, one count a bucket, operation and kind, and the ids it has seen.
    """

    def __init__(self, request: ErrorsRequest) -> None:
        """Raises ``invalid`` as ``check_request``."""
        check_request(request)
        self._request = request
        self._before = _place_of(request.cursor) if request.cursor else None
        self._room = request.limit + 1
        self._seen: set[str] = set()
        self._newest: list[tuple[datetime, str, FailedAttempt]] = []
        self._counts: dict[tuple[str, str, str], list[int]] = {}

    def take(self, attempt: FailedAttempt) -> None:
        """Look at one attempt; one that was looked at before changes nothing."""
        if not self._selects(attempt) or attempt.id in self._seen:
            return
        self._seen.add(attempt.id)
        name = (attempt.bucket, attempt.operation, attempt.error_kind)
        count = self._counts.setdefault(name, [0, 0])
        count[0] += 1
        count[1] += attempt.final
        entry = (attempt.at, attempt.id, attempt)
        if self._before is not None and entry[:2] >= self._before:
            return
        if len(self._newest) < self._room:
            heapq.heappush(self._newest, entry)
        elif entry > self._newest[0]:
            heapq.heapreplace(self._newest, entry)

    def page(self) -> tuple[tuple[FailedAttempt, ...], str]:
        """The newest before the cursor, newest first; the cursor of the next page, "" at the end.

        Attempts of one time are in the order of their ids, the last first.
        """
        ordered = [entry[2] for entry in sorted(self._newest, reverse=True)]
        page = tuple(ordered[: self._request.limit])
        return page, _cursor_of(page[-1]) if len(ordered) > len(page) else ""

    def counts(self) -> tuple[ErrorCount, ...]:
        """Over all that was selected, whatever the page; most attempts first."""
        return tuple(
            ErrorCount(*name, attempts, operations)
            for name, (attempts, operations) in sorted(
                self._counts.items(), key=lambda item: (-item[1][0], item[0])
            )
        )

    def _selects(self, attempt: FailedAttempt) -> bool:
        asked = self._request
        return (
            asked.bucket in ("", attempt.bucket)
            and asked.operation in ("", attempt.operation)
            and asked.error_kind in ("", attempt.error_kind)
            and (asked.since is None or asked.since <= attempt.at)
            and (asked.until is None or attempt.at < asked.until)
            and (attempt.final or not asked.final_only)
        )


def _cursor_of(attempt: FailedAttempt) -> str:
    parts = [attempt.at.astimezone(UTC).isoformat(), attempt.id]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def _place_of(cursor: str) -> _Place:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, attempt_id = orjson.loads(base64.urlsafe_b64decode(padded.encode()))
        when = datetime.fromisoformat(at)
        if when.tzinfo is None or not isinstance(attempt_id, str):
            raise ValueError(cursor)
    except (ValueError, TypeError, UnicodeEncodeError):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the cursor is not one of this list",
            cursor=ascii(cursor[:80])[1:-1],
            hint="start again without a cursor",
        ) from None
    return when, attempt_id
