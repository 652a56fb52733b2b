"""The bytes of an open file, read off the loop, a part at a time."""

from __future__ import annotations

import os
import weakref
from collections.abc import Awaitable, Callable
from typing import Final, Self

from lakehouse.errors import ErrorKind, LakehouseError

CHUNK_BYTES: Final = 2 << 20
"""Each thread that reads keeps about as much memory for the next time."""

Read = Callable[[int, int, int], Awaitable[bytes]]
"""``os.pread`` that can be awaited; a cancelled one may end later, and nobody sees what it read."""


class FileChunks:
    """Bytes ``[start, end)`` of an open file; its descriptor is closed with it, or when it goes.

    The file is read as it was opened, also where another has its name meanwhile.
    """

    def __init__(self, fd: int, key: str, span: tuple[int, int], read: Read) -> None:
        self._fd = fd
        self._key = key
        self._at, self._end = span
        self._read = read
        self._close = weakref.finalize(self, os.close, fd)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= self._end or not self._close.alive:
            self._close()
            raise StopAsyncIteration
        try:
            chunk = await self._read(self._fd, min(CHUNK_BYTES, self._end - self._at), self._at)
        except OSError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE, "the local file could not be read", key=self._key
            ) from error
        if not chunk:
            raise LakehouseError(
                ErrorKind.CORRUPT,
                "the file ended early",
                key=self._key,
                got=self._at,
                truncated=True,
            )
        self._at += len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the file; idempotent, nothing comes after it."""
        self._close()
