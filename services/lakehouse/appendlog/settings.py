"""Every number of an append log, in one value; tests and simulations hand in their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.settings import LedgerSettings

PLACES: Final = 65_536
"""Numbers of events in one batch; the first is 1, so it is the event's line after the header."""


@dataclass(frozen=True, slots=True)
class SpoolBounds:
    """How much a spool takes, and how much goes into one segment (which becomes one batch)."""

    events_max: int = 100_000
    bytes_max: int = 64 * 1024 * 1024
    segment_events_max: int = 4096
    segment_bytes_max: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Attributes:

    batch_events_max, batch_bytes_max: a batch ends at whichever comes first; at most 65,535.
    queue_events_max, queue_bytes_max: of durable appends that wait; beyond, ``unavailable``.
    append_budget_seconds: a durable append is ``unknown`` after this long.
    flush_seconds: an offered event is on its way to the bucket after this long.
    spool_seconds: an offered event is in the spool file after this long.
    spool_folder: "" keeps offered events in memory alone.
    unspooled_events_max: offered events that wait for the spool's disk; beyond, dropped.
    ring_events: what ``recent`` can show, 0 spares an offer its part of it; ring_batches: read at
        start to fill it.
    ids_remembered: an event offered again under an id among the last so many is not stored again.
    slots_kept: the newest batches that compaction leaves alone.
    merge_fan: batches, or objects of one tier, that are worth a merge.
    merged_bytes_max, merged_batches_max: an object that large is not merged any more.
    """

    batch_events_max: int = 4096
    batch_bytes_max: int = 1024 * 1024
    queue_events_max: int = 65_536
    queue_bytes_max: int = 64 * 1024 * 1024
    append_budget_seconds: float = 20.0
    flush_seconds: float = 1.0
    spool_seconds: float = 0.02
    spool_folder: str = ""
    spool: SpoolBounds = field(default_factory=SpoolBounds)
    unspooled_events_max: int = 8192
    ring_events: int = 1024
    ring_batches: int = 4
    ids_remembered: int = 16_384
    slots_kept: int = 64
    merge_fan: int = 16
    merged_bytes_max: int = 32 * 1024 * 1024
    merged_batches_max: int = 4096
    backoff_seconds: float = 0.05
    backoff_seconds_max: float = 2.0
    hedge_seconds_min: float = 0.25

    def check(self) -> None:
        """Raise ``invalid`` for numbers with which a log cannot work."""
        events = max(self.batch_events_max, self.spool.segment_events_max)
        if not 1 <= events < PLACES or min(self.merge_fan, self.merged_batches_max) < 2:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the settings of a log are out of range",
                batch_events_max=events,
                merge_fan=self.merge_fan,
                merged_batches_max=self.merged_batches_max,
                hint=f"a batch holds 1 to {PLACES - 1} events; two objects at least make a merge",
            )

    def chain(self) -> LedgerSettings:
        """What the chain's own code goes by."""
        return LedgerSettings(
            append_budget_seconds=self.append_budget_seconds,
            backoff_seconds=self.backoff_seconds,
            backoff_seconds_max=self.backoff_seconds_max,
            hedge_seconds_min=self.hedge_seconds_min,
        )
