"""Checks of arguments that all adapters share, so that they refuse alike."""

from __future__ import annotations

from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import check_key
from lakehouse.objectstore.port import ByteRange

LIST_LIMIT_MAX: Final = 1000
PART_BYTES: Final = 8 * 1024 * 1024
"""Size of one part of a streamed write, and of one chunk of a streamed read, at most."""


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if it is "" or a valid key followed by "/", else raise ``invalid``."""
    if not prefix:
        return prefix
    if not prefix.endswith("/"):
        raise LakehouseError(
            ErrorKind.INVALID, "a list prefix must be empty or end in a slash", prefix=prefix[:80]
        )
    check_key(prefix[:-1])
    return prefix


def check_listing(prefix: str, start_after: str, limit: int) -> None:
    """Raise ``invalid`` for a prefix, position or limit that no store would take."""
    check_prefix(prefix)
    if not 1 <= limit <= LIST_LIMIT_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, f"a list limit must be 1 to {LIST_LIMIT_MAX}", limit=limit
        )
    if start_after:
        check_key(start_after.removesuffix("/"))


FAR: Final = "\U0010ffff"
"""Greater than what any key goes on with."""


def check_browsing(prefix: str, limit: int) -> None:
    """Raise ``invalid`` for a beginning that no key can have, or a limit that no store takes."""
    if prefix:
        check_key((prefix + "x") if prefix.endswith(("/", ".")) else prefix)
    check_listing("", "", limit)


def just_before(prefix: str) -> str:
    """A text less than all that begins with ``prefix`` and, but for keys that nobody has, greater
    than all before; to compare with, not to send."""
    return prefix[:-1] + chr(ord(prefix[-1]) - 1) + FAR if prefix else ""


def check_range(byte_range: ByteRange) -> None:
    """Raise ``invalid`` for a range that is empty or backwards."""
    if not 0 <= byte_range.start < byte_range.end:
        raise range_refused("", byte_range)


def range_refused(key: str, byte_range: ByteRange, size_bytes: int | None = None) -> LakehouseError:
    """The error for a range that cannot be read."""
    return LakehouseError(
        ErrorKind.INVALID,
        "the byte range is empty or starts past the end",
        key=key,
        start=byte_range.start,
        end=byte_range.end,
        size_bytes=size_bytes,
    )


def no_such_key(key: str) -> LakehouseError:
    """The error for a key that names nothing."""
    return LakehouseError(ErrorKind.NOT_FOUND, "no object has this key", key=key)


def key_taken(key: str) -> LakehouseError:
    """The error for a conditional put on a name that is taken."""
    return LakehouseError(ErrorKind.ALREADY_EXISTS, "an object with this key exists", key=key)
