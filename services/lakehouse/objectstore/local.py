"""A local directory as a bucket: durable, atomic, and all blocking work off the loop."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from lakehouse.kit.blocking import run_in
from lakehouse.kit.clock import Clock
from lakehouse.model.refs import check_key
from lakehouse.objectstore.arguments import (
    check_browsing,
    check_listing,
    check_range,
    range_refused,
)
from lakehouse.objectstore.local_browse import browse
from lakehouse.objectstore.local_reading import FileChunks
from lakehouse.objectstore.local_syncing import EarlySync, sync_data
from lakehouse.objectstore.local_tree import LocalTree, TempFile, metadata
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, OpenedObject

P = ParamSpec("P")
R = TypeVar("R")
_THREADS_MAX: Final = 16


class LocalStore:
    """Objects as files below ``root``; see ``local_tree`` for what makes them durable.

    Beyond the port: a key with a component over 255 bytes, below ``.tmp/``, or that is at once
    file and folder is ``invalid``; a full disk is ``exhausted``; a root that is gone or replaced
    since it was first seen is ``unavailable`` and is not made again.

    Args:
        root: the folder; made on the first write.
        clock: tells how old a left-over temporary file is.
    """

    def __init__(self, root: str | os.PathLike[str], clock: Clock) -> None:
        self._tree = LocalTree(os.path.abspath(os.fspath(root)))
        self._clock = clock
        self._threads: ThreadPoolExecutor | None = None
        self._syncing: ThreadPoolExecutor | None = None
        self._swept = False

    @property
    def url(self) -> str:
        return f"file://{self._tree.root}"

    @property
    def root(self) -> str:
        """The folder's absolute path."""
        return self._tree.root

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        check_key(key)
        if byte_range is not None:
            check_range(byte_range)
        return await self._run(self._tree.read, key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        check_key(key)
        return await self._run(self._write, key, data, if_absent)

    async def head(self, key: str) -> ObjectMeta:
        check_key(key)
        return await self._run(self._tree.head, key)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            check_key(key)
        await self._run(self._remove, tuple(keys))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        check_listing(prefix, start_after, limit)
        return await self._run(self._tree.listing, prefix, start_after, limit)

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        check_browsing(prefix, limit)
        return await self._run(browse, self._tree, prefix, after, limit, folders)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        async for chunk in (await self.open(key)).chunks:
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        check_key(key)
        if byte_range is not None:
            check_range(byte_range)
        opening = asyncio.ensure_future(self._run(self._tree.open_object, key))
        try:
            fd, found = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Not waited for: the thread of a dead mount may never end.
            opening.add_done_callback(_close_opened)
            raise
        start, end = 0, found.st_size
        if byte_range is not None:
            start, end = byte_range.start, min(byte_range.end, end)
            if start >= found.st_size:
                os.close(fd)
                raise range_refused(key, byte_range, found.st_size)
        chunks = FileChunks(fd, key, (start, end), self._pread)
        return OpenedObject(metadata(key, found), start, end, chunks)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        check_key(key)
        temp = await self._to_end(self._tree.discard, self._open_temp, key)
        early = EarlySync(functools.partial(self._sync, temp.fd, key))
        try:
            async for chunk in chunks:
                await self._to_end(_forget, self._tree.append, temp, chunk, key)
                early.wrote(len(chunk))
            await early.settled()
            return await self._to_end(_forget, self._publish, key, temp)
        finally:
            await early.ended()
            self._tree.discard(temp)

    def local_path(self, key: str) -> str:
        """The path of the object's file; it is not checked that it exists."""
        return os.path.join(self._tree.root, check_key(key))

    async def close(self) -> None:
        """Let the threads go; they are made again if the store is used again."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None
        if self._syncing is not None:
            self._syncing.shutdown(wait=False)
            self._syncing = None
        self._tree.release()

    async def _pread(self, fd: int, size: int, at: int) -> bytes:
        # Not waited for when it is cancelled, as a dead mount may never answer: what it reads is
        # thrown away, so it does not matter if another has the descriptor by then.
        return await self._run(os.pread, fd, size, at)

    async def _run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        # Threads of our own: slow disks must not hold up others' blocking calls, or the reverse.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="local-store")
        return await run_in(self._threads, function, *args, **kwargs)

    async def _sync(self, fd: int, key: str) -> None:
        # One thread for the early syncs of all writes: they must not take the place of a commit.
        if self._syncing is None:
            self._syncing = ThreadPoolExecutor(1, thread_name_prefix="local-sync")
        await run_in(self._syncing, sync_data, fd, key)

    async def _to_end(
        self,
        undo: Callable[[R], None],
        function: Callable[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """As ``_run``, but a cancelled caller waits for the thread, then undoes its result: a
        descriptor must not be closed under a thread that writes to it, nor be lost."""
        call = asyncio.ensure_future(self._run(function, *args, **kwargs))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            if call.exception() is None:
                undo(call.result())
            raise

    def _open_temp(self, key: str) -> TempFile:
        self._sweep_once()
        return self._tree.open_temp(key)

    def _write(self, key: str, data: bytes, if_absent: bool) -> ObjectMeta:
        self._sweep_once()
        return self._tree.write(key, data, if_absent=if_absent)

    def _publish(self, key: str, temp: TempFile) -> ObjectMeta:
        return self._tree.publish(key, temp, if_absent=False)

    def _remove(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            self._tree.remove(key)

    def _sweep_once(self) -> None:
        if not self._swept:
            self._swept = True
            self._tree.sweep(self._clock.now_us() / 1e6)


def _close_opened(opening: asyncio.Future[tuple[int, os.stat_result]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result()[0])


def _forget(result: object) -> None:
    """Nothing to undo."""
