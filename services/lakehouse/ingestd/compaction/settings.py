"""What compaction may use, and when it pays."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class CompactionSettings:
    """Section ``compaction``.

    Attributes:
        deltas_max: live row changes of a dataset; beyond it they are folded into a few. As many
            small files and as many event objects are let be, too.
        delta_share: changed rows to the others, beyond which all is folded into the rows.
        file_bytes_target: size of the files that are made; those below half of it are small.
        rows_max: rows that one fold in memory may take.
        memory_bytes: of rows in memory of one compaction; the rest lies on disk.
        spill_bytes_max: bytes on disk that one compaction may take.
        rebases_max: how often it is planned again when its inputs are gone at the commit.
    """

    deltas_max: int = 64
    delta_share: float = 0.1
    file_bytes_target: int = 128 * _MIB
    rows_max: int = 1_000_000
    memory_bytes: int = 256 * _MIB
    spill_bytes_max: int = 256 * _GIB
    rebases_max: int = 4
