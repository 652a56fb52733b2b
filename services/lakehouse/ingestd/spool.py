"""Bodies on their way in: a local folder of this process, bounded, emptied at start and stop.

Each process has a folder of its own below ``spool_dir``, held by a file lock; folders whose lock is
free are left from processes that died, and are removed.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.limits import beyond
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.ids import Ids

_WRITE_BYTES: Final = 1 << 20
_LOCK_NAME: Final = "lock"


@dataclass(frozen=True, slots=True)
class SpooledBody:
    """A body at rest. ``sha256`` is of the bytes as they were sent, lower-case hex."""

    path: Path
    size_bytes: int
    sha256: str


def disk_error(error: OSError, folder: Path) -> LakehouseError:
    """A write to the spool failed: full disk, quota, read-only, gone."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return LakehouseError(
        ErrorKind.EXHAUSTED if full else ErrorKind.UNAVAILABLE,
        "the spool disk is full" if full else "the spool folder cannot be written",
        folder=str(folder),
        reason=os.strerror(error.errno) if error.errno else str(error),
        hint="free space below ingest.spool_dir or point it at a larger disk",
    )


class _Writer:
    """Writes and hashes one body, one stretch of it at a time in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hash = hashlib.sha256()
        self.file: BinaryIO = path.open("xb", buffering=0)
        self._flight: Future[None] | None = None

    async def write(self, chunks: list[bytes], executor: Executor) -> None:
        """Wait for the stretch before, then begin this one."""
        await self.settle()
        self._flight = executor.submit(self._write, chunks)

    async def settle(self) -> None:
        """Wait until all is written; raises what the writing raised."""
        flight = self._flight
        if flight is not None:
            # A wait that is cancelled leaves the thread its file.
            await asyncio.wait([asyncio.wrap_future(flight)])
            self._flight = None
            flight.result()

    def _write(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[self.file.write(view) :]
            self.hash.update(chunk)

    def close(self) -> None:
        """Now, or when the thread that writes is done: its file is never taken from under it."""
        if self._flight is None:
            self.file.close()
        else:
            self._flight.add_done_callback(lambda _: self.file.close())


class Spool:
    """The folder and its budget. All methods are called on the event loop's thread."""

    def __init__(self, settings: IngestSettings, ids: Ids) -> None:
        self._settings = settings
        self._ids = ids
        self._root = Path(settings.spool_dir)
        self._folder: Path | None = None
        self._lock: BinaryIO | None = None
        self._used = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of the bodies that lie here."""
        return self._used

    @property
    def folder(self) -> Path:
        if self._folder is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "ingest has not been started")
        return self._folder

    def open(self) -> None:
        """Make this process's folder; remove those of processes that are gone."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            for stale in self._root.iterdir():
                _remove_if_free(stale)
            folder = self._root / self._ids.ulid().lower()
            folder.mkdir(mode=0o700)
            self._lock = (folder / _LOCK_NAME).open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise disk_error(error, self._root) from error
        self._folder = folder

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        self._folder, self._lock, self._used = None, None, 0

    def new_folder(self) -> Path:
        """An empty folder for one ingest; ``release`` it."""
        folder = self.folder / self._ids.ulid().lower()
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise disk_error(error, self.folder) from error
        return folder

    def release(self, folder: Path, body_bytes: int) -> None:
        """Remove an ingest's folder and give back the bytes its body took."""
        shutil.rmtree(folder, ignore_errors=True)
        self._used -= body_bytes

    async def receive(
        self, folder: Path, body: AsyncIterator[bytes], executor: Executor, taken: list[int]
    ) -> SpooledBody:
        """Write a body down as it comes. ``taken[0]`` is kept at the bytes it has cost so far.

        Raises ``invalid`` beyond ``body_bytes_max``, ``exhausted`` beyond the spool's budget or on
        a full disk. At most two megabytes wait in memory: one being written, one filling.
        """
        path = folder / "body"
        try:
            writer = _Writer(path)
        except OSError as error:
            raise disk_error(error, folder) from error
        pending: list[bytes] = []
        pending_bytes = 0
        size = 0
        try:
            async for chunk in body:
                pending.append(chunk)
                pending_bytes += len(chunk)
                if pending_bytes < _WRITE_BYTES:
                    continue
                size += self._take(pending_bytes, size, taken)
                await writer.write(pending, executor)
                pending, pending_bytes = [], 0
            size += self._take(pending_bytes, size, taken)
            await writer.write(pending, executor)
            await writer.settle()
        except OSError as error:
            raise disk_error(error, folder) from error
        finally:
            writer.close()
        return SpooledBody(path, size, writer.hash.hexdigest())

    def _take(self, count: int, size: int, taken: list[int]) -> int:
        settings = self._settings
        if size + count > settings.body_bytes_max:
            raise beyond(
                "ingest.body_bytes_max",
                settings.body_bytes_max,
                "the body is larger than an ingest may be",
                "split the file, or raise the limit",
            )
        if self._used + count > settings.spool_bytes_max:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "the spool is full of other ingests",
                limit="ingest.spool_bytes_max",
                maximum=settings.spool_bytes_max,
                hint="send it again when others are done, or raise the limit",
            )
        self._used += count
        taken[0] += count
        return count


def _remove_if_free(folder: Path) -> None:
    lock = folder / _LOCK_NAME
    if not lock.is_file():
        return
    with lock.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        shutil.rmtree(folder, ignore_errors=True)
