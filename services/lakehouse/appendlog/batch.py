"""One batch: a header line, then one event a line. What a slot holds, readable with ``jq``.

The header's ``sha256`` covers everything after it; its own ``check`` the header before that field,
so that the first bytes of an object suffice for a search by time; ``crc32`` is one check a line, so
that one bad line costs one event and not its batch.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from lakehouse.appendlog.event import (
    Line,
    LogEvent,
    checks_of,
    decode_event,
    micros_of,
    seq_of,
    text_time,
    unpack_checks,
)
from lakehouse.errors import ErrorKind, LakehouseError

FORMAT: Final = 1
HEADER_BYTES: Final = 2048
"""The fields of a header that a search needs lie in its first so many bytes."""

START: Final = b'{"format":'
_CHECK: Final = b',"check":"'
_CHECK_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Header:
    """What a batch says of itself.

    Attributes:
        at_us: when it was written, by the log's own time: strictly rises along the chain.
        first_us, last_us: earliest and latest time of its events.
        spread_us: how far the time of any event so far was from the ``at_us`` of its batch; never
            falls along the chain. So an event of time t is in a batch with ``|at - t| <= spread``.
        size_bytes: of everything after the header line.
    """

    n: int
    count: int
    writer: str
    put_id: str
    at_us: int
    first_us: int
    last_us: int
    spread_us: int
    size_bytes: int
    sha256: str

    @property
    def first_seq(self) -> int:
        return seq_of(self.n, 1)

    @property
    def last_seq(self) -> int:
        return seq_of(self.n, self.count)


@dataclass(frozen=True, slots=True)
class Body:
    """Events on their way: the same bytes in whichever slot they end up."""

    put_id: str
    lines: tuple[bytes, ...]
    first_us: int
    last_us: int
    data: bytes
    sha256: str
    checks: str


@dataclass(frozen=True, slots=True)
class Position:
    """What the next batch must know of the one before; ``n`` is -1 before the first."""

    n: int = -1
    at_us: int = 0
    spread_us: int = 0

    @staticmethod
    def of(header: Header) -> Position:
        return Position(header.n, header.at_us, header.spread_us)


@dataclass(frozen=True, slots=True)
class Encoded:
    header: Header
    data: bytes


def make_body(put_id: str, lines: Sequence[Line]) -> Body:
    """``lines`` (at least one) as the rest of a batch, in their order."""
    stored = tuple(line.data for line in lines)
    data = b"\n".join(stored) + b"\n"
    times = [line.at_us for line in lines]
    return Body(
        put_id=put_id,
        lines=stored,
        first_us=min(times),
        last_us=max(times),
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        checks=checks_of(stored),
    )


def encode(body: Body, before: Position, writer: str, now_us: int) -> Encoded:
    """The batch that puts ``body`` into the slot after ``before``."""
    at_us = max(now_us, before.at_us + 1)
    spread_us = max(before.spread_us, abs(at_us - body.first_us), abs(body.last_us - at_us))
    header = Header(
        n=before.n + 1,
        count=len(body.lines),
        writer=writer,
        put_id=body.put_id,
        at_us=at_us,
        first_us=body.first_us,
        last_us=body.last_us,
        spread_us=spread_us,
        size_bytes=len(body.data),
        sha256=body.sha256,
    )
    fields = {
        "format": FORMAT,
        "n": header.n,
        "first_seq": header.first_seq,
        "count": header.count,
        "writer": writer,
        "put_id": header.put_id,
        "at": text_time(at_us),
        "first_at": text_time(header.first_us),
        "last_at": text_time(header.last_us),
        "spread_us": spread_us,
        "bytes": header.size_bytes,
        "sha256": header.sha256,
    }
    return Encoded(header, seal_header(fields, body.checks) + body.data)


def seal_header(fields: dict[str, Any], checks: str | None = None) -> bytes:
    """A header line of ``fields``, with its check, and the checks of its lines."""
    core = orjson.dumps(fields)[:-1]
    tail = b"" if checks is None else b',"crc32":"' + checks.encode() + b'"'
    return core + _CHECK + _check(core) + b'"' + tail + b"}\n"


def _check(core: bytes) -> bytes:
    return hashlib.sha256(core).hexdigest()[:_CHECK_LENGTH].encode()


def open_header(data: bytes, key: str) -> dict[str, Any]:
    """The fields of the header that ``data`` begins with, all of it or its first bytes.

    Raises ``corrupt`` naming ``key``, ``conflict`` for a newer format.
    """
    end = data.find(_CHECK, 0, HEADER_BYTES * 2)
    core, start = data[:end], end + len(_CHECK)
    if end < 0 or data[start : start + _CHECK_LENGTH] != _check(core):
        raise damaged("the header of a batch does not match its check", key)
    try:
        fields = orjson.loads(core + b"}")
    except orjson.JSONDecodeError as error:
        raise damaged("the header of a batch is not JSON", key) from error
    if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
        raise damaged("the header of a batch has no format", key)
    if fields["format"] > FORMAT:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "a batch of the log was written by a newer version",
            key=key,
            reads=FORMAT,
            hint="upgrade this node",
        )
    return fields


def read_header(data: bytes, key: str) -> Header:
    """The header of a batch, from its first ``HEADER_BYTES`` bytes or more; raises as
    ``open_header``."""
    fields = open_header(data, key)
    try:
        return Header(
            n=int(fields["n"]),
            count=int(fields["count"]),
            writer=str(fields["writer"]),
            put_id=str(fields["put_id"]),
            at_us=micros_of(fields["at"]),
            first_us=micros_of(fields["first_at"]),
            last_us=micros_of(fields["last_at"]),
            spread_us=int(fields["spread_us"]),
            size_bytes=int(fields["bytes"]),
            sha256=str(fields["sha256"]),
        )
    except (KeyError, TypeError, ValueError, LakehouseError) as error:
        raise damaged("the header of a batch lacks a field", key) from error


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as read: its good lines by place, and how many of its lines are damaged."""

    header: Header
    lines: tuple[tuple[int, bytes], ...]
    bad_lines: int

    def events(self) -> list[LogEvent]:
        """The events, in order; a line that is no JSON object is left out."""
        found: list[LogEvent] = []
        for place, data in self.lines:
            event = decode_event(data)
            if event is not None:
                found.append(LogEvent(seq_of(self.header.n, place), event))
        return found


