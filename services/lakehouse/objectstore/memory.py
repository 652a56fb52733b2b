"""A store in this process's memory, for tests and throw-away runs: nothing outlives the process."""

from __future__ import annotations

import asyncio
import bisect
import hashlib
from collections.abc import AsyncIterator, Sequence

from lakehouse.kit.clock import Clock
from lakehouse.model.refs import check_key
from lakehouse.objectstore.arguments import (
    FAR,
    PART_BYTES,
    check_browsing,
    check_listing,
    check_range,
    key_taken,
    no_such_key,
    range_refused,
)
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, OpenedObject


class MemoryStore:
    """The simplest store that keeps every promise of the port but durability.

    Each operation yields to the loop once before it takes effect, as a real store would, and is
    atomic after that.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._objects: dict[str, tuple[bytes, ObjectMeta]] = {}
        self._keys: list[str] = []

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        data, _ = await self._entry(key)
        if byte_range is None:
            return data
        check_range(byte_range)
        if byte_range.start >= len(data):
            raise range_refused(key, byte_range, len(data))
        return data[byte_range.start : byte_range.end]

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        check_key(key)
        await asyncio.sleep(0)
        if key in self._objects and if_absent:
            raise key_taken(key)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        meta = ObjectMeta(key, len(data), etag, self._clock.now_us())
        if key not in self._objects:
            bisect.insort(self._keys, key)
        self._objects[key] = (bytes(data), meta)
        return meta

    async def head(self, key: str) -> ObjectMeta:
        _, meta = await self._entry(key)
        return meta

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            check_key(key)
        await asyncio.sleep(0)
        for key in keys:
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect.bisect_left(self._keys, key)]

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        check_listing(prefix, start_after, limit)
        await asyncio.sleep(0)
        # Python compares str by code point, which is the byte order of their UTF-8.
        first = max(
            bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, start_after)
        )
        found: list[ObjectMeta] = []
        for key in self._keys[first : first + limit]:
            if not key.startswith(prefix):
                break
            found.append(self._objects[key][1])
        return found

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        data, _ = await self._entry(key)
        for start in range(0, len(data), PART_BYTES):
            yield data[start : start + PART_BYTES]

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        data, meta = await self._entry(key)
        start, end = 0, len(data)
        if byte_range is not None:
            check_range(byte_range)
            if byte_range.start >= end:
                raise range_refused(key, byte_range, end)
            start, end = byte_range.start, min(byte_range.end, end)
        return OpenedObject(meta, start, end, _pieces(data, start, end))

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        check_browsing(prefix, limit)
        await asyncio.sleep(0)
        objects: list[ObjectMeta] = []
        found: list[str] = []
        last = ""
        at = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, after))
        while at < len(self._keys) and (key := self._keys[at]).startswith(prefix):
            if len(objects) + len(found) == limit:
                return Level(tuple(objects), tuple(found), last)
            name, slash, _ = key[len(prefix) :].partition("/")
            if folders and slash:
                found.append(prefix + name + slash)
                last = found[-1] + FAR
                at = bisect.bisect_right(self._keys, last)
            else:
                objects.append(self._objects[key][1])
                last = key
                at += 1
        return Level(tuple(objects), tuple(found))

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        check_key(key)
        return await self.put(key, b"".join([chunk async for chunk in chunks]))

    async def close(self) -> None:
        """Nothing to free: the objects stay for whoever else holds this store."""

    async def _entry(self, key: str) -> tuple[bytes, ObjectMeta]:
        check_key(key)
        await asyncio.sleep(0)
        try:
            return self._objects[key]
        except KeyError:
            raise no_such_key(key) from None


async def _pieces(data: bytes, start: int, end: int) -> AsyncIterator[bytes]:
    for at in range(start, end, PART_BYTES):
        yield data[at : min(at + PART_BYTES, end)]
