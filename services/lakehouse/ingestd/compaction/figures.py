"""What was compacted, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.contracts.rows import CompactReport
from lakehouse.kit.figures import SECONDS, Distribution, Figure, Kind, Readout, alone

_RUNS: Final = Figure(
    "lakehouse_compactions",
    Kind.COUNTER,
    "compactions that have ended: done, no_op, or the kind of the error",
    ("outcome",),
)
_SECONDS: Final = Figure(
    "lakehouse_compaction_seconds",
    Kind.DISTRIBUTION,
    "from the plan to the commit, for compactions that replaced files",
)
_READ: Final = Figure("lakehouse_compaction_read_bytes", Kind.COUNTER, "bytes of objects read")
_WRITTEN: Final = Figure(
    "lakehouse_compaction_written_bytes", Kind.COUNTER, "bytes of objects put in their place"
)
_REBASED: Final = Figure(
    "lakehouse_compaction_rebases", Kind.COUNTER, "plans made again, for their inputs were gone"
)
_OPEN: Final = Figure("lakehouse_compactions_open", Kind.GAUGE, "compactions under way")
_BOUNDS: Final = (*SECONDS, 300.0, 1800.0, 7200.0)


class CompactionFigures:
    """Counters of one compactor."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, ...], int] = {}
        self._seconds = Distribution(_BOUNDS)
        self._read = 0
        self._written = 0
        self._rebased = 0

    def reported(self, report: CompactReport) -> None:
        """A compaction came to its report."""
        self._read += report.bytes_read
        self._written += report.bytes_written
        self._rebased += report.rebased
        self.ended("no_op" if report.no_op else "done")
        if not report.no_op:
            self._seconds.observe(report.elapsed_ms / 1e3)

    def ended(self, outcome: str) -> None:
        self._ended[(outcome,)] = self._ended.get((outcome,), 0) + 1

    def figures(self, present: int) -> Iterator[Readout]:
        """All of them; ``present`` compactions are under way."""
        yield _RUNS, self._ended
        yield alone(_SECONDS, self._seconds)
        yield alone(_READ, self._read)
        yield alone(_WRITTEN, self._written)
        yield alone(_REBASED, self._rebased)
        yield alone(_OPEN, present)
