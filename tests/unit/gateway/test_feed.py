"""A feed tells at once, ends with its client, and says in its last line what failed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.events import JournalEvent
from unit.gateway.fakes import World
from unit.gateway.row_fakes import event


class Feed:
    """A feed in the hands of a test: what it is told, and whether it was let go."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[tuple[JournalEvent, ...] | Exception] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def groups(self) -> AsyncIterator[tuple[JournalEvent, ...]]:
        try:
            while True:
                item = await self.coming.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()


class Client:
    """An HTTP client that reads as long as it likes, then goes away."""

    def __init__(self, world: World, path: str) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "headers": [(b"authorization", b"Bearer read"), (b"host", b"localhost")],
            "scheme": "http",
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        self.request = asyncio.ensure_future(world.app(scope, self._receive, self.sent.put))
        self._asked = False

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.sent.get(), 10)


def fed(feed: Feed, query: str = "") -> Client:
    world = World()
    world.journal.groups = feed.groups
    return Client(world, "/journal/feed?dataset=people&follow" + query)


async def test_a_feed_tells_as_it_comes_and_ends_with_its_client() -> None:
    feed = Feed()
    client = fed(feed)
    # The head is there before there is anything to tell.
    assert (await client.next())["status"] == 200
    for version in (3, 4):
        feed.coming.put_nowait((event(), event()))
        lines = (await client.next())["body"].splitlines()
        assert [json.loads(line)["field"] for line in lines] == ["phone", "phone"], version
    client.gone.set()
    await asyncio.wait_for(client.request, 10)
    await asyncio.wait_for(feed.closed.wait(), 10)


async def test_a_feed_that_fails_says_so_in_its_last_line() -> None:
    feed = Feed()
    client = fed(feed)
    assert (await client.next())["status"] == 200
    feed.coming.put_nowait(LakehouseError(ErrorKind.UNAVAILABLE, "the bucket is gone", bucket="eu"))
    last = json.loads((await client.next())["body"])
    assert last == {
        "error": {"kind": "unavailable", "message": "the bucket is gone", "bucket": "eu"}
    }
    assert await client.next() == {"type": "http.response.body", "body": b"", "more_body": False}
    await asyncio.wait_for(client.request, 10)


async def test_a_heartbeat_loses_nothing() -> None:
    feed = Feed()
    client = fed(feed, "&heartbeat=1")
    await client.next()
    assert (await client.next())["body"] == b"\n"
    feed.coming.put_nowait((event(),))
    body = (await client.next())["body"]
    while body == b"\n":
        body = (await client.next())["body"]
    assert json.loads(body)["entity"] == [7]
    client.gone.set()
    await asyncio.wait_for(client.request, 10)


async def test_a_feed_of_nothing_is_refused_before_it_begins() -> None:
    world = World()
    error = LakehouseError(ErrorKind.NOT_FOUND, "there is no such dataset")
    world.journal.failing["feed"] = error
    async with world.client() as client:
        answer = await client.get("/journal/feed?dataset=nobody")
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")
