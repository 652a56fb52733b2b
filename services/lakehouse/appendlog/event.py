"""One event: a JSON object with a time (``at``) and, where it may come twice, an ``id``."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import orjson

from lakehouse.appendlog.settings import PLACES
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.ledger.machine import JsonObject

_EPOCH: Final = to_datetime(0)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """``seq`` orders all events of a log and is 0 for one that is not in the bucket yet."""

    seq: int
    event: JsonObject


class Line(NamedTuple):
    """An event as it is stored, without its line break, and its time."""

    data: bytes
    at_us: int


def seq_of(n: int, place: int) -> int:
    """The number of the event on line ``place`` (from 1) of batch ``n``: rises, is not dense."""
    return n * PLACES + place


def batch_of(seq: int) -> int:
    """The batch that holds event ``seq``."""
    return seq // PLACES


def text_time(micros: int) -> str:
    """RFC 3339 in UTC, always with microseconds."""
    return to_datetime(micros).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def micros_of(at: object) -> int:
    """The time in an event's ``at``: RFC 3339 text with a zone, or an aware datetime.

    Raises ``invalid``.
    """
    try:
        when = datetime.fromisoformat(at) if isinstance(at, str) else at
        if isinstance(when, datetime) and when.tzinfo is not None:
            past = when - _EPOCH
            return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
    except (ValueError, OverflowError):
        pass
    raise LakehouseError(
        ErrorKind.INVALID, "the time of an event must be RFC 3339 with a zone", at=str(at)[:40]
    )


def encode_event(event: JsonObject, now_us: int, fresh_id: str = "") -> Line:
    """The line of ``event``; it gets ``at`` (now), and ``id`` if one is given, where it has none.

    Raises ``invalid`` for what is not a JSON object, or has an ``at`` or ``id`` of another type.
    """
    if not isinstance(event, dict):
        raise LakehouseError(ErrorKind.INVALID, "an event must be a JSON object")
    at = event.get("at")
    at_us = now_us if at is None else micros_of(at)
    added = {"at": text_time(now_us)} if at is None else {}
    known = event.get("id")
    if known is None and fresh_id:
        added = {"id": fresh_id, **added}
    elif known is not None and not isinstance(known, str):
        raise LakehouseError(ErrorKind.INVALID, "the id of an event must be text")
    try:
        return Line(orjson.dumps({**added, **event, **added} if added else event), at_us)
    except (TypeError, ValueError) as error:  # orjson.JSONEncodeError is a TypeError
        raise LakehouseError(
            ErrorKind.INVALID, "an event cannot be written as JSON", reason=str(error)[:200]
        ) from error


def decode_event(data: bytes) -> JsonObject | None:
    """The event on a line; ``None`` if it is none."""
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def line_of(data: bytes) -> Line | None:
    """A stored line with its time; ``None`` if it is no event."""
    event = decode_event(data)
    if event is None:
        return None
    try:
        return Line(data, micros_of(event.get("at")))
    except LakehouseError:
        return None


def checks_of(lines: Sequence[bytes]) -> str:
    """The CRC-32 of each line, packed: so that one bad line costs one line."""
    return base64.b64encode(struct.pack(f"<{len(lines)}I", *map(zlib.crc32, lines))).decode()


def unpack_checks(text: str) -> tuple[int, ...]:
    """The inverse of ``checks_of``; raises ValueError."""
    data = base64.b64decode(text, validate=True)
    if len(data) % 4:
        raise ValueError("the checks are cut")
    return struct.unpack(f"<{len(data) // 4}I", data)
