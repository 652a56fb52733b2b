"""Prefix ownership: a role reads everywhere and writes below its own prefixes only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.arguments import check_prefix
from lakehouse.objectstore.port import ObjectMeta, ObjectStore
from lakehouse.objectstore.wrapping import ForwardingStore


class ScopedStore(ForwardingStore):
    """Writes and deletes outside ``writes`` raise ``forbidden`` before anything is sent.

    Args:
        inner: the store.
        writes: prefixes that end in "/", or exact keys; "" is everything, () is read-only.
    """

    def __init__(self, inner: ObjectStore, writes: tuple[str, ...]) -> None:
        super().__init__(inner)
        for prefix in writes:
            if prefix.endswith("/"):
                check_prefix(prefix)
        self._writes = writes

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self._check(key)
        return await self.inner.put(key, data, if_absent=if_absent)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        self._check(key)
        return await super().put_stream(key, chunks)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._check(key)
        await self.inner.delete(keys)

    def _check(self, key: str) -> None:
        for own in self._writes:
            if own in ("", key) or (own.endswith("/") and key.startswith(own)):
                return
        raise LakehouseError(
            ErrorKind.FORBIDDEN,
            "this role does not own the key's prefix",
            key=key[:120],
            owned=list(self._writes),
        )
