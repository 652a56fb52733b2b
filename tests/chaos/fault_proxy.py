"""An HTTP proxy that loses, delays and refuses requests on their way to a real S3 server."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class WireFaults:
    """Probability of each fault a request."""

    error_500: float = 0.02
    error_503: float = 0.03
    drop_before: float = 0.02
    drop_after: float = 0.03
    truncate: float = 0.02
    slow: float = 0.03
    slow_seconds: float = 1.0


class FaultProxy:
    """Forwards to ``host:port``, one upstream connection a request. ``seen`` counts the faults.

    What a client sent is forwarded even if the client is gone: a late write, as networks have them.
    """

    def __init__(self, host: str, port: int, seed: int, faults: WireFaults = WireFaults()) -> None:
        self._upstream = (host, port)
        self._random = random.Random(seed)
        self._faults = faults
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.seen: Counter[str] = Counter()

    async def start(self) -> str:
        """Listen on a free port; returns the endpoint."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def close(self) -> None:
        """Stop listening and end what is still served, so that nothing outlives its loop."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.seen["broken"] += 1
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-len")),
            0,
        )
        body = await reader.readexactly(length)
        fault = self._draw()
        self.seen[fault] += 1
        if fault.startswith("error"):
            status = b"500 Internal Error" if fault == "error_500" else b"503 Slow Down"
            writer.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            await writer.drain()
            return
        if fault == "drop_before":
            return
        if fault == "slow":
            await asyncio.sleep(self._random.random() * self._faults.slow_seconds)
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        answer = await self._forward(b"\r\n".join([*kept, b"connection: close", b"", b""]) + body)
        if fault == "drop_after":
            return
        writer.write(answer[: len(answer) // 2] if fault == "truncate" else answer)
        await writer.drain()

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    def _draw(self) -> str:
        dice = self._random.random()
        for name in ("error_500", "error_503", "drop_before", "drop_after", "truncate", "slow"):
            dice -= getattr(self._faults, name)
            if dice < 0:
                return name
        return "none"
