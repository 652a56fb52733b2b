"""Points in a store's history, as commands take them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.as_of import AsOf

POINT: Final = "VERSION|TIME|tag:NAME"
_TAG: Final = "tag:"


def point(text: str) -> AsOf:
    """A store version, an RFC 3339 time with its zone, or a tag; "" is now.

    Raises ``invalid`` for anything else.
    """
    from lakehouse.contracts.as_of import AsOf

    if not text:
        return AsOf()
    if text.isdecimal():
        return AsOf(version=int(text))
    if text.startswith(_TAG) and text != _TAG:
        return AsOf(tag=text.removeprefix(_TAG))
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a point in time is a version, an RFC 3339 time, or a tag",
            value=text,
            hint="for example 812, 2026-01-31T10:00:00Z or tag:march",
        )
    return AsOf(time=when)
