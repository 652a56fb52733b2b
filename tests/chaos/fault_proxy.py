"""An HTTP proxy that loses, delays, damages and refuses requests on their way to an S3 server."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass, fields
from urllib.parse import parse_qs, unquote

HANG_SECONDS = 3600.0
# RST instead of FIN: the client sees its connection reset.
_LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class WireFaults:
    """Probability of each fault a request. ``slow`` is none: the answer comes, late."""

    error_500: float = 0.02
    error_503: float = 0.03
    drop_before: float = 0.02
    drop_after: float = 0.03
    truncate: float = 0.02
    slow: float = 0.03
    reset: float = 0.0
    hang: float = 0.0
    wrong_bytes: float = 0.0
    slow_seconds: float = 1.0


NO_FAULTS = WireFaults(**{f.name: 0.0 for f in fields(WireFaults)})
_KINDS = tuple(f.name for f in fields(WireFaults) if f.name != "slow_seconds")


@dataclass(frozen=True)
class Injected:
    """A request that was harmed: ``key`` is below the bucket ("" of a list, which has a
    ``prefix``), ``request_id`` what 5xx carried."""

    fault: str
    method: str
    bucket: str
    key: str
    prefix: str
    request_id: str


class FaultProxy:
    """Forwards to ``host:port``, one upstream connection a request. ``seen`` counts the faults.

    What a client sent is forwarded even if the client is gone: a late write, as networks have them.
    ``faults`` may be changed at any time; ``harmed`` lists what was done to whom.
    """

    def __init__(self, host: str, port: int, seed: int, faults: WireFaults = WireFaults()) -> None:
        self._upstream = (host, port)
        self._random = random.Random(seed)
        self.faults = faults
        self._server: asyncio.Server | None = None
        self._port = 0
        self._serving: set[asyncio.Task[None]] = set()
        self.seen: Counter[str] = Counter()
        self.harmed: list[Injected] = []

    async def start(self) -> str:
        """Listen, on a free port or the one of before; returns the endpoint."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{self._port}"

    async def quiet(self) -> None:
        """Wait until what was sent so far has arrived and was answered, late as that may be."""
        await asyncio.sleep(0.2)
        while self._serving:
            await asyncio.wait(set(self._serving))

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
        harm = self._harm(self._draw(), lines[0].decode())
        fault = harm.fault
        if fault.startswith("error"):
            status = b"500 Internal Error" if fault == "error_500" else b"503 Slow Down"
            name = f"x-amz-request-id: {harm.request_id}\r\n".encode()
            writer.write(
                b"HTTP/1.1 " + status + b"\r\n" + name + b"content-length: 0\r\n"
                b"connection: close\r\n\r\n"
            )
            await writer.drain()
            return
        if fault == "drop_before":
            return
        if fault == "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            return
        if fault == "hang":
            # Until the client has had enough.
            await asyncio.wait_for(reader.read(), HANG_SECONDS)
            return
        if fault == "slow":
            await asyncio.sleep(self._random.random() * self.faults.slow_seconds)
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        answer = await self._forward(b"\r\n".join([*kept, b"connection: close", b"", b""]) + body)
        if fault == "drop_after":
            return
        if fault == "wrong_bytes" and not _has_object(harm, answer):
            self.harmed.remove(harm)
            fault = "none"
        writer.write(self._damaged(fault, answer))
        await writer.drain()

    def _damaged(self, fault: str, answer: bytes) -> bytes:
        if fault == "truncate":
            return answer[: len(answer) // 2]
        if fault != "wrong_bytes":
            return answer
        head, end, body = answer.partition(b"\r\n\r\n")
        at = self._random.randrange(len(body))
        return head + end + body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    def _harm(self, fault: str, line: str) -> Injected:
        method, target, _ = line.split(" ", 2)
        path, _, query = target.partition("?")
        bucket, _, key = path.lstrip("/").partition("/")
        prefix = parse_qs(query).get("prefix", [""])[0]
        name = f"injected-{self.seen.total()}"
        self.seen[fault] += 1
        harm = Injected(fault, method, bucket, unquote(key), prefix, name)
        if fault not in ("none", "slow"):
            self.harmed.append(harm)
        return harm

    def _draw(self) -> str:
        dice = self._random.random()
        for name in _KINDS:
            dice -= getattr(self.faults, name)
            if dice < 0:
                return name
        return "none"


def _has_object(harm: Injected, answer: bytes) -> bool:
    """Whether the answer carries bytes of an object, whose damage somebody can notice."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return harm.method == "GET" and harm.key != "" and b" 20" in head[:13] and body != b""
