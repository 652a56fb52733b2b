"""Objects of users in named buckets, as a user of S3 knows them: in ranges, on conditions, whole.

Keys are those of ``model.refs.check_key``. What the lakehouse keeps for itself (``is_owned``) is
written and deleted by nobody here, and read by operators only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lakehouse.model.identity import Context


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it.

    Attributes:
        etag: opaque, without quotes; changes whenever the object is replaced. "" where the store
            has none.
        modified_at: None where it is not known (the answer to a put).
    """

    bucket: str
    key: str
    size_bytes: int
    etag: str = ""
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ObjectRange:
    """Bytes ``[start, end)``; without ``end`` all from ``start`` on; with ``last`` (and neither of
    the others) the last so many. An end beyond the object is cut to its size."""

    start: int = 0
    end: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """On the object as it is, as RFC 9110, 13: all that are given must hold. "*" is any etag.

    ``if_match`` and ``if_unmodified_since`` failing is an error, the other two failing is the
    answer ``not_modified``. A time is not looked at where etags are given for the same end.
    """

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class GetObjectRequest:
    """``if_range``: the range is meant for the object with this etag; of another all is sent."""

    bucket: str
    key: str
    range: ObjectRange | None = None
    conditions: Conditions = Conditions()
    if_range: str = ""


@dataclass(frozen=True, slots=True)
class StatObjectRequest:
    bucket: str
    key: str
    conditions: Conditions = Conditions()


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    """Known before the first byte: ``[start, end)`` of the object follows.

    Attributes:
        partial: a range was asked for and is what follows.
        not_modified: the caller has this one already: nothing follows.
    """

    info: ObjectInfo
    start: int
    end: int
    partial: bool = False
    not_modified: bool = False


@dataclass(frozen=True, slots=True)
class ObjectStream:
    """``chunks`` are exactly ``header.end - header.start`` bytes of one object, or they raise.
    Closing them ends the read."""

    header: ObjectHeader
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class PutObjectRequest:
    """What is stated of the body is checked; where it is not so, nothing is stored.

    Attributes:
        if_absent: atomic; such a body has at most ``CONDITIONAL_BYTES_MAX`` bytes.
        size_bytes: how many the body has; None if that is not known yet.
        sha256, md5: in hexadecimal, "" for unstated.
    """

    bucket: str
    key: str
    if_absent: bool = False
    size_bytes: int | None = None
    sha256: str = ""
    md5: str = ""


@dataclass(frozen=True, slots=True)
class PutObjectResult:
    """``replayed``: with ``if_absent`` and an idempotency key, the same bytes were there."""

    info: ObjectInfo
    sha256: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class DeleteObjectRequest:
    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class DeleteObjectResult:
    """The object is not there; whether it was is not asked."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class ListObjectsRequest:
    """A page of a bucket, in byte order of keys.

    Attributes:
        prefix: any beginning of a key.
        delimiter: "/": what has one after the prefix is told by its folder alone; "" for all.
        limit: 1 to 1000 objects and folders together.
        cursor: ``next`` of the page before, "" for the first.
    """

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    limit: int = 1000
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class ListObjectsResult:
    """One request to the bucket. A page may have fewer than ``limit`` entries, or none, and still
    have a ``next``; "" is the end."""

    objects: tuple[ObjectInfo, ...]
    folders: tuple[str, ...] = ()
    next: str = ""


CONDITIONAL_BYTES_MAX = 64 * 1024 * 1024
"""A put that must be atomic is one request to the bucket, and held in memory until it is whole."""

OBJECT_BYTES_MAX = 10_000 * 8 * 1024 * 1024
"""10,000 parts, as many as S3 takes."""


class ObjectsService(Protocol):
    """Raises ``not_found`` (bucket, key), ``invalid`` (key, range, checksum), ``forbidden`` (a key
    of the lakehouse), and what the bucket raises. A range past the end is ``invalid`` with
    http_status 416 and ``size_bytes``."""

    async def list(self, ctx: Context, request: ListObjectsRequest) -> ListObjectsResult:
        """Scope read. What the lakehouse keeps for itself is listed for operators only."""
        ...

    async def stat(self, ctx: Context, request: StatObjectRequest) -> ObjectHeader:
        """Scope read. Raises ``conflict`` with http_status 412 where a condition fails."""
        ...

    async def get(self, ctx: Context, request: GetObjectRequest) -> ObjectStream:
        """Scope read. Raises as ``stat``. Reads no more of the object than was asked for."""
        ...

    async def put(
        self, ctx: Context, request: PutObjectRequest, body: AsyncIterator[bytes]
    ) -> PutObjectResult:
        """Store the whole body, or nothing. Scope write.

        Sending the same again has the same outcome. Raises ``already_exists`` with http_status 412
        (``if_absent``), ``conflict`` (a dataset names what would be replaced), ``invalid`` with
        413 (too large), ``unknown`` (sent, and not heard of).
        """
        ...

    async def delete(self, ctx: Context, request: DeleteObjectRequest) -> DeleteObjectResult:
        """Scope write. One that is not there is no error. Raises ``conflict`` (a dataset names
        it)."""
        ...
