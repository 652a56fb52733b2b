"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_datetime

_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_when(name: str, text: str, clock: Clock) -> datetime | None:
    """``1h`` (an hour ago) or an RFC 3339 time with its zone; None for "".

    Units are s, m, h, d and w. Raises ``invalid``, naming the parameter, for anything else.
    """
    if not text:
        return None
    try:
        if (match := _AGO.fullmatch(text)) is not None:
            now = to_datetime(clock.now_us())
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        # A plus sign that was not percent-encoded arrives as a space.
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        if when.tzinfo is not None:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise LakehouseError(
        ErrorKind.INVALID,
        f"{name} must be a duration or an RFC 3339 time with its zone",
        parameter=name,
        value=ascii(text[:80])[1:-1],
        hint="for example 1h, 7d or 2026-11-21T02:00:00Z",
    )
