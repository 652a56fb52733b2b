"""What a log tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LogStatus:
    """Figures since this process opened the log.

    Attributes:
        newest: number of the newest batch known, -1 for an empty log or before the first look.
        appended: events of durable appends that are in the log; queued: that wait.
        flushed: offered events that are in the log.
        pending: offered events that are not yet; spooled: those of them in the local spool.
        recovered: events that an earlier process had left in the spool.
        repeated: offered events that were known by their id.
        dropped: events that are lost, by reason.
        damaged: places that readers had to leave out.
        settling: a batch was sent and nobody knows yet whether it is in the log.
        last_flush: when something was last written; unavailable_since: first failure after that.
    """

    newest: int
    appended: int
    queued: int
    flushed: int
    pending: int
    spooled: int
    recovered: int
    repeated: int
    dropped: dict[str, int]
    spool_failures: int
    damaged: int
    settling: bool
    last_flush: datetime | None
    unavailable_since: datetime | None
    last_error: str

    @property
    def dropped_total(self) -> int:
        return sum(self.dropped.values())
