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
from pathlib import Path
from typing import Final

import orjson

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.objectstore.folders import Claim, claim
from lakehouse.queryd.process import Drain, Held, Inbox, Link, WorkerProcess
from lakehouse.queryd.settings import GIB, QuerySettings
from lakehouse.queryd.wire import Frame

WATCH_SECONDS: Final = 0.05
WIND_DOWN_SECONDS: Final = 0.25
# A result that is not fetched keeps its worker so long; less when somebody waits for one.
STALL_SECONDS_MAX: Final = 60.0
STALL_WAITED_FOR_SECONDS_MAX: Final = 5.0
ADDRESS_SPACE_EXTRA: Final = 16 * GIB


def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> asyncio.Task[None]:
    """Hold on to a task until it is done."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _waited_too_long(seconds: float, expired: bool) -> LakehouseError:
    if expired:
        return LakehouseError(ErrorKind.TIMEOUT, "the request's deadline has passed")
    return LakehouseError(
        ErrorKind.UNAVAILABLE,
        "no query worker became free in time",
        waited_seconds=round(seconds, 3),
        retry_after_seconds=1,
    )


def _give_up(waiter: asyncio.Future[WorkerProcess], seconds: float, expired: bool) -> None:
    if not waiter.done():
        waiter.set_exception(_waited_too_long(seconds, expired))


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
        self._held = Held()

    @property
    def size(self) -> int:
        """Processes that are there or are starting."""
        return len(self._all) + self._starting

    def states(self) -> dict[str, int]:
        """How many processes are starting, idle and busy."""
        idle = len(self._idle)
        return {"starting": self._starting, "idle": idle, "busy": len(self._all) - idle}

    async def start(self) -> None:
        """Start the warm ones and wait for the first."""
        self._claim = await claim(self._settings.spill_dir, self._ids.ulid())
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
        await asyncio.gather(*self._starts, return_exceptions=True)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for worker in list(self._all):
            self._discard(worker, gone)
        await asyncio.gather(*self._burials, return_exceptions=True)
        if self._claim is not None:
            await run_blocking(self._claim.release)

    async def take(self, deadline: float, expires: float) -> WorkerProcess:
        """A warm worker for one query, with an inbox of its own; give it back by ``release``.

        Raises ``timeout`` when ``expires`` passes before one is free, and ``unavailable`` when
        ``deadline`` does, the line is full or the pool is closed. Both on the boot-time clock.
        """
        worker = await self._free_worker(deadline, expires)
        worker.busy = True
        worker.deadline, worker.expires = deadline, expires
        worker.link.open_inbox(Inbox(self._clock.monotonic, self._held))
        return worker

    def release(self, worker: WorkerProcess) -> None:
        """Nobody waits for the query on it any more: it is idle again, or soon, or killed."""
        worker.deadline = worker.expires = float("inf")
        worker.memory_max = 0
        if worker.stopped is not None or worker.link.closed.done():
            self._put_down(worker)
        elif worker.busy:
            self._wind_down(worker)
        else:
            worker.link.open_inbox(None)
            self._give(worker)

    def _wind_down(self, worker: WorkerProcess) -> None:
        """Have it leave its query; killed if it does not in time, as within one long step of an
        engine. A warm worker is worth the wait: a new one takes longer to start."""
        drain = Drain(self._clock.monotonic, self._held)
        timer = asyncio.get_running_loop().call_later(
            WIND_DOWN_SECONDS, lambda: drain.on_end(False)
        )

        def ended(ready: bool) -> None:
            drain.on_end = lambda _: None
            timer.cancel()
            if not ready:
                self._put_down(worker)
                return
            worker.busy = False
            worker.link.open_inbox(None)
            self._give(worker)

        drain.on_end = ended
        worker.link.open_inbox(drain)
        worker.link.send(Frame.CANCEL, b"")

    def _put_down(self, worker: WorkerProcess) -> None:
        worker.stop(LakehouseError(ErrorKind.UNAVAILABLE, "the query was given up"))
        self._replace(worker)

    async def _free_worker(self, deadline: float, expires: float) -> WorkerProcess:
        if self._closed:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the query service is closed")
        while self._idle:
            worker = self._idle.popleft()
            if not worker.link.closed.done():
                return worker
            self._replace(worker)
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
        seconds = max(0.0, min(deadline, expires) - self._clock.monotonic())
        timer: asyncio.TimerHandle | None = None
        if seconds != float("inf"):
            loop, expired = asyncio.get_running_loop(), expires <= deadline
            timer = loop.call_later(seconds, _give_up, waiter, seconds, expired)
        try:
            return await waiter
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _leave(self, waiter: asyncio.Future[WorkerProcess]) -> None:
        """Nobody waits any more; a worker that was given in the same moment is given on."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._give(waiter.result())
        else:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

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
        # Not before the fork: another descriptor could get its number, and be passed instead.
        starting.add_done_callback(lambda _: theirs.close())
        try:
            process = await asyncio.shield(starting)
        except OSError as error:
            ours.close()
            raise LakehouseError(
                ErrorKind.UNAVAILABLE, "a query worker did not start", reason=error.strerror
            ) from error
        except asyncio.CancelledError:
            # It starts all the same: end it, or nobody will.
            ours.close()
            _keep(self._burials, asyncio.ensure_future(_end(starting, spill)))
            raise
        return await self._greet(process, ours, spill)

    async def _greet(
        self, process: subprocess.Popen[bytes], ours: socket.socket, spill: Path
    ) -> WorkerProcess:
        """The worker, once it has said that it is warm."""
        link = Link()
        worker = WorkerProcess(process, link, spill)
        link.on_lost = worker.ended
        inbox = Inbox(self._clock.monotonic, self._held)
        link.open_inbox(inbox)
        try:
            ours.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
            async with asyncio.timeout(self._settings.start_seconds_max):
                await inbox.get()
        except (TimeoutError, LakehouseError) as error:
            gone = LakehouseError(ErrorKind.UNAVAILABLE, "a query worker did not start")
            self._discard(worker, gone)
            raise gone from error
        except BaseException:
            ours.close()
            self._discard(
                worker, LakehouseError(ErrorKind.UNAVAILABLE, "the query service is closing")
            )
            raise
        link.open_inbox(None)
        return worker

    def _discard(self, worker: WorkerProcess, why: LakehouseError) -> None:
        worker.stop(why)
        _keep(self._burials, asyncio.ensure_future(self._bury(worker)))

    async def _bury(self, worker: WorkerProcess) -> None:
        self._all.discard(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        # Its end is read to the end first, so that whoever waits for it hears why.
        await run_blocking(worker.process.wait)
        worker.link.close()
        await worker.link.closed
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
        inbox = worker.link.inbox
        if inbox is None:
            return
        if now > worker.expires:
            worker.stop(LakehouseError(ErrorKind.TIMEOUT, "the request's deadline has passed"))
        elif inbox.full_since is not None:
            patience = STALL_WAITED_FOR_SECONDS_MAX if self._waiters else STALL_SECONDS_MAX
            if now - inbox.full_since > patience:
                worker.stop(
                    LakehouseError(
                        ErrorKind.TIMEOUT,
                        "the result was not fetched",
                        stalled_seconds=patience,
                        hint="fetch it faster, or ask for less at a time",
                    )
                )
        elif now - inbox.waited > worker.deadline:
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


async def _end(starting: asyncio.Future[subprocess.Popen[bytes]], spill: Path) -> None:
    """Kill a process that is being started, and wait for it."""
    with contextlib.suppress(OSError):
        process = await starting
        process.kill()
        await run_blocking(process.wait)
    await run_blocking(shutil.rmtree, spill, ignore_errors=True)
