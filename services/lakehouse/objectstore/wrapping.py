"""The base of all wrapper stores: forwards every operation, and exactly the inner capabilities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.port import (
    Browsing,
    ByteRange,
    Level,
    LocalFiles,
    ObjectMeta,
    ObjectStore,
    OpenedObject,
    PinnedReads,
    StreamingReads,
    StreamingWrites,
)


class ForwardingStore:
    """Forwards to ``inner``; a wrapper overrides what it changes.

    ``isinstance(wrapper, LocalFiles)`` holds exactly if it holds for ``inner``: the method is set
    on the instance, for a capability that is only sometimes there is no capability.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        if isinstance(inner, LocalFiles):
            self.local_path = inner.local_path

    @property
    def url(self) -> str:
        return self.inner.url

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self.inner.get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self.inner.list(prefix, start_after=start_after, limit=limit)

    def stream(self, key: str) -> AsyncIterator[bytes]:
        if not isinstance(self.inner, StreamingReads):
            raise LakehouseError(ErrorKind.INVALID, "this store cannot stream", url=self.url)
        return self.inner.stream(key)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        if not isinstance(self.inner, StreamingWrites):
            raise LakehouseError(ErrorKind.INVALID, "this store cannot stream", url=self.url)
        return await self.inner.put_stream(key, chunks)

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        if not isinstance(self.inner, PinnedReads):
            raise LakehouseError(ErrorKind.INVALID, "this store cannot open", url=self.url)
        return await self.inner.open(key, byte_range)

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        if not isinstance(self.inner, Browsing):
            raise LakehouseError(ErrorKind.INVALID, "this store cannot browse", url=self.url)
        return await self.inner.browse(prefix, after=after, limit=limit, folders=folders)

    async def close(self) -> None:
        await self.inner.close()
