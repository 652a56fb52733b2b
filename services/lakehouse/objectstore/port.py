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


@dataclass(frozen=True, slots=True)
class OpenedObject:
    """Bytes ``[start, end)`` of an object and what it was when it was opened.

    ``chunks`` are of that one object also where it is replaced meanwhile; or they end in
    ``conflict``. Closing them (``aclose``) or letting go of them frees what they hold.
    """

    meta: ObjectMeta
    start: int
    end: int
    chunks: AsyncIterator[bytes]


@runtime_checkable
class PinnedReads(Protocol):
    """Capability: an object, or a range of it, with what it is, in one request."""

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        """Raises as ``get``; the chunks raise ``corrupt`` where they end early."""
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """A page of a bucket as a person walks through it.

    Attributes:
        objects: in byte order of keys.
        folders: prefixes that end in a slash, in byte order; each stands for all objects below it.
        next: position after which the next page begins, "" at the end.
    """

    objects: tuple[ObjectMeta, ...]
    folders: tuple[str, ...] = ()
    next: str = ""


@runtime_checkable
class Browsing(Protocol):
    """Capability: list as S3 does, by any beginning of a key and folder by folder."""

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        """A page of at most ``limit`` (1 to 1000) objects and folders together, one request.

        Args:
            prefix: how keys begin; it need not end in a slash.
            after: ``next`` of the page before, or any text: what is greater than it is listed.
            folders: what has a slash after ``prefix`` is told by its folder alone.
        """
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
