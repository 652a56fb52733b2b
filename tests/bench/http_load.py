"""A small HTTP/1.1 load client: keep-alive connections, one request each in flight."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

CLIENTS: Final = 64


@dataclass(frozen=True, slots=True)
class Load:
    """What a run saw: answers a second, and latencies in milliseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int


class _Connection(asyncio.Protocol):
    """Sends the request again as soon as its answer is whole."""

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self._request = request
        self._until = until
        self._latencies = latencies
        self._buffer = b""
        self._sent = 0.0
        self.failures = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not _whole(self._buffer):
            return
        now = time.perf_counter()
        self.failures += not self._buffer.startswith(b"HTTP/1.1 20")
        self._latencies.append(now - self._sent)
        self._buffer = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return body.endswith(b"0\r\n\r\n")
    at = lower.index(b"content-length:") + len(b"content-length:")
    return len(body) >= int(lower[at:].partition(b"\r\n")[0])


async def load(port: int, request: bytes, seconds: float, clients: int = CLIENTS) -> Load:
    """Run ``request`` from ``clients`` connections for ``seconds`` against loopback."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = time.perf_counter()
    pairs = [
        await loop.create_connection(
            lambda: _Connection(request, began + seconds, latencies), "127.0.0.1", port
        )
        for _ in range(clients)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in pairs))
    spent = time.perf_counter() - began
    ordered = sorted(latencies)
    return Load(
        per_second=len(ordered) / spent,
        p50_ms=ordered[len(ordered) // 2] * 1e3,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1e3,
        failures=sum(protocol.failures for _, protocol in pairs),
    )


def get(path: str, headers: str = "") -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n".encode()


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """The bytes of a POST of JSON."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body
