"""One query worker as the service sees it: a process, a socket, and what comes out of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.plan import TableScan
from lakehouse.queryd.wire import FRAME_BYTES_MAX, HEADER, Frame, frame

SCANS_MAX: Final = 2048
# A result below this size leaves its worker free at once, however slowly it is fetched.
INBOX_BYTES_MAX: Final = 8 << 20
# Of all inboxes together; beyond it a result holds its worker until it is fetched.
HELD_BYTES_MAX: Final = 128 << 20
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Held:
    """How many bytes lie in all inboxes of a service."""

    bytes: int = 0


class Inbox:
    """The frames of one query that its reader has not taken yet.

    ``on_end`` is called once, when nothing more will come, also if the reader is still behind: with
    True if the worker has said all, False if it was stopped or died.
    ``rows`` sent so far; ``full_since`` is when the reader fell behind (``now``'s clock), None
    while it keeps up.
    """

    def __init__(self, now: Callable[[], float], held: Held) -> None:
        self._held = held
        self.rows = 0
        self.full_since: float | None = None
        self.waited = 0.0
        self.on_end: Callable[[bool], None] = _nothing
        self.on_space: Callable[[], None] = lambda: None
        self._now = now
        self._frames: deque[tuple[Frame, bytes]] = deque()
        self._bytes = 0
        self._error: LakehouseError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, kind: Frame, body: bytes, rows: int) -> None:
        """A frame has come."""
        if kind is Frame.ERROR:
            raw = orjson.loads(body)
            self._error = LakehouseError(ErrorKind(raw["kind"]), raw["message"], **raw["fields"])
        else:
            self._frames.append((kind, body))
            self._count(len(body))
            self.rows = max(self.rows, rows)
        if kind in (Frame.END, Frame.ERROR):
            self._reader_moved()
            self.on_end(True)
        elif self._bytes > self._bound() and self.full_since is None:
            self.full_since = self._now()
        self._wake()

    def fail(self, error: LakehouseError) -> None:
        """Nothing more will come, and what has come is of no use; the first error counts."""
        if self._error is None:
            self._error = error
            self.clear()
            self._reader_moved()
            self.on_end(False)
        self._wake()

    async def get(self) -> tuple[Frame, bytes]:
        """The next frame. Raises what the worker or ``fail`` said instead."""
        while not self._frames:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        kind, body = self._frames.popleft()
        self._count(-len(body))
        if self.full_since is not None:
            self._reader_moved()
            if self._bytes > self._bound() // 2:
                self.full_since = self._now()
            else:
                self.on_space()
        return kind, body

    @property
    def failure(self) -> LakehouseError | None:
        """What the worker or ``fail`` said in place of the rest."""
        return self._error

    def take_all(self, bytes_max: int) -> bytes | None:
        """What lies here up to END, if END does and it is at most so much; else None, and nothing
        is taken."""
        frames = self._frames
        if not frames or frames[-1][0] is not Frame.END or self._bytes > bytes_max:
            return None
        frames.pop()
        whole = b"".join([body for _, body in frames])
        self.clear()
        return whole

    def clear(self) -> None:
        """Forget what has come."""
        self._frames.clear()
        self._count(-self._bytes)

    def __del__(self) -> None:
        self._count(-self._bytes)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._held.bytes += size

    def _bound(self) -> int:
        return INBOX_BYTES_MAX if self._held.bytes <= HELD_BYTES_MAX else FRAME_BYTES_MAX

    def _reader_moved(self) -> None:
        if self.full_since is not None:
            self.waited += self._now() - self.full_since
            self.full_since = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _nothing(_ready: bool) -> None:
    return None


class Drain(Inbox):
    """Takes what a worker still says of a query that nobody waits for, and keeps nothing."""

    def put(self, kind: Frame, body: bytes, rows: int) -> None:
        if kind in (Frame.END, Frame.ERROR):
            self.on_end(True)


class Link(asyncio.Protocol):
    """The service's end of a worker's socket: cuts frames and lays them into the inbox."""

    def __init__(self) -> None:
        self.inbox: Inbox | None = None
        self.on_lost: Callable[[], LakehouseError] | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # not by its class: uvloop has its own

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= HEADER.size:
            kind, size, rows = HEADER.unpack_from(buffer, at)
            end = at + HEADER.size + size
            if len(buffer) < end:
                break
            body = bytes(memoryview(buffer)[at + HEADER.size : end])
            at = end
            if self.inbox is not None:
                self.inbox.put(Frame(kind), body, rows)
        del buffer[:at]
        if self.inbox is not None and self.inbox.full_since is not None:
            self._pause()

    def connection_lost(self, error: Exception | None) -> None:
        if self.inbox is not None and self.on_lost is not None:
            self.inbox.fail(self.on_lost())
        if not self.closed.done():
            self.closed.set_result(None)

    def open_inbox(self, inbox: Inbox | None) -> None:
        """Where frames go from now on; None: nowhere, between two queries."""
        self.inbox = inbox
        if inbox is not None:
            inbox.on_space = self._resume
            if self.closed.done() and self.on_lost is not None:
                inbox.fail(self.on_lost())
        self._resume()

    def send(self, kind: Frame, body: bytes) -> None:
        """Hand a frame over."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(kind, body))

    def close(self) -> None:
        """Close our end; ``closed`` tells when that is done."""
        if self._transport is not None:
            self._transport.close()
        elif not self.closed.done():
            self.closed.set_result(None)

    def _pause(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def _resume(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """One process and its link. ``deadline`` (of the query, moved while its reader is behind),
    ``expires`` (of the request) and ``memory_max`` bound what runs on it now; ``stopped`` says why
    it was killed; ``busy`` from a plan's sending until the worker has said all."""

    process: subprocess.Popen[bytes]
    link: Link
    spill: Path
    known: set[str] = field(default_factory=set)
    deadline: float = float("inf")
    expires: float = float("inf")
    timeout_seconds: float = 0.0
    memory_max: int = 0
    stopped: LakehouseError | None = None
    busy: bool = False

    def unknown(self, scans: tuple[TableScan, ...]) -> tuple[TableScan, ...]:
        """The scans it has not been told yet; from now on it has."""
        if len(self.known) > SCANS_MAX:
            self.known.clear()
        news = tuple(scan for scan in scans if scan.name not in self.known)
        self.known.update(scan.name for scan in news)
        return news

    def ended(self) -> LakehouseError:
        """Why nothing comes from it any more."""
        return self.stopped or LakehouseError(
            ErrorKind.EXHAUSTED,
            "the query worker ended before the query did",
            http_status=422,
            hint="it ran out of memory, CPU or spill space: ask for less at a time",
        )

    def stop(self, why: LakehouseError) -> None:
        """Kill it, whatever it is doing; the first reason counts."""
        if self.stopped is None:
            self.stopped = why
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        if self.link.inbox is not None:
            self.link.inbox.fail(self.stopped)

    def resident_bytes(self) -> int:
        """Resident memory now; 0 once it has ended."""
        try:
            with open(f"/proc/{self.process.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0
