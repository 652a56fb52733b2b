"""Objects: bytes in and out of a named bucket, with the headers that users of S3 know."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.objects import ListObjectsRequest, ObjectsService
from lakehouse.gateway import examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.object_headers import deleting, writing
from lakehouse.gateway.object_replies import (
    OCTETS,
    ObjectsShape,
    StoredShape,
    emptied,
    object_reply,
    objects_reply,
    stored_reply,
)
from lakehouse.gateway.openapi import described, told, with_body
from lakehouse.gateway.params import Cursor, Limit
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute
from lakehouse.gateway.uploads import raw_body

Bucket = Annotated[str, Path(description="A bucket's name.", examples=["primary"], max_length=1000)]
Key = Annotated[
    str,
    Path(
        description="The object's key, percent-encoded; slashes may stay as they are.",
        examples=["inbox/people.csv"],
        max_length=2000,
    ),
]


async def _listing(
    bucket: Bucket,
    prefix: Annotated[
        str,
        Query(description="Any beginning of a key.", examples=["inbox/"], max_length=2000),
    ] = "",
    delimiter: Annotated[
        str,
        Query(
            description="`/`: what has one after the prefix is told by its folder alone.",
            max_length=8,
        ),
    ] = "",
    limit: Limit = 1000,
    cursor: Cursor = "",
) -> ListObjectsRequest:
    return ListObjectsRequest(bucket, prefix, delimiter, limit, cursor)


Listing = Annotated[ListObjectsRequest, Depends(_listing)]

_BYTES: Final[dict[str, Any]] = {
    OCTETS: {
        "schema": {"type": "string", "format": "binary"},
        "example": "id,name\n007,Ada\n",
    }
}
_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "The bytes of the object, whatever their media type is said to be.",
    "content": _BYTES,
}


def routes(objects: ObjectsService, settings: GatewaySettings) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["objects"], route_class=StrictRoute)
    path = "/storage/objects/{bucket}/{key:path}"
    read = described("Read an object", {200: _BYTES, 206: _BYTES, 304: None}, also=(409, 412, 416))
    stored = told("Store an object", StoredShape, examples.STORED, also=(408, 409, 412, 413, 415))
    gone = described("Delete an object", {204: None}, also=(409,))

    @router.get("/storage/objects/{bucket}", **told("List objects", ObjectsShape, examples.OBJECTS))
    async def list_objects(ctx: Reader, asked: Listing) -> Response:
        """A page in byte order of keys, by one request to the bucket. A page may have fewer
        entries than `limit`, or none, and still have a `next`."""
        return objects_reply(asked, await objects.list(ctx, asked))

    @router.get(path, **read)
    async def get_object(ctx: Reader, bucket: Bucket, key: Key, request: Request) -> Response:
        """With `Range`, `If-Match`, `If-None-Match`, `If-Modified-Since`, `If-Unmodified-Since`
        and `If-Range`; HEAD gives the headers alone. The media type is that of the key's ending."""
        return await object_reply(objects, ctx, bucket, key, request)

    @router.put(path, **with_body(stored, _BODY))
    async def put_object(ctx: Writer, bucket: Bucket, key: Key, request: Request) -> Response:
        """All of the body is stored, or nothing. `If-None-Match: *` stores it only where there is
        none; `Content-MD5`, `Content-Digest`, `Digest` and `x-amz-checksum-sha256` are checked."""
        asked = writing(bucket, key, request.headers)
        body = raw_body(request, settings.upload_bytes_max)
        return stored_reply(await objects.put(ctx, asked, body))

    @router.delete(path, **gone)
    async def delete_object(ctx: Writer, bucket: Bucket, key: Key, request: Request) -> Response:
        """204 also where there is none."""
        asked = deleting(bucket, key, request.headers)
        return await emptied(objects.delete(ctx, asked))

    return router
