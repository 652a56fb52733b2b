"""What went wrong between this lakehouse and a bucket, an attempt at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AttemptOutcome(StrEnum):
    """What the operation's caller got after this attempt failed.

    ``RETRIED``: nothing yet, another attempt followed. ``FAILED``: the error. ``RESCUED``: the
    bytes, from the rescue bucket. ``GIVEN_UP``: nobody waited any more (cancelled, deadline).
    """

    RETRIED = "retried"
    FAILED = "failed"
    RESCUED = "rescued"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt at a bucket that failed; each is journaled exactly once.

    Attributes:
        id: a ULID, unique to the attempt; the journal may meet it twice and keeps it once.
        at: when it failed, UTC.
        operation: get put head list delete (a streamed one counts as get or put).
        key: the object's key, or the prefix of a list; the first key of a delete.
        error_kind: an ``ErrorKind``'s value.
        reason: the error's message; never a secret, at most 300 characters.
        http_status: what the server answered, 0 where there was no answer.
        store_request_id: the server's id of the request, "" where it gave none.
        latency_ms: from the start of the attempt to its failure.
        op_id: the operation it belongs to; all attempts of one share it.
        attempt: its number in the operation, from 1.
        final: no other attempt followed.
        sent: False where the request never left: the breaker was open or the bulkhead full.
        actor: who asked; a role's name for its own work.
        request_id: of the call it served, "" for a role's own work.
    """

    id: str
    at: datetime
    bucket: str
    operation: str
    key: str
    error_kind: str
    reason: str
    http_status: int
    store_request_id: str
    latency_ms: float
    op_id: str
    attempt: int
    final: bool
    outcome: AttemptOutcome
    sent: bool = True
    actor: str = ""
    request_id: str = ""
