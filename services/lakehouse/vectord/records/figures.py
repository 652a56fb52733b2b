"""What became of retrievals, as figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lakehouse.kit.figures import Figure, Kind, Readout, alone

__all__ = ["RecordFigures"]

_RECORDED: Final = Figure(
    "lakehouse_retrievals_recorded",
    Kind.COUNTER,
    "retrievals that were given to the log: noted (best-effort), or kept before they were answered",
    ("class",),
)
_DROPPED: Final = Figure(
    "lakehouse_retrievals_dropped",
    Kind.COUNTER,
    "retrievals that are lost: queue, spool or the room for large ones was full, disk or bucket"
    " refused, or the process ended",
    ("kind",),
)
_WAITING: Final = Figure(
    "lakehouse_retrievals_waiting",
    Kind.GAUGE,
    "retrievals in memory or in the spool that the log does not have yet",
)


@dataclass(frozen=True, slots=True)
class RecordFigures:
    """``counts``: noted and kept; ``dropped`` by reason."""

    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    waiting: int

    def readouts(self) -> Iterator[Readout]:
        """All of them."""
        yield _RECORDED, {(how,): self.counts.get(how, 0) for how in ("noted", "kept")}
        yield _DROPPED, {(kind,): count for kind, count in self.dropped.items()}
        yield alone(_WAITING, self.waiting)
