"""When the janitor looks, and what it asks a look at."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class JanitorSettings:
    """Section ``janitor``. A dataset beyond one of the counts is given to compaction, which knows
    what pays.

    Attributes:
        compact_seconds: between passes, more or less a tenth; 0 is never.
        concurrent_max: compactions that are asked for at once.
        key_files: objects with keys of replaced or deleted rows.
        event_files: objects of the journal.
        small_files: objects with rows, where they are smaller than ``small_file_bytes`` on average.
    """

    compact_seconds: float = 60.0
    concurrent_max: int = 2
    key_files: int = 7
    event_files: int = 64
    small_files: int = 64
    small_file_bytes: int = 64 * _MIB
