"""Watching for a take-over: the newest slot is re-read every second, and before the next answer
after the machine slept."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import chain
from lakehouse.ledger.access import Access
from lakehouse.ledger.committer import Committer
from lakehouse.ledger.errors import fenced, unavailable

S = TypeVar("S")


class Authority(Generic[S]):
    """Fences the committer when the chain is of another epoch."""

    def __init__(self, access: Access, committer: Committer[S]) -> None:
        self._access = access
        self._committer = committer
        self._ticked = access.clock.monotonic()
        self._asleep = False
        self._sleeps = 0
        self._check: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._watch(), name="ledger authority")

    async def check(self) -> None:
        """Raise ``fenced`` if the ledger is known to be another's. Reads the chain first if the
        clock jumped; then also ``unavailable`` if the store does not answer."""
        self._raise_fenced()
        self._notice_sleep()
        while self._asleep:
            check = self._start_check()
            await asyncio.wait([check])
            if check.cancelled():
                raise unavailable("the ledger is closing")
            check.result()
            self._raise_fenced()

    async def stop(self) -> None:
        """End the watch."""
        tasks = [task for task in (self._task, self._check) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def _raise_fenced(self) -> None:
        error = self._committer.error
        if error is not None:
            raise LakehouseError(error.kind, error.message, **error.fields)

    def _notice_sleep(self) -> None:
        settings = self._access.settings
        allowed = settings.fence_check_seconds + settings.clock_jump_seconds
        now = self._access.clock.monotonic()
        if now - self._ticked > allowed:
            self._asleep = True
            self._sleeps += 1
            self._ticked = now

    async def _watch(self) -> None:
        while self._committer.error is None:
            await self._access.clock.sleep(self._access.settings.fence_check_seconds)
            self._notice_sleep()
            # The tick goes on while a check hangs: a slow bucket is not a machine that slept.
            self._ticked = self._access.clock.monotonic()
            self._start_check()

    def _start_check(self) -> asyncio.Task[None]:
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._read(), name="ledger authority check")
            self._check.add_done_callback(_retrieve)
        return self._check

    async def _read(self) -> None:
        sleeps = self._sleeps
        known = self._committer.head.n
        newest = await chain.newest(self._access)
        if newest is None or newest < known:
            self._committer.fence(
                LakehouseError(
                    ErrorKind.CORRUPT,
                    "the ledger has lost its newest records",
                    slot=known,
                    hint="the bucket was emptied or rolled back under this node",
                )
            )
        elif newest > self._committer.head.n:
            record = (await chain.read_slot(self._access, newest)).record
            if record.epoch > self._committer.head.epoch:
                self._committer.fence(fenced(record))
        if sleeps == self._sleeps:
            self._asleep = False


def _retrieve(task: asyncio.Task[None]) -> None:
    """A check that failed is made again in a second; only ``check`` tells its caller."""
    if not task.cancelled():
        task.exception()
