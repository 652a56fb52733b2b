"""Routes of objects over recording contracts: what they hand on, and how their answers look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from lakehouse.contracts.objects import (
    DeleteObjectRequest,
    GetObjectRequest,
    ListObjectsRequest,
    ObjectRange,
    PutObjectRequest,
    StatObjectRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from unit.gateway.fakes import World
from unit.gateway.servers import serving

PATH = "/storage/objects/primary/in/a%20b+c%25.csv"
KEY = "in/a b+c%.csv"
TOKEN = {"Authorization": "Bearer operator"}


async def test_an_object_is_read_with_its_headers() -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get(PATH, headers={"Range": "bytes=1-4"})
        assert (answer.status_code, answer.content) == (200, b"0123456789")
        assert answer.headers["content-type"] == "text/csv"
        assert answer.headers["etag"] == '"e1"'
        assert answer.headers["last-modified"] == "Sat, 21 Nov 2026 09:30:00 GMT"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-length"] == "10"
        name = "a%20b%2Bc%25.csv"
        assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
        request = GetObjectRequest("primary", KEY, ObjectRange(1, 5))
        assert world.objects.last("get")[1] == request


async def test_a_head_reads_nothing() -> None:
    world = World()
    async with world.client() as client:
        answer = await client.head(PATH)
        whole = await client.get(PATH)
    assert (answer.status_code, answer.headers["content-length"]) == (200, "10")
    own = {"x-request-id"}
    assert {k: v for k, v in answer.headers.items() if k not in own} == {
        k: v for k, v in whole.headers.items() if k not in own
    }
    world.objects.calls.pop()
    assert [call[0] for call in world.objects.calls] == ["stat"]
    assert world.objects.last("stat")[1] == StatObjectRequest("primary", KEY)


async def test_a_body_is_handed_on_as_it_is() -> None:
    world = World()
    async with world.client() as client:
        answer = await client.put(
            PATH, content=b"12345", headers={"Content-Type": "text/csv", "Idempotency-Key": "k"}
        )
        assert (answer.status_code, answer.headers["etag"]) == (200, '"e2"')
        assert answer.json()["size_bytes"] == 5
        ctx, request = world.objects.last("put")
        assert (ctx.idempotency_key, world.objects.stored) == ("k", b"12345")
        assert request == PutObjectRequest("primary", KEY, size_bytes=5)
        gone = await client.delete(PATH)
        assert (gone.status_code, gone.content) == (204, b"")
        assert world.objects.last("delete")[1] == DeleteObjectRequest("primary", KEY)


async def test_a_list_is_asked_for_by_its_parameters() -> None:
    world = World()
    async with world.client() as client:
        path = "/storage/objects/primary"
        asked = {"prefix": "a/ü", "delimiter": "/", "limit": "7", "cursor": "c"}
        answer = (await client.get(path, params=asked)).json()
        assert (answer["folders"], answer["next"]) == (["a/c/"], "more")
        request = ListObjectsRequest("primary", "a/ü", "/", 7, "c")
        assert world.objects.last("list")[1] == request
        await client.get(path)
        assert world.objects.last("list")[1] == ListObjectsRequest("primary")
        for wrong in ({"limit": "0"}, {"limit": "1001"}, {"prefx": "a"}):
            assert (await client.get(path, params=wrong)).status_code == 400


async def test_a_slash_of_a_key_may_be_encoded_and_no_other() -> None:
    world = World()
    async with world.client() as client:
        assert (await client.get("/storage/objects/primary/a%2Fb")).status_code == 200
        assert world.objects.last("get")[1].key == "a/b"
        for path in ("/storage/objects/pri%2Fmary/a", "/storage%2Fobjects/primary/a/b"):
            answer = await client.get(path)
            assert answer.status_code in (400, 404)
            assert len(world.objects.calls) == 1


@pytest.mark.parametrize("cut", [0, 4])
async def test_a_read_that_fails_under_way_is_never_a_short_one(cut: int) -> None:
    world = World()

    async def failing() -> AsyncIterator[bytes]:
        yield b"0123456789"[: cut or 1]
        await asyncio.sleep(0.01)
        raise LakehouseError(ErrorKind.UNAVAILABLE, "the bucket went away")

    world.objects.chunks = failing
    async with serving(world.app) as port, httpx.AsyncClient(headers=TOKEN) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"http://127.0.0.1:{port}{PATH}")
        world.objects.chunks = None
        assert (await client.get(f"http://127.0.0.1:{port}{PATH}")).content == b"0123456789"


async def test_chunks_that_end_early_are_no_whole_object() -> None:
    world = World()

    async def short() -> AsyncIterator[bytes]:
        yield b"01234"

    world.objects.chunks = short
    async with serving(world.app) as port, httpx.AsyncClient(headers=TOKEN) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"http://127.0.0.1:{port}{PATH}")


async def test_a_range_past_the_end_says_the_size() -> None:
    world = World()
    world.objects.failing["get"] = LakehouseError(
        ErrorKind.INVALID, "past the end", http_status=416, size_bytes=10
    )
    async with world.client() as client:
        answer = await client.get(PATH, headers={"Range": "bytes=10-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert answer.json()["kind"] == "invalid"
