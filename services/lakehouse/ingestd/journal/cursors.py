"""Opaque cursors: the place of the last thing that was told, never an offset. Pure."""

from __future__ import annotations

import base64
from typing import Any, Final

import orjson

from lakehouse.errors import ErrorKind, LakehouseError

__all__ = ["decode_cursor", "encode_cursor"]

_INT_MAX: Final = 1 << 62


def encode_cursor(*parts: str | int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: tuple[type, ...]) -> list[Any]:
    """The parts of a cursor. Raises ``invalid`` for one that we did not make."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = orjson.loads(base64.urlsafe_b64decode(padded.encode()))
    except (ValueError, UnicodeEncodeError):
        parts = None
    good = isinstance(parts, list) and [type(part) for part in parts] == list(kinds)
    if not good or any(isinstance(part, int) and abs(part) > _INT_MAX for part in parts or ()):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the cursor is not one of this list",
            cursor=ascii(cursor[:80])[1:-1],
            hint="start again without a cursor",
        )
    return list(parts or ())
