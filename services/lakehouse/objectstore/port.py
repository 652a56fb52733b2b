"""The object store port: what every adapter and wrapper offers, and what their errors mean.

Keys are those of ``model.refs.check_key``, relative to the bucket URL's prefix. Three outcomes of a
write: it returned (done), it raised ``already_exists``/``forbidden``/``invalid``/``not_found``
(definitely not done by this attempt), or it raised ``unavailable``/``timeout`` (unknown: it may be
done, now or later). ``corrupt`` is a reply that contradicts itself (length, checksum).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """``etag`` is opaque and may be "" where a store has none."""

    key: str
    size_bytes: int
    etag: str = ""
    modified_us: int = 0


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``[start, end)``, 0 <= start < end; an end beyond the object is cut to its size."""

    start: int
    end: int


@runtime_checkable
class ObjectStore(Protocol):
    """One bucket (or a prefix of it)."""

    @property
    def url(self) -> str:
        """Where it is, without credentials; for people and for remembering."""
        ...

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        """The object's bytes. Raises ``not_found``; ``invalid`` for a range past the end."""
        ...

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        """Write a whole object durably. ``if_absent``: atomic, else raises ``already_exists``.
        An adapter never retries: only the retrying wrapper and the ledger do."""
        ...

    async def head(self, key: str) -> ObjectMeta:
        """Raises ``not_found``."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete each key; one that is not there is no error."""
        ...

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        """At most ``limit`` (1 to 1000) objects with key > ``start_after`` whose key starts with
        ``prefix`` ("" or ending in "/"), in byte order of keys. One request to the store."""
        ...

    async def close(self) -> None:
        """Free connections; idempotent."""
        ...


@runtime_checkable
class StreamingReads(Protocol):
    """Capability: read a large object in chunks with bounded memory."""

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """Chunks in order; raises as ``get`` on first use."""
        ...


@runtime_checkable
class StreamingWrites(Protocol):
    """Capability: write a large object in parts; it appears whole or not at all."""

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        """Not conditional: only for keys unique by construction (ULIDs), never commit points."""
        ...


@runtime_checkable
class LocalFiles(Protocol):
    """Capability: the object is a local file that may be read in place (never written)."""

    def local_path(self, key: str) -> str: ...


@dataclass(frozen=True, slots=True)
class StoreFootprint:
    """Counters of one bucket since start, by operation (``get`` ``put`` ``head`` ``list``
    ``delete``); requests are attempts as the store would bill them."""

    requests: dict[str, int]
    bytes_read: int
    bytes_written: int
