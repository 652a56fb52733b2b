"""Failed attempts as the journal keeps and shows them: plain functions and values, no I/O.

In the log an attempt is one JSON object with the fields of ``FailedAttempt``; its time is text of
one form, RFC 3339 in UTC to the microsecond, so that texts compare as times do.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from lakehouse.contracts.storage import ErrorCount, ErrorsRequest, ReportRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.failures import AttemptOutcome, FailedAttempt

LIMIT_MAX: Final = 10_000
REPORT_MAX: Final = 4096

Event = Mapping[str, Any]
_Place = tuple[str, str]


def text_time(when: datetime) -> str:
    """As ``at`` stands in an event."""
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_event(attempt: FailedAttempt) -> dict[str, Any]:
    """The attempt as a JSON object."""
    return {
        "id": attempt.id,
        "at": text_time(attempt.at),
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
        return FailedAttempt(
            id=event["id"],
            at=datetime.fromisoformat(event["at"]).astimezone(UTC),
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
        if when is not None and not _is_point(when):
            raise LakehouseError(ErrorKind.INVALID, f"{name} must be a time with its zone")
    if request.cursor:
        _place_of(request.cursor)


def _is_point(when: datetime) -> bool:
    """Whether it is a time of UTC: it has a zone, and is not beyond the calendar's ends there."""
    try:
        return when.tzinfo is not None and when.astimezone(UTC).tzinfo is UTC
    except OverflowError:
        return False


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
    """What a request selects from events that are taken in any order, each id once.

    Holds one page of them, one count a bucket, operation and kind, and the ids it has seen. Events
    that are no failed attempt are left out and counted.
    """

    def __init__(self, request: ErrorsRequest) -> None:
        """Raises ``invalid`` as ``check_request``."""
        check_request(request)
        self.unreadable = 0
        self._limit = request.limit
        self._final_only = request.final_only
        self._equal = [
            (name, wanted)
            for name, wanted in (
                ("bucket", request.bucket),
                ("operation", request.operation),
                ("error_kind", request.error_kind),
            )
            if wanted
        ]
        self._since = "" if request.since is None else text_time(request.since)
        self._until = "~" if request.until is None else text_time(request.until)
        self._before = _place_of(request.cursor) if request.cursor else ("~", "")
        self._seen: set[str] = set()
        self._newest: list[tuple[str, str, Event]] = []
        self._counts: dict[tuple[str, str, str, bool], int] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Look at events; one that was looked at before changes nothing.

        One loop without calls: tens of thousands of them pass while somebody waits.
        """
        seen, counts, newest, room = self._seen, self._counts, self._newest, self._limit + 1
        since, until, equal, final_only = self._since, self._until, self._equal, self._final_only
        before, floor = self._before, newest[0][:2] if len(newest) == room else ("", "")
        for event in events:
            try:
                at, known, final = event["at"], event["id"], event["final"]
                if known in seen or not since <= at < until or not (final or not final_only):
                    continue
                if equal and any(event[name] != wanted for name, wanted in equal):
                    continue
                counted = (event["bucket"], event["operation"], event["error_kind"], bool(final))
                seen.add(known)
                counts[counted] = counts.get(counted, 0) + 1
                if not floor < (at, known) < before:
                    continue
            except (KeyError, TypeError):
                self.unreadable += 1
                continue
            if len(newest) < room:
                heapq.heappush(newest, (at, known, event))
            else:
                heapq.heapreplace(newest, (at, known, event))
            if len(newest) == room:
                floor = newest[0][:2]

    def page(self) -> tuple[tuple[FailedAttempt, ...], str]:
        """The newest before the cursor, newest first; the cursor of the next page, "" at the end.

        Attempts of one time are in the order of their ids, the last first.
        """
        ordered = sorted(self._newest, reverse=True)
        page, more = ordered[: self._limit], len(ordered) > self._limit
        attempts = []
        for _, _, event in page:
            try:
                attempts.append(from_event(event))
            except LakehouseError:
                self.unreadable += 1
        return tuple(attempts), _cursor_of(page[-1]) if more else ""

    def counts(self) -> tuple[ErrorCount, ...]:
        """Over all that was selected, whatever the page; most attempts first."""
        names = {counted[:3] for counted in self._counts}
        found = [
            ErrorCount(
                *name,
                self._counts.get((*name, True), 0) + self._counts.get((*name, False), 0),
                self._counts.get((*name, True), 0),
            )
            for name in sorted(names)
        ]
        return tuple(sorted(found, key=lambda count: -count.attempts))


def _cursor_of(entry: tuple[str, str, Event]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(entry[:2])).decode().rstrip("=")


def _place_of(cursor: str) -> _Place:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, known = orjson.loads(base64.urlsafe_b64decode(padded.encode()))
        if text_time(datetime.fromisoformat(at)) != at or not isinstance(known, str):
            raise ValueError(at)
    except (ValueError, TypeError, UnicodeEncodeError):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the cursor is not one of this list",
            cursor=ascii(cursor[:80])[1:-1],
            hint="start again without a cursor",
        ) from None
    return at, known
