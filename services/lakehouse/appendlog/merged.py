"""Merged objects: batches one after the other, byte for byte, behind a header of their own.

The object's name carries the SHA-256 of all its bytes, so the same batches make the same object
whoever merges them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lakehouse.appendlog.batch import (
    FORMAT,
    START,
    Header,
    damaged,
    open_header,
    read_header,
    seal_header,
)
from lakehouse.appendlog.event import micros_of, seq_of, text_time
from lakehouse.errors import LakehouseError

_NEXT: Final = b"\n" + START


@dataclass(frozen=True, slots=True)
class MergedHeader:
    """The batches ``first`` to ``last``, written between ``at_us`` and ``last_at_us``."""

    first: int
    last: int
    at_us: int
    last_at_us: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes of one batch in a merged object; ``header`` is ``None`` where it is damaged."""

    header: Header | None
    data: bytes


def merge(first: int, last: int, batches: Sequence[bytes]) -> bytes:
    """The merged object of the batches ``first`` to ``last``, given in order, each whole.

    A damaged batch is carried along as it is: merging hides no damage.
    """
    body = b"".join(one if one.endswith(b"\n") else one + b"\n" for one in batches)
    headers = [piece.header for piece in _pieces(body, 0) if piece.header is not None]
    fields = {
        "format": FORMAT,
        "from": first,
        "to": last,
        "first_seq": seq_of(first, 1),
        "count": sum(header.count for header in headers),
        "at": text_time(headers[0].at_us if headers else 0),
        "last_at": text_time(headers[-1].at_us if headers else 0),
        "bytes": len(body),
    }
    return seal_header(fields) + body


def body_of(data: bytes) -> bytes:
    """What follows the header line of a merged object."""
    return data[data.find(b"\n") + 1 :]


def read_merged_header(data: bytes, key: str) -> MergedHeader:
    """From the first bytes of a merged object; raises ``corrupt``, ``conflict``."""
    fields = open_header(data, key)
    try:
        return MergedHeader(
            int(fields["from"]),
            int(fields["to"]),
            micros_of(fields["at"]),
            micros_of(fields["last_at"]),
        )
    except (KeyError, TypeError, ValueError, LakehouseError) as error:
        raise damaged("the header of a merged object lacks a field", key) from error


def pieces(data: bytes) -> Iterator[Piece]:
    """The batches of a merged object in order; after damage it goes on at the next header."""
    return _pieces(data, data.find(b"\n") + 1)


def _pieces(data: bytes, at: int) -> Iterator[Piece]:
    while at < len(data):
        line = data.find(b"\n", at)
        header: Header | None = None
        end = -1
        try:
            header = read_header(data[at : line if line >= 0 else len(data)], "")
            end = line + 1 + header.size_bytes
        except LakehouseError:
            header = None
        if header is None or not (end == len(data) or data.startswith(START, end)):
            following = data.find(_NEXT, at + 1)
            end = following + 1 if following >= 0 else len(data)
        yield Piece(header, data[at:end])
        at = end


def digest(data: bytes) -> str:
    """What the name of a merged object carries."""
    return hashlib.sha256(data).hexdigest()
