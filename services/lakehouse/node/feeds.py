"""Feeds that end when their node does.

Who follows a feed stays for as long as there may be something to tell; a graceful stop would give
all its time to them. They are told to come back elsewhere as soon as the node begins to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from lakehouse.contracts import journal as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.events import JournalEvent
from lakehouse.model.identity import Context


class EndingFeeds:
    """``journal``, with feeds that ``end`` ends; belongs to one event loop."""

    def __init__(self, journal: c.JournalService) -> None:
        self._journal = journal
        self._ending = asyncio.Event()

    async def events(self, ctx: Context, request: c.EventsRequest) -> c.EventsResult:
        return await self._journal.events(ctx, request)

    async def history(self, ctx: Context, request: c.HistoryRequest) -> c.HistoryResult:
        return await self._journal.history(ctx, request)

    async def feed(self, ctx: Context, request: c.FeedRequest) -> c.FeedStream:
        stream = await self._journal.feed(ctx, request)
        return c.FeedStream(stream.dataset, _Groups(stream.groups, self._ending))

    def end(self) -> None:
        """Every feed raises ``unavailable`` once what it has begun to tell is told."""
        self._ending.set()


class _Groups:
    """The groups of a feed until it is to end; ``aclose`` closes them, whether any was asked for or
    not."""

    def __init__(
        self, groups: AsyncIterator[tuple[JournalEvent, ...]], ending: asyncio.Event
    ) -> None:
        self._groups = groups
        self._ending = ending

    def __aiter__(self) -> AsyncIterator[tuple[JournalEvent, ...]]:
        return self

    async def __anext__(self) -> tuple[JournalEvent, ...]:
        coming = asyncio.ensure_future(anext(self._groups))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return coming.result()
        finally:
            ending.cancel()
            if not coming.done():
                coming.cancel()
            await asyncio.gather(coming, ending, return_exceptions=True)
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the server is stopping",
            hint="start again after the last version that was told whole",
        )

    async def aclose(self) -> None:
        close = getattr(self._groups, "aclose", None)
        if close is not None:
            await close()
