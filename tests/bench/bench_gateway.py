"""The gateway at 64 clients: health, a small SELECT, a card of the catalog."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.figures import Figure
from e2e.nodes import PEOPLE_CSV, Node, running

CLIENTS = 64
SELECT = b'{"sql": "select id, name from people"}'


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place:
        node = Node(Path(place) / "node", Path(place) / "bucket")
        with running(node):
            node.start()
            assert node.ingest("people", PEOPLE_CSV).status_code == 201
            port = node.http_port
            return [
                Figure("health_per_second", _rate(port, "GET /health", b"", 20_000), "64 clients"),
                Figure("select_per_second", _rate(port, "POST /query/sql", SELECT, 3_000),
                       "64 clients, three rows as JSON"),
                Figure("catalog_get_per_second",
                       _rate(port, "GET /catalog/datasets/people", b"", 10_000), "64 clients"),
            ]  # fmt: skip


def _rate(port: int, target: str, body: bytes, requests: int) -> float:
    return asyncio.run(_drive(port, target, body, requests))


async def _drive(port: int, target: str, body: bytes, requests: int) -> float:
    """Requests a second over kept connections; the client is a few lines of asyncio, for a full
    one would cost more than the server."""
    message = (
        f"{target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    began = time.perf_counter()
    await asyncio.gather(*(_client(port, message, requests // CLIENTS) for _ in range(CLIENTS)))
    return requests // CLIENTS * CLIENTS / (time.perf_counter() - began)


async def _client(port: int, message: bytes, requests: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        if b"transfer-encoding: chunked" in head:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            length = head.split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
    writer.close()
