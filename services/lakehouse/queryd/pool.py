"""Query workers as processes: started warm, one query each, killed when they overrun.

A worker has no credentials and a scrubbed environment. Killing is the only way to stop a query:
an engine may ignore an interrupt for as long as one scalar call takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.queryd.folders import Claim
from lakehouse.queryd.plan import TableScan
from lakehouse.queryd.settings import GIB, QuerySettings
from lakehouse.queryd.wire import FRAME_BYTES_MAX, HEADER, Frame, frame

WATCH_SECONDS: Final = 0.05
SCANS_MAX: Final = 2048
ADDRESS_SPACE_EXTRA: Final = 16 * GIB
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """One process and its socket. ``deadline``, ``expires`` and ``memory_max`` bound the query
    that runs on it now; ``stopped`` says why it was killed."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    spill: Path
    known: set[str] = field(default_factory=set)
    deadline: float = float("inf")
    expires: float = float("inf")
    timeout_seconds: float = 0.0
    memory_max: int = 0
    stopped: LakehouseError | None = None
    busy: bool = False
    rows: int = 0

    def unknown(self, scans: tuple[TableScan, ...]) -> tuple[TableScan, ...]:
        """The scans it has not been told yet; from now on it has."""
        if len(self.known) > SCANS_MAX:
            self.known.clear()
        news = tuple(scan for scan in scans if scan.name not in self.known)
        self.known.update(scan.name for scan in news)
        return news

    async def send(self, plan: bytes) -> None:
        """Hand a plan over."""
        self.writer.write(frame(Frame.PLAN, plan))
        with contextlib.suppress(ConnectionError):  # the reader tells why it is gone
            await self.writer.drain()

    async def receive(self) -> tuple[Frame, bytes]:
        """The next frame; an ERROR frame is raised, so is the death of the process."""
        try:
            kind, size, rows = HEADER.unpack(await self.reader.readexactly(HEADER.size))
            body = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise self.stopped or self._died() from error
        if kind == Frame.ERROR:
            raw = orjson.loads(body)
            raise LakehouseError(ErrorKind(raw["kind"]), raw["message"], **raw["fields"])
        self.rows = max(self.rows, rows)
        return Frame(kind), body

    def _died(self) -> LakehouseError:
        return LakehouseError(
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

    def resident_bytes(self) -> int:
        """Resident memory now; 0 once it has ended."""
        try:
            with open(f"/proc/{self.process.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0


def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> asyncio.Task[None]:
    """Hold on to a task until it is done."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _over(limit: str, message: str, value: float) -> LakehouseError:
    return LakehouseError(ErrorKind.EXHAUSTED, message, http_status=422, limit=limit, value=value)


class WorkerPool:
    """Between ``workers_min`` warm processes and ``workers_max``; a bounded line of waiters."""

    def __init__(self, settings: QuerySettings, clock: Clock, ids: Ids) -> None:
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._all: set[WorkerProcess] = set()
        self._idle: deque[WorkerProcess] = deque()
        self._waiters: deque[asyncio.Future[WorkerProcess]] = deque()
        self._starting = 0
        self._starts: set[asyncio.Task[None]] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._closed = False
        self._claim: Claim | None = None

    @property
    def size(self) -> int:
        """Processes that are there or are starting."""
        return len(self._all) + self._starting

    async def start(self) -> None:
        """Start the warm ones and wait for the first."""
        self._claim = await run_blocking(Claim, self._settings.spill_dir, self._ids.ulid())
        first = self._spawn()
        for _ in range(1, self._settings.workers_min):
            self._spawn()
        await first
        if not self._all:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "no query worker could be started",
                hint="its own words are in the node's log",
            )

    async def close(self) -> None:
        """Kill all and wait until they are gone."""
        self._closed = True
        gone = LakehouseError(ErrorKind.UNAVAILABLE, "the query service is closing")
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(gone)
        for task in list(self._starts):
            task.cancel()
        await asyncio.gather(*self._starts, *self._burials, return_exceptions=True)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for worker in list(self._all):
            worker.stop(gone)
            await self._bury(worker)
        if self._claim is not None:
            await run_blocking(self._claim.release)

    @contextlib.asynccontextmanager
    async def worker(self, deadline: float) -> AsyncIterator[WorkerProcess]:
        """A warm worker for one query, to be given back idle; else it is killed and replaced."""
        worker = await self._take(deadline)
        worker.busy, worker.rows = True, 0
        try:
            yield worker
        finally:
            worker.deadline = worker.expires = float("inf")
            worker.memory_max = 0
            if worker.busy or worker.stopped is not None:
                worker.stop(LakehouseError(ErrorKind.UNAVAILABLE, "the query was given up"))
                self._replace(worker)
            else:
                self._give(worker)

    async def _take(self, deadline: float) -> WorkerProcess:
        if self._closed:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the query service is closed")
        if self._idle:
            return self._idle.popleft()
        if self.size < self._settings.workers_max:
            self._spawn()
        if len(self._waiters) >= self._settings.queue_max:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "too many queries are waiting",
                waiting=len(self._waiters),
                retry_after_seconds=1,
            )
        waiter: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        seconds = max(0.0, deadline - self._clock.monotonic())
        taken = False
        try:
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                worker = await waiter
            taken = True
            return worker
        except TimeoutError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "no query worker became free in time",
                waited_seconds=round(seconds, 3),
                retry_after_seconds=1,
            ) from error
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            granted = waiter.done() and not waiter.cancelled() and waiter.exception() is None
            if granted and not taken:
                self._give(waiter.result())

    def _give(self, worker: WorkerProcess) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    def _replace(self, worker: WorkerProcess) -> None:
        self._all.discard(worker)
        _keep(self._burials, asyncio.ensure_future(self._bury(worker)))
        if not self._closed and (self._waiters or self.size < self._settings.workers_min):
            self._spawn()

    def _spawn(self) -> asyncio.Task[None]:
        self._starting += 1
        return _keep(self._starts, asyncio.ensure_future(self._start_one()))

    async def _start_one(self) -> None:
        try:
            worker = await self._launch()
        except LakehouseError as error:
            self._starting -= 1
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():
                    waiter.set_exception(error)
                    return
            return
        except BaseException:
            self._starting -= 1
            raise
        self._starting -= 1
        self._all.add(worker)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.ensure_future(self._watch())
        self._give(worker)

    async def _launch(self) -> WorkerProcess:
        settings = self._settings
        if self._claim is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the query service has not started")
        spill = self._claim.path / self._ids.ulid()
        spill.mkdir(parents=True)
        ours, theirs = socket.socketpair()
        told = {
            "threads": settings.threads,
            "spill_dir": str(spill),
            "spill_bytes_max": settings.spill_bytes_max,
            "address_space_bytes": settings.memory_bytes_max + ADDRESS_SPACE_EXTRA,
            "memory_bytes": settings.memory_bytes_max,
        }
        command = [sys.executable, "-s", "-m", "lakehouse.queryd.worker"]
        command += [str(theirs.fileno()), orjson.dumps(told).decode()]
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", "HOME": str(spill)}
        starting = asyncio.ensure_future(
            run_blocking(
                subprocess.Popen,
                command,
                pass_fds=(theirs.fileno(),),
                env=environment,
                cwd=str(spill),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            process = await starting  # it starts all the same: end it, or nobody will
            ours.close()
            process.kill()
            await run_blocking(process.wait)
            raise
        except OSError as error:
            ours.close()
            raise LakehouseError(
                ErrorKind.UNAVAILABLE, "a query worker did not start", reason=error.strerror
            ) from error
        finally:
            theirs.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=2 * FRAME_BYTES_MAX)
        worker = WorkerProcess(process, reader, writer, spill)
        try:
            async with asyncio.timeout(settings.start_seconds_max):
                await worker.receive()
        except (TimeoutError, LakehouseError) as error:
            gone = LakehouseError(ErrorKind.UNAVAILABLE, "a query worker did not start")
            worker.stop(gone)
            await self._bury(worker)
            raise gone from error
        except BaseException:
            worker.stop(LakehouseError(ErrorKind.UNAVAILABLE, "the query service is closing"))
            await self._bury(worker)
            raise
        return worker

    async def _bury(self, worker: WorkerProcess) -> None:
        self._all.discard(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        worker.writer.close()
        with contextlib.suppress(ConnectionError):
            await worker.writer.wait_closed()
        await run_blocking(worker.process.wait)
        await run_blocking(shutil.rmtree, worker.spill, ignore_errors=True)

    async def _watch(self) -> None:
        """Kill what overruns its time or memory; notice idle workers that died."""
        while not self._closed:
            await self._clock.sleep(WATCH_SECONDS)
            now = self._clock.monotonic()
            for worker in list(self._all):
                if worker.busy:
                    self._check(worker, now)
            for worker in [idle for idle in self._idle if idle.process.poll() is not None]:
                self._idle.remove(worker)
                self._replace(worker)

    def _check(self, worker: WorkerProcess, now: float) -> None:
        if now > worker.expires:
            worker.stop(LakehouseError(ErrorKind.TIMEOUT, "the request's deadline has passed"))
        elif now > worker.deadline:
            message = "the query ran longer than its limit"
            worker.stop(_over("timeout_seconds", message, worker.timeout_seconds))
        elif worker.memory_max and worker.resident_bytes() > worker.memory_max:
            worker.stop(
                _over(
                    "memory_bytes_max",
                    "the query needs more memory than its limit",
                    worker.memory_max,
                )
            )