def read_batch(data: bytes, key: str) -> Batch:
    """The batch in ``data``: every line if its checksum holds, else those whose own check does.

    Raises ``corrupt`` if the header is damaged, ``conflict`` for a newer format.
    """
    header = read_header(data, key)
    end = data.find(b"\n")
    rest = data[end + 1 :] if end >= 0 else b""
    # Exactly as many parts as there are line breaks, plus what follows the last one.
    lines = rest.split(b"\n")
    if hashlib.sha256(rest).hexdigest() == header.sha256:
        numbered = tuple(enumerate(lines[:-1], 1))
        return Batch(header, numbered, 0 if len(numbered) == header.count else header.count)
    good = _salvage(data[:end], lines)
    return Batch(header, good, header.count - len(good))


def _salvage(header: bytes, lines: Sequence[bytes]) -> tuple[tuple[int, bytes], ...]:
    """The lines whose check holds, each at its place; lines may have been torn or joined."""
    try:
        checks = unpack_checks(orjson.loads(header)["crc32"])
    except (ValueError, KeyError, TypeError):
        return ()
    good: list[tuple[int, bytes]] = []
    place = 0
    for line in lines:
        check = zlib.crc32(line)
        try:
            at = checks.index(check, place)
        except ValueError:
            continue
        place = at + 1
        good.append((place, line))
    return tuple(good)


def damaged(message: str, key: str) -> LakehouseError:
    """A ``corrupt`` error that names the object."""
    return LakehouseError(
        ErrorKind.CORRUPT, message, key=key, hint="restore the object from a backup"
    )
