"""Tags: names for versions of the store, which stay readable as long as their tag is there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.tags import SetTagRequest, Tag, TagsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway import row_examples as examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import read_json
from lakehouse.gateway.openapi import told, with_json
from lakehouse.gateway.params import Cursor, Limit
from lakehouse.gateway.replies import made, reply
from lakehouse.gateway.row_bodies import TagBody
from lakehouse.gateway.row_shapes import TagShape, TagsShape, set_tag_shape, tag_shape, tags_shape
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute
from lakehouse.model.identity import Context

_ONE = "/catalog/tags/{tag}"

TagName = Annotated[str, Path(description="The tag.", examples=["march"], max_length=1000)]
OfDataset = Annotated[str, Query(description="Only of this dataset.", max_length=1000)]


def routes(catalog: CatalogService, settings: GatewaySettings) -> APIRouter:
    """The routes of tags over the catalog's contract."""
    router = APIRouter(tags=["catalog"], route_class=StrictRoute)
    set_ = told("Tag a version", TagShape, examples.TAG, statuses=(201, 200), also=(409,))

    @router.get("/catalog/tags", **told("List tags", TagsShape, examples.TAGS))
    async def list_tags(
        ctx: Reader, dataset: OfDataset = "", limit: Limit = 100, cursor: Cursor = ""
    ) -> Response:
        """By name, a page at a time."""
        result = await catalog.tags(ctx, TagsRequest(dataset, limit, cursor))
        return reply(tags_shape(result), result.version)

    @router.get(_ONE, **told("A tag", TagShape, examples.TAG))
    async def get_tag(ctx: Reader, tag: TagName) -> Response:
        """The version it names; `as_of=tag:<name>` reads it."""
        found, version = await _find(catalog, ctx, tag)
        return reply(tag_shape(found, version), version)

    @router.put(_ONE, **with_json(set_, TagBody, examples.SET_TAG))
    async def set_tag(ctx: Writer, tag: TagName, request: Request) -> Response:
        """The version now, or `as_of`; of one dataset or of the whole store. It stays readable as
        long as the tag is there. A tag of that name at another version is a 409."""
        body = await read_json(request, TagBody, settings.json_bytes_max, TagBody())
        result = await catalog.set_tag(ctx, body.request(tag))
        return made(set_tag_shape(result), result.version, result.created)

    @router.delete(_ONE, **told("Remove a tag", TagShape, examples.TAG))
    async def remove_tag(ctx: Writer, tag: TagName) -> Response:
        """What it alone kept is collected as all else is."""
        result = await catalog.set_tag(ctx, SetTagRequest(tag, remove=True))
        return reply(set_tag_shape(result), result.version)

    return router


async def _find(catalog: CatalogService, ctx: Context, name: str) -> tuple[Tag, int]:
    asked = TagsRequest()
    while True:
        result = await catalog.tags(ctx, asked)
        for tag in result.tags:
            if tag.name == name:
                return tag, result.version
        if not result.cursor:
            raise LakehouseError(
                ErrorKind.NOT_FOUND, "there is no such tag", tag=name, hint="GET /catalog/tags"
            )
        asked = TagsRequest(cursor=result.cursor)
