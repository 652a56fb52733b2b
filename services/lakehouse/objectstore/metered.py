"""Counting requests and bytes by operation: the basis of footprints and request-count tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.arguments import LIST_LIMIT_MAX, PART_BYTES
from lakehouse.objectstore.port import (
    ByteRange,
    Level,
    ObjectMeta,
    ObjectStore,
    OpenedObject,
    StoreFootprint,
)
from lakehouse.objectstore.wrapping import ForwardingStore

OPERATIONS: Final = ("get", "put", "head", "list", "delete")

# What a store answers in the ordinary course; not a sign of a bucket in trouble.
_ORDINARY: Final = frozenset({ErrorKind.NOT_FOUND, ErrorKind.ALREADY_EXISTS, ErrorKind.INVALID})


class MeteredStore(ForwardingStore):
    """Counts attempts, also failed ones, as a store would bill them.

    ``last_error`` is the last answer that speaks of trouble (kind and message), "" while there is
    none; a success after it leaves it, so that an operator sees what happened last.
    """

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._requests = dict.fromkeys(OPERATIONS, 0)
        self._bytes_read = 0
        self._bytes_written = 0
        self.last_error = ""

    def footprint(self) -> StoreFootprint:
        """The counters since this wrapper was made."""
        return StoreFootprint(dict(self._requests), self._bytes_read, self._bytes_written)

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        self._requests["get"] += 1
        with self._noting():
            data = await self.inner.get(key, byte_range)
        self._bytes_read += len(data)
        return data

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self._requests["put"] += 1
        self._bytes_written += len(data)
        with self._noting():
            return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        self._requests["head"] += 1
        with self._noting():
            return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        self._requests["delete"] += -(-len(keys) // LIST_LIMIT_MAX)
        with self._noting():
            await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        self._requests["list"] += 1
        with self._noting():
            return await self.inner.list(prefix, start_after=start_after, limit=limit)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        self._requests["get"] += 1
        with self._noting():
            async for chunk in super().stream(key):
                self._bytes_read += len(chunk)
                yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        self._requests["get"] += 1
        with self._noting():
            opened = await super().open(key, byte_range)
        return replace(opened, chunks=self._counted(opened.chunks))

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        with self._noting():
            async for chunk in chunks:
                self._bytes_read += len(chunk)
                yield chunk

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        self._requests["list"] += 1
        with self._noting():
            return await super().browse(prefix, after=after, limit=limit, folders=folders)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        sent = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal sent
            async for chunk in chunks:
                sent += len(chunk)
                yield chunk

        try:
            with self._noting():
                return await super().put_stream(key, counted())
        finally:
            parts = -(-sent // PART_BYTES)
            # One part is a plain put; more are a start, the parts, and a completion.
            self._requests["put"] += parts + 2 if parts > 1 else 1
            self._bytes_written += sent

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except LakehouseError as error:
            if error.kind not in _ORDINARY:
                self.last_error = str(error)
            raise
