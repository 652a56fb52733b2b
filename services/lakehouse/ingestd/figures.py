"""What was ingested, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.contracts.ingest import IngestReport
from lakehouse.kit.figures import SECONDS, Distribution, Figure, Kind, Readout, alone

_INGESTS: Final = Figure(
    "lakehouse_ingests",
    Kind.COUNTER,
    "ingests that have ended: done, no_op, dry_run, cancelled, or the kind of the error",
    ("outcome",),
)
_SECONDS: Final = Figure(
    "lakehouse_ingest_seconds",
    Kind.DISTRIBUTION,
    "from the call to its report, for ingests that made rows queryable",
)
_ROWS: Final = Figure("lakehouse_ingest_rows", Kind.COUNTER, "rows made queryable")
_BYTES: Final = Figure("lakehouse_ingest_bytes", Kind.COUNTER, "bytes of files read")
_DEAD: Final = Figure(
    "lakehouse_ingest_dead_letters", Kind.COUNTER, "rows laid aside because they do not fit"
)
_PRESENT: Final = Figure(
    "lakehouse_ingests_open", Kind.GAUGE, "ingests under way, those that wait for their turn too"
)
_SPOOL: Final = Figure(
    "lakehouse_ingest_spool_bytes", Kind.GAUGE, "bytes of bodies on this process's spool disk"
)
# A file may be large: minutes and hours are told apart too.
_BOUNDS: Final = (*SECONDS, 300.0, 1800.0, 7200.0)


class IngestFigures:
    """Counters of one ingest service."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, ...], int] = {}
        self._seconds = Distribution(_BOUNDS)
        self._rows = 0
        self._bytes = 0
        self._dead_letters = 0

    def reported(self, report: IngestReport, seconds: float) -> None:
        """An ingest came to its report."""
        self._bytes += report.bytes_read
        if report.dry_run or report.no_op:
            self.ended("dry_run" if report.dry_run else "no_op")
            return
        self.ended("done")
        self._rows += report.rows
        self._dead_letters += report.dead_letters
        self._seconds.observe(seconds)

    def ended(self, outcome: str) -> None:
        self._ended[(outcome,)] = self._ended.get((outcome,), 0) + 1

    def figures(self, present: int, spooled_bytes: int) -> Iterator[Readout]:
        """All of them; ``present`` ingests are under way."""
        yield _INGESTS, self._ended
        yield alone(_SECONDS, self._seconds)
        yield alone(_ROWS, self._rows)
        yield alone(_BYTES, self._bytes)
        yield alone(_DEAD, self._dead_letters)
        yield alone(_PRESENT, present)
        yield alone(_SPOOL, spooled_bytes)
