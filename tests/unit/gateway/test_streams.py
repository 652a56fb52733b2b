"""Bodies under way over a real socket: what breaks, what is closed, and how far ahead it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from lakehouse.contracts.ingest import IngestReport, IngestRequest
from lakehouse.contracts.query import QueryRequest, QueryStream
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway import bodies
from lakehouse.model.identity import Context
from unit.gateway.fakes import World
from unit.gateway.servers import serving

SQL = {"sql": "select 1"}
TOKEN = {"Authorization": "Bearer operator"}
KIBIBYTE = 1024


async def eventually(seen: Callable[[], bool]) -> None:
    """Wait until ``seen``; the test's own time limit ends it otherwise."""
    async with asyncio.timeout(5):
        while not seen():
            await asyncio.sleep(0.005)


async def test_an_error_in_mid_stream_breaks_the_body() -> None:
    world = World()

    async def failing() -> AsyncIterator[bytes]:
        yield b"id\n1\n"
        await asyncio.sleep(0.01)
        raise LakehouseError(ErrorKind.CORRUPT, "an object is damaged")

    world.query.chunks = failing
    async with serving(world.app) as port, httpx.AsyncClient(headers=TOKEN) as client:
        url = f"http://127.0.0.1:{port}"
        async with client.stream("POST", url + "/query/sql", json=SQL) as answer:
            body = answer.aiter_bytes()
            assert (answer.status_code, await anext(body)) == (200, b"id\n1\n")
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(body)
        assert (await client.get(url + "/health")).status_code == 200


async def test_an_error_before_the_first_row_is_a_problem_document() -> None:
    world = World()

    async def failing() -> AsyncIterator[bytes]:
        raise LakehouseError(ErrorKind.TIMEOUT, "took too long")
        yield b""

    world.query.chunks = failing
    async with world.client() as client:
        answer = await client.post("/query/sql", json=SQL)
    assert (answer.status_code, answer.json()["kind"]) == (504, "timeout")


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b"a", b"", b"b"], [b"x" * 70_000] * 3])
async def test_a_result_arrives_whole(chunks: list[bytes]) -> None:
    world = World()

    async def result() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    world.query.chunks = result
    async with serving(world.app) as port, httpx.AsyncClient(headers=TOKEN) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/query/sql", json=SQL)
    assert answer.content == b"".join(chunks)


async def test_a_client_that_leaves_closes_the_query() -> None:
    world = World()
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"id\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    world.query.chunks = endless
    async with serving(world.app) as port, httpx.AsyncClient(headers=TOKEN) as client:
        url = f"http://127.0.0.1:{port}/query/sql"
        async with client.stream("POST", url, json=SQL) as answer:
            assert await anext(answer.aiter_bytes()) == b"id\n"
            assert not closed.is_set()
        await eventually(closed.is_set)


async def test_a_client_that_leaves_before_the_first_row_cancels_the_query() -> None:
    world = World()
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Context, request: QueryRequest) -> QueryStream:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("unreachable")

    world.query.run = slow  # type: ignore[method-assign]
    async with serving(world.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"sql": "select 1"}'
        writer.write(
            b"POST /query/sql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer read\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await began.wait()
        writer.close()
        await eventually(cancelled.is_set)
        assert await reader.read() == b""


async def test_a_reader_that_is_slow_holds_the_query_back() -> None:
    world = World()
    made = 0

    async def wide() -> AsyncIterator[bytes]:
        nonlocal made
        while made < 4096:
            made += 1
            yield b"x" * (64 * KIBIBYTE)

    world.query.chunks = wide
    async with serving(world.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * KIBIBYTE)
        body = b'{"sql": "select 1"}'
        writer.write(
            b"POST /query/sql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer read\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await reader.readexactly(KIBIBYTE)
        # Far ahead of the reader it cannot run: sockets' buffers hold a few MiB of the 256.
        await asyncio.sleep(0.3)
        stalled = made
        await asyncio.sleep(0.2)
        assert made == stalled
        assert stalled < 1024
        writer.close()


Ingest = Callable[[Context, IngestRequest, AsyncIterator[bytes]], Awaitable[IngestReport]]


async def test_an_upload_that_breaks_off_reaches_ingest_as_an_error() -> None:
    world = World()
    seen: list[BaseException] = []
    ingest: Ingest = world.ingest.ingest

    async def watching(
        ctx: Context, request: IngestRequest, body: AsyncIterator[bytes]
    ) -> IngestReport:
        try:
            return await ingest(ctx, request, body)
        except BaseException as error:
            seen.append(error)
            raise

    world.ingest.ingest = watching  # type: ignore[method-assign]
    async with serving(world.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /ingest/datasets/p HTTP/1.1\r\nhost: x\r\nauthorization: Bearer write\r\n"
            b"content-length: 1000\r\n\r\nid\n1\n"
        )
        await writer.drain()
        await eventually(lambda: bool(world.ingest.calls))
        writer.close()
        await eventually(lambda: bool(seen))
    assert world.ingest.received == []
    assert isinstance(seen[0], LakehouseError)


async def test_an_upload_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.1)
    world = World()
    async with serving(world.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /ingest/datasets/p HTTP/1.1\r\nhost: x\r\nauthorization: Bearer write\r\n"
            b"content-length: 1000\r\n\r\nid\n1\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert world.ingest.received == []


async def test_an_upload_is_read_no_faster_than_it_is_used() -> None:
    world = World()
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def slow(
        ctx: Context, request: IngestRequest, body: AsyncIterator[bytes]
    ) -> IngestReport:
        await anext(body)
        taken.set()
        await go_on.wait()
        raise LakehouseError(ErrorKind.INVALID, "enough")

    world.ingest.ingest = slow  # type: ignore[method-assign]
    async with serving(world.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        total = 256 * 1024 * KIBIBYTE
        writer.write(
            b"POST /ingest/datasets/p HTTP/1.1\r\nhost: x\r\nauthorization: Bearer write\r\n"
            b"content-length: %d\r\n\r\n" % total
        )
        writer.write(b"x" * KIBIBYTE)
        await taken.wait()
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while sent < total:
                    writer.write(b"x" * 64 * KIBIBYTE)
                    await writer.drain()
                    sent += 64 * KIBIBYTE
        assert sent < total // 4
        go_on.set()
        writer.close()
