"""What a bucket may be called, and which classes of buckets there are (ADR-017). Pure."""

from __future__ import annotations

import re
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import PRIMARY

__all__ = ["BUCKET_DOCUMENTS", "TENANT", "check_bucket_class", "check_bucket_name"]

TENANT: Final = "tenant"
BUCKET_DOCUMENTS: Final = "bucket"
"""The kind of the catalog documents that keep buckets added at run time; the id is the name."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PROFILE: Final = re.compile(r"profile:[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


def check_bucket_name(name: str) -> str:
    """Return ``name`` if it has 1 to 63 characters a-z, 0-9, ``_`` and ``-``, a letter or digit
    first; else raise ``invalid``."""
    if not _NAME.fullmatch(name):
        raise LakehouseError(
            ErrorKind.INVALID,
            "a bucket's name has 1 to 63 characters a-z, 0-9, _ and -, a letter or digit first",
            bucket=ascii(name[:80])[1:-1],
        )
    return name


def check_bucket_class(name: str, bucket_class: str) -> str:
    """Return ``bucket_class`` if the bucket ``name`` may be of it, else raise ``invalid``.

    ``primary`` is the bucket of that name and no other; ``tenant`` and ``profile:{user}`` are the
    others'.
    """
    if name == PRIMARY or bucket_class == PRIMARY:
        sound = name == bucket_class
    else:
        sound = bucket_class == TENANT or _PROFILE.fullmatch(bucket_class) is not None
    if not sound:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a bucket is of the class tenant or profile:{user}; only primary is of class primary",
            bucket=name[:80],
            bucket_class=ascii(bucket_class[:80])[1:-1],
        )
    return bucket_class
