"""What fails in a process that keeps no journal: spooled here, forwarded to the one that does.

At least once: a report whose answer is lost is sent again. The journal knows attempts by their ids,
so readers see each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from lakehouse.appendlog.event import decode_event
from lakehouse.appendlog.outbox import Outbox
from lakehouse.appendlog.settings import LogSettings, SpoolBounds
from lakehouse.appendlog.spool import Segment, Spool
from lakehouse.contracts.storage import ReportRequest, ReportResult
from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import Readout
from lakehouse.kit.ids import Ids
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.storaged.errors import REPORT_MAX, from_event, to_event
from lakehouse.storaged.figures import JournalState, journal_figures

_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 2.0


class Reported(Protocol):
    """The part of the storage contract that is needed here."""

    async def report(self, ctx: Context, request: ReportRequest) -> ReportResult: ...


class Reporter:
    """A ``FailureSink``; made on the loop that runs it, takes attempts from then on.

    Args:
        folder: of the local spool, which may be shared with other processes.
        events_max: the most attempts that wait in it; what comes beyond is dropped and told.
    """

    def __init__(
        self, storage: Reported, folder: str, events_max: int, clock: Clock, ids: Ids
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._ids = ids
        self._told = 0
        settings = LogSettings(spool_folder=folder, spool=SpoolBounds(events_max=events_max))
        spool = Spool(folder, settings.spool, clock, ids)
        self._outbox = Outbox(spool, self._send, clock, ids, settings)

    def failed(self, attempt: FailedAttempt) -> None:
        """Remember it; never blocks, never raises."""
        self._outbox.offer_line(to_event(attempt))

    def figures(self) -> Iterator[Readout]:
        """What became of the attempts so far."""
        status = self._outbox.status()
        dropped = sum(status.dropped.values())
        return journal_figures(JournalState(status.sent, status.pending, dropped))

    async def start(self) -> None:
        """Take over what an earlier process left, and forward from now on."""
        await self._outbox.start()

    async def close(self) -> None:
        """Forward what waits, for 2 s at most; the rest stays in the spool."""
        waits_in_vain = self._outbox.status().failing_since_us is not None
        await self._outbox.close(0 if waits_in_vain else _CLOSE_SECONDS)

    async def _send(self, segment: Segment) -> None:
        """One report a segment, which is never larger than one may be."""
        attempts, damaged = [], 0
        for line in (segment.lines or ())[:REPORT_MAX]:
            try:
                attempts.append(from_event(decode_event(line) or {}))
            except LakehouseError:
                damaged += 1
        dropped = sum(self._outbox.status().dropped.values())
        ctx = Context(
            ANONYMOUS_OPERATOR,
            self._ids.ulid(),
            deadline=self._clock.monotonic() + _SECONDS,
            source="reporter",
        )
        request = ReportRequest(tuple(attempts), max(0, dropped - self._told))
        await self._storage.report(ctx, request)
        self._told = dropped
        if damaged:
            # Not before: the segment comes again as long as nobody has taken it.
            self._outbox.drop("damaged", damaged)
