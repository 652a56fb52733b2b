"""Answers that are objects: their headers, and their bytes as they come from the bucket."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from lakehouse.contracts.objects import (
    ListObjectsRequest,
    ListObjectsResult,
    ObjectHeader,
    ObjectInfo,
    ObjectsService,
    PutObjectResult,
)
from lakehouse.gateway.accepts import ARROW_STREAM, PARQUET
from lakehouse.gateway.auth import asked_for_head
from lakehouse.gateway.object_headers import http_date, looking, reading
from lakehouse.gateway.replies import ChunkedReply, reply
from lakehouse.model.identity import Context

OCTETS: Final = "application/octet-stream"

# Not the machine's own tables: the same object has the same type everywhere.
_TYPES: Final = mimetypes.MimeTypes(())
_MORE_TYPES: Final = {
    ".parquet": PARQUET,
    ".arrow": "application/vnd.apache.arrow.file",
    ".arrows": ARROW_STREAM,
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".bz2": "application/x-bzip2",
    ".xz": "application/x-xz",
}
# A page somebody stored is not run in this server's origin, nor read by pages of others.
_HARMLESS: Final = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class StoredShape:
    """An object that was put. ``replayed``: a repeated put-if-absent found its own."""

    bucket: str
    key: str
    size_bytes: int
    etag: str
    sha256: str
    replayed: bool


@dataclass(frozen=True, slots=True)
class ObjectShape:
    """One object of a list."""

    key: str
    size_bytes: int
    etag: str
    modified_at: datetime | None


@dataclass(frozen=True, slots=True)
class ObjectsShape:
    """In byte order of keys. ``next`` is the cursor of the next page, null on the last."""

    bucket: str
    prefix: str
    objects: tuple[ObjectShape, ...]
    folders: tuple[str, ...]
    next: str | None


def media_type_of(key: str) -> str:
    """By the key's ending; nothing is stored with an object that would say it.

    >>> media_type_of("a/people.csv")
    'text/csv'
    """
    name = key.rpartition("/")[2].lower()
    ending = "." + name.rpartition(".")[2]
    guessed = _MORE_TYPES.get(ending) or _TYPES.guess_type("x" + ending)[0]
    return guessed if guessed and "." in name else OCTETS


async def object_reply(
    objects: ObjectsService, ctx: Context, bucket: str, key: str, request: Request
) -> Response:
    """The answer to a GET or a HEAD of an object."""
    if asked_for_head(request):
        header = await objects.stat(ctx, looking(bucket, key, request.headers))
        return _without_body(header)
    stream = await objects.get(ctx, reading(bucket, key, request.headers))
    header = stream.header
    if header.not_modified:
        return _without_body(header)
    status = HTTPStatus.PARTIAL_CONTENT if header.partial else HTTPStatus.OK
    headers = _headers(header)
    return ChunkedReply(stream.chunks, headers["Content-Type"], headers, status.value)


def stored_reply(result: PutObjectResult) -> Response:
    """The answer to a PUT."""
    info = result.info
    body = StoredShape(
        info.bucket, info.key, info.size_bytes, info.etag, result.sha256, result.replayed
    )
    answer = reply(body)
    if info.etag:
        answer.headers["ETag"] = f'"{info.etag}"'
    return answer


async def emptied(work: Awaitable[object]) -> Response:
    """204 once ``work`` is done."""
    await work
    return Response(status_code=HTTPStatus.NO_CONTENT.value)


def objects_reply(request: ListObjectsRequest, result: ListObjectsResult) -> Response:
    """A page of a list."""
    found = tuple(
        ObjectShape(info.key, info.size_bytes, info.etag, info.modified_at)
        for info in result.objects
    )
    shape = ObjectsShape(request.bucket, request.prefix, found, result.folders, result.next or None)
    return reply(shape)


def _without_body(header: ObjectHeader) -> Response:
    if header.not_modified:
        return Response(status_code=HTTPStatus.NOT_MODIFIED.value, headers=_validators(header.info))
    return Response(headers=_headers(header))


def _headers(header: ObjectHeader) -> dict[str, str]:
    info = header.info
    name = quote(info.key.rpartition("/")[2], safe="")
    headers = {
        **_validators(info),
        **_HARMLESS,
        # As a header, for of a text it must not be said that it is UTF-8.
        "Content-Type": media_type_of(info.key),
        "Accept-Ranges": "bytes",
        "Content-Length": str(header.end - header.start),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
    if header.partial:
        span = f"bytes {header.start}-{header.end - 1}/{info.size_bytes}"
        headers["Content-Range"] = span
    return headers


def _validators(info: ObjectInfo) -> dict[str, str]:
    headers = {"ETag": f'"{info.etag}"'} if info.etag else {}
    if info.modified_at is not None:
        headers["Last-Modified"] = http_date(info.modified_at)
    return headers
