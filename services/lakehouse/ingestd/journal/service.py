"""The journal service: use cases only."""

from __future__ import annotations

from lakehouse.contracts import journal as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.model.identity import Context

__all__ = ["Journal"]


def _not_yet() -> LakehouseError:
    return LakehouseError(ErrorKind.UNAVAILABLE, "the journal is not served yet")


class Journal:
    """Implements ``contracts.journal.JournalService``."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts

    async def events(self, ctx: Context, request: c.EventsRequest) -> c.EventsResult:
        raise _not_yet()

    async def history(self, ctx: Context, request: c.HistoryRequest) -> c.HistoryResult:
        raise _not_yet()

    async def feed(self, ctx: Context, request: c.FeedRequest) -> c.FeedStream:
        raise _not_yet()
