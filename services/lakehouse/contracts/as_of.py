"""A point in the store's history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AsOf:
    """A point in the store's history: a version, a time (the last version at or before it), or the
    version that a tag names.

    At most one is set; none means now. ``min_version`` asks for at least that version.
    """

    version: int | None = None
    time: datetime | None = None
    min_version: int | None = None
    tag: str = ""
