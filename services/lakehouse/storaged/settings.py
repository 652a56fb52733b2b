"""What the error journal may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Part of section ``storage``.

    Attributes:
        errors_ring: failed attempts held in memory, the newest (about 1 KB each); what is asked of
            them needs no request to the primary.
    """

    errors_ring: int = 10_000
