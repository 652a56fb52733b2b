"""What comes over a connection before there is a request: too large, too slow, or no HTTP."""

from __future__ import annotations

import asyncio
import json

import pytest

from lakehouse.gateway import wire
from unit.gateway.fakes import World
from unit.gateway.servers import serving


async def ask(port: int, *pieces: bytes, seconds: float = 5) -> tuple[int, dict[str, str]]:
    """The status and the problem document that end the connection; 0 if it ends without."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
        answer = await asyncio.wait_for(reader.read(), seconds)
    finally:
        writer.close()
    if not answer:
        return 0, {}
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"BREW /health HTTP/1.1\r\n\r\n",
        b"GET /catalog/datasets/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /?" + b"q" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /query/sql HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /query/sql HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_told_so(sent: bytes) -> None:
    async with serving(World().app) as port:
        status, problem = await ask(port, sent)
        assert (status, problem["status"], problem["kind"]) == (400, 400, "invalid")
        assert problem["detail"]
        assert problem["hint"]


async def test_a_head_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_BYTES_MAX", 50_000)
    async with serving(World().app) as port:
        status, problem = await ask(port, b"GET / HTTP/1.1\r\nx: ", b"y" * 60_000)
        assert status == 431
        assert problem["bytes_max"] == 50_000


async def test_a_head_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.05)
    async with serving(World().app) as port:
        assert (await ask(port, b"GET / HTTP/1.1\r\nx: "))[0] == 408
        # Nobody who says nothing keeps a connection either.
        assert await ask(port) == (0, {})


async def test_one_connection_goes_on_for_longer_than_a_head_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.1)
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    async with serving(World().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            # Cut in two, so that the time for a head begins to run.
            writer.write(request[:10])
            await asyncio.sleep(0.05)
            writer.write(request[10:])
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(15) == b'{"status":"ok"}'
        await asyncio.sleep(0.15)
        writer.write(request)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
