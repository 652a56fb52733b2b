"""The error journal and the copies in the rescue bucket, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lakehouse.contracts.storage import RescueInfo
from lakehouse.kit.figures import Figure, Kind, Readout, alone

_WRITTEN: Final = Figure(
    "lakehouse_journal_written",
    Kind.COUNTER,
    "failed attempts that this process wrote into the error journal, or forwarded to who does",
)
_WAITING: Final = Figure(
    "lakehouse_journal_waiting", Kind.GAUGE, "those that wait, in memory or in the local spool"
)
_DROPPED: Final = Figure(
    "lakehouse_journal_dropped", Kind.COUNTER, "those that could not be kept and are lost"
)
_FAILURES: Final = Figure(
    "lakehouse_journal_failures",
    Kind.COUNTER,
    "requests of the journal itself that failed; they are no entries of it",
)
_OBJECTS: Final = Figure(
    "lakehouse_rescue_objects", Kind.GAUGE, "live data objects that may have a copy"
)
_COPIED: Final = Figure("lakehouse_rescue_copied", Kind.GAUGE, "those of them that have one")
_LAG: Final = Figure(
    "lakehouse_rescue_lag_seconds",
    Kind.GAUGE,
    "age of the oldest object that should have a copy and has none",
)
_VERIFIED: Final = Figure(
    "lakehouse_rescue_verified", Kind.COUNTER, "copies that were read back and were right"
)
_DAMAGED: Final = Figure(
    "lakehouse_rescue_damaged", Kind.COUNTER, "copies that were read back and were wrong"
)
_DELETED: Final = Figure(
    "lakehouse_rescue_deletions", Kind.COUNTER, "copies removed because their originals are gone"
)


@dataclass(frozen=True, slots=True)
class JournalState:
    """What a process did with the failed attempts that it saw."""

    written: int
    waiting: int
    dropped: int
    failures: int = 0


def journal_figures(state: JournalState) -> Iterator[Readout]:
    yield alone(_WRITTEN, state.written)
    yield alone(_WAITING, state.waiting)
    yield alone(_DROPPED, state.dropped)
    yield alone(_FAILURES, state.failures)


def rescue_figures(info: RescueInfo) -> Iterator[Readout]:
    """Nothing where there is no rescue bucket."""
    if not info.bucket:
        return
    yield alone(_OBJECTS, info.objects)
    yield alone(_COPIED, info.copied)
    yield alone(_LAG, info.lag_seconds)
    yield alone(_VERIFIED, info.verified)
    yield alone(_DAMAGED, info.damaged)
    yield alone(_DELETED, info.deletions)
