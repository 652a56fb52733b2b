"""Errors of a store with what its server said, for journals and breakers; callers get the fields.

The server's status and request id are attributes, not fields: they are for who keeps the journal.
"""

from __future__ import annotations

from typing import Final

from lakehouse.errors import ErrorKind, FieldValue, LakehouseError

# What a store answers in the ordinary course, unless a server says otherwise by its status.
_ORDINARY: Final = frozenset({ErrorKind.NOT_FOUND, ErrorKind.ALREADY_EXISTS, ErrorKind.CONFLICT})
_RANGE_REFUSED: Final = 416
_BUCKET_FAULTS: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT})
_AMBIGUOUS: Final = _BUCKET_FAULTS | {ErrorKind.UNKNOWN}


UNSENT: Final = "nothing was sent to the store yet"
"""A note on the cancellation of who waited for a place."""


class StoreError(LakehouseError):
    """A ``LakehouseError`` that remembers the answer it was made of.

    Attributes:
        status: of the server's answer, 0 where there was none.
        request_id: the server's id of the request, "" where it gave none.
        sent: False where nothing was sent.
        refused: True where the server answered that it will not, so that nothing was done, though
            the kind says ``unavailable``: the same request may do better now.
    """

    def __init__(self, kind: ErrorKind, message: str, /, **fields: FieldValue) -> None:
        super().__init__(kind, message, **fields)
        self.status = 0
        self.request_id = ""
        self.sent = True
        self.refused = False


def was_sent(error: BaseException) -> bool:
    """False if certainly nothing was sent to the store."""
    if isinstance(error, StoreError):
        return error.sent
    return UNSENT not in getattr(error, "__notes__", ())


def was_done_perhaps(error: LakehouseError) -> bool:
    """Whether nobody knows if a write that ended so took effect."""
    if error.kind not in _AMBIGUOUS:
        return False
    return not isinstance(error, StoreError) or (error.sent and not error.refused)


def is_ordinary(error: LakehouseError) -> bool:
    """Whether it is an answer to the question (404, a name that is taken, a range past the end, an
    argument that no store takes) and no failure of the attempt."""
    if error.kind is ErrorKind.INVALID:
        return not isinstance(error, StoreError) or error.status in (0, _RANGE_REFUSED)
    return error.kind in _ORDINARY and error.fields.get("what") != "bucket"


def is_bucket_fault(error: LakehouseError) -> bool:
    """Whether it speaks against the bucket as a place: it did not answer, or not in time."""
    if error.kind not in _BUCKET_FAULTS:
        return False
    return not isinstance(error, StoreError) or (error.sent and not error.refused)
