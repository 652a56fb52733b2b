"""Names of things: dataset names, object keys, references to objects in named buckets."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError

KEY_BYTES_MAX: Final = 512
NAME_BYTES_MAX: Final = 255
PRIMARY: Final = "primary"
SYSTEM_SCHEMA: Final = "system"
_OWNED: Final = frozenset({"datasets", "rescue", "store.json"})

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object in exactly one named bucket (ADR-017); ``key`` is below the bucket URL's prefix."""

    bucket: str
    key: str


def _invalid(what: str, value: str, why: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID, f"{what} {why}", value=ascii(value[:80])[1:-1], what=what
    )


def check_key(key: str) -> str:
    """Return ``key`` if it may name an object in any store, else raise ``invalid``.

    At most 512 bytes of UTF-8 in NFC, no control characters, no backslash, no leading, trailing or
    doubled slash, no ``.`` or ``..`` component.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise _invalid("object key", key, "is not valid Unicode") from None
    if not key or size > KEY_BYTES_MAX:
        raise _invalid("object key", key, f"must have 1 to {KEY_BYTES_MAX} bytes, has {size}")
    if _CONTROL.search(key) or "\\" in key or unicodedata.normalize("NFC", key) != key:
        raise _invalid("object key", key, "must be NFC without control characters or backslashes")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise _invalid("object key", key, "must not have empty, '.' or '..' components")
    return key


def is_owned(key: str) -> bool:
    """True for a key, or the beginning of one, that the lakehouse keeps for itself.

    Keys that start with ``_`` or ``.``, and all whose first component is ``datasets``, ``rescue``
    or ``store.json``; also where case or width is folded by a file system below us.
    """
    first = unicodedata.normalize("NFKC", key.partition("/")[0]).casefold()
    return first.startswith(("_", ".")) or first in _OWNED


def check_foreign_key(key: str) -> str:
    """Return ``key`` if it may name an object that a caller put into a bucket, else raise.

    What the lakehouse keeps for itself is read by nobody through a key of theirs: the ledger holds
    token documents, ``datasets/`` and ``rescue/`` the rows of others and of what was purged.
    ``forbidden`` where ``is_owned``; ``invalid`` as ``check_key``.
    """
    check_key(key)
    if is_owned(key):
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "the object's key is one that the lakehouse keeps for itself",
            key=key,
            hint="put it under a key of your own: not store.json, not below datasets/ or rescue/,"
            " and not starting with _ or a dot",
        )
    return key


def check_name(name: str, what: str = "dataset name") -> str:
    """Return the display form (NFC, stripped) of a user's name, or raise ``invalid``.

    Any script is welcome; refused are control and format characters, slashes, backslashes, quotes
    of SQL, a leading dot and more than 255 bytes.
    """
    try:
        display = unicodedata.normalize("NFC", name).strip()
        size = len(display.encode())
    except UnicodeEncodeError:
        raise _invalid(what, name, "is not valid Unicode") from None
    if not display or size > NAME_BYTES_MAX:
        raise _invalid(what, name, f"must have 1 to {NAME_BYTES_MAX} bytes, has {size}")
    if _CONTROL.search(display):
        raise _invalid(what, name, "must not contain control or format characters")
    if any(char in display for char in "/\\\"'`") or display.startswith("."):
        raise _invalid(what, name, "must not contain slashes or quotes nor start with a dot")
    return display


def name_key(name: str) -> str:
    """The form in which names are compared: NFC of the casefold of NFC (Unicode caseless match)."""
    folded = unicodedata.normalize("NFC", name).strip().casefold()
    return unicodedata.normalize("NFC", folded)
