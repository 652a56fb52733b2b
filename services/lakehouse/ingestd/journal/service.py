"""The journal service: joins the use cases, one module each."""

from __future__ import annotations

from lakehouse.contracts import journal as c
from lakehouse.ingestd.journal.events import events
from lakehouse.ingestd.journal.feed import feed
from lakehouse.ingestd.journal.history import history
from lakehouse.ingestd.journal.watching import VersionWatch
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.model.identity import Context

__all__ = ["Journal"]


class Journal:
    """Implements ``contracts.journal.JournalService``. Belongs to one event loop."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts
        self._objects = parts.events
        self._watch = VersionWatch(parts.catalog, parts.clock)

    async def events(self, ctx: Context, request: c.EventsRequest) -> c.EventsResult:
        return await events(self._parts, self._objects, ctx, request)

    async def history(self, ctx: Context, request: c.HistoryRequest) -> c.HistoryResult:
        return await history(self._parts, self._objects, ctx, request)

    async def feed(self, ctx: Context, request: c.FeedRequest) -> c.FeedStream:
        return await feed(self._parts, self._objects, self._watch, ctx, request)
