"""Conditions and ranges of a read, judged by what the object is: plain functions, RFC 9110."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Final

from lakehouse.contracts.objects import Conditions, ObjectInfo, ObjectRange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.port import ByteRange

ANY: Final = "*"
_FAR_END: Final = 1 << 62


def is_not_modified(conditions: Conditions, info: ObjectInfo) -> bool:
    """Whether the caller has this object already (RFC 9110, 13.2.2).

    Times are compared in whole seconds, as they travel. Raises ``conflict`` with http_status 412
    where the object is not the one that the caller means.
    """
    if conditions.if_match:
        if not _names(conditions.if_match, info.etag):
            raise _failed("if_match", info)
    elif conditions.if_unmodified_since is not None and _later(
        info.modified_at, conditions.if_unmodified_since
    ):
        raise _failed("if_unmodified_since", info)
    if conditions.if_none_match:
        return _names(conditions.if_none_match, info.etag)
    since = conditions.if_modified_since
    return (
        since is not None and info.modified_at is not None and not _later(info.modified_at, since)
    )


def check_span(asked: ObjectRange) -> None:
    """Raise ``invalid`` for a range that is empty, backwards, or two ranges at once."""
    if asked.last is not None:
        sound = asked.last >= 0 and asked.start == 0 and asked.end is None
    else:
        sound = asked.start >= 0 and (asked.end is None or asked.start < asked.end)
    if not sound:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a range is [start, end) with start before end, or the last so many bytes",
            start=asked.start,
            end=asked.end,
            last=asked.last,
        )


def unsized(asked: ObjectRange) -> ByteRange | None:
    """The bytes a range asks for where that can be said without the object's size, else None."""
    if asked.last is not None:
        return None
    end = _FAR_END if asked.end is None else min(asked.end, _FAR_END)
    return ByteRange(asked.start, end) if asked.start < end else None


def sized(asked: ObjectRange, size_bytes: int) -> ByteRange:
    """The bytes a range asks for. Raises ``invalid`` with http_status 416 if there are none."""
    end = size_bytes if asked.end is None else min(asked.end, size_bytes)
    start = asked.start if asked.last is None else max(0, size_bytes - asked.last)
    if start >= end:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the range is past the end of the object",
            http_status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE.value,
            size_bytes=size_bytes,
        )
    return ByteRange(start, end)


def _names(etags: tuple[str, ...], etag: str) -> bool:
    return ANY in etags or (etag != "" and etag in etags)


def _later(modified: datetime | None, when: datetime) -> bool:
    return modified is not None and modified.replace(microsecond=0) > when


def _failed(condition: str, info: ObjectInfo) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CONFLICT,
        "the object is not the one that the condition is about",
        http_status=HTTPStatus.PRECONDITION_FAILED.value,
        condition=condition,
        bucket=info.bucket,
        key=info.key,
        etag=info.etag,
        hint="look at it again and decide anew",
    )
