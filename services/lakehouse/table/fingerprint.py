"""The fingerprint of a schema: ours, canonical, and independent of any library's version.

``fp1:`` is the SHA-256 of the canonical JSON (no spaces, UTF-8, no escapes but JSON's own) of
``[[name, type], ...]``, names in NFC, sorted by the UTF-8 bytes of the name. Column ids and the
order of columns do not matter. The form never changes: a new one would be ``fp2:`` beside it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Column

__all__ = ["fingerprint", "is_fingerprint"]

PREFIX: Final = "fp1:"
_FORM: Final = re.compile(r"fp1:[0-9a-f]{64}")


def is_fingerprint(text: str) -> bool:
    """True if ``text`` has the form ``fp1:`` and 64 lower-case hex digits."""
    return _FORM.fullmatch(text) is not None


def fingerprint(columns: Sequence[Column]) -> str:
    """The fingerprint of ``columns``; ids and order do not matter.

    Raises ``invalid`` if two names are equal in NFC: such a schema has no canonical form.
    """
    pairs = [[unicodedata.normalize("NFC", column.name), column.type] for column in columns]
    pairs.sort(key=lambda pair: pair[0].encode())
    for before, after in itertools.pairwise(pairs):
        if before[0] == after[0]:
            raise LakehouseError(
                ErrorKind.INVALID,
                "two columns have the same name",
                column=after[0],
                hint="rename one of them",
            )
    canonical = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
    return PREFIX + hashlib.sha256(canonical.encode()).hexdigest()
