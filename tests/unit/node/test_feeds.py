"""Feeds end when their node does, and lose nothing before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lakehouse.contracts.journal import FeedRequest, FeedStream
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.node.feeds import EndingFeeds

CTX = Context(ANONYMOUS_OPERATOR, "r")


class Journal:
    """Tells what is put into ``coming``; None ends it."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False

    async def feed(self, ctx: Context, request: FeedRequest) -> FeedStream:
        return FeedStream(request.dataset, self._groups())

    async def _groups(self) -> AsyncIterator[Any]:
        try:
            while (item := await self.coming.get()) is not None:
                yield item
        finally:
            self.closed = True


async def test_what_waits_is_ended() -> None:
    journal = Journal()
    feeds = EndingFeeds(journal)  # type: ignore[arg-type]
    stream = await feeds.feed(CTX, FeedRequest("people", follow=True))
    journal.coming.put_nowait(("a",))
    assert await anext(stream.groups) == ("a",)
    waiting = asyncio.ensure_future(anext(stream.groups))
    await asyncio.sleep(0)
    feeds.end()
    with pytest.raises(LakehouseError) as caught:
        await asyncio.wait_for(waiting, 5)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert journal.closed
    # Nobody begins to wait any more.
    again = await feeds.feed(CTX, FeedRequest("people", follow=True))
    with pytest.raises(LakehouseError):
        await asyncio.wait_for(anext(again.groups), 5)


async def test_a_feed_that_ends_by_itself_ends() -> None:
    journal = Journal()
    stream = await EndingFeeds(journal).feed(CTX, FeedRequest("people"))  # type: ignore[arg-type]
    for item in (("a",), ("b",), None):
        journal.coming.put_nowait(item)
    assert [group async for group in stream.groups] == [("a",), ("b",)]


async def test_a_reader_that_goes_away_closes_it() -> None:
    journal = Journal()
    stream = await EndingFeeds(journal).feed(CTX, FeedRequest("people"))  # type: ignore[arg-type]
    journal.coming.put_nowait(("a",))
    await anext(stream.groups)
    await stream.groups.aclose()  # type: ignore[attr-defined]
    assert journal.closed
