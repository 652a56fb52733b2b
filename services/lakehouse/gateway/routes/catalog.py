"""Datasets: list, register, describe, rename, drop, restore, and what happened to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.catalog import (
    CatalogService,
    DatasetResult,
    DropRequest,
    GetRequest,
    ListRequest,
    PageRequest,
    RenameRequest,
    RestoreRequest,
    UpdateCardRequest,
)
from lakehouse.gateway import examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import PatchBody, RegisterBody, RestoreBody, read_json
from lakehouse.gateway.openapi import told, with_json
from lakehouse.gateway.params import AsOfParam, Cursor, ExpectedVersion, Flag, Limit, Name
from lakehouse.gateway.replies import made, reply
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.shapes import (
    DatasetShape,
    DatasetsShape,
    DroppedShape,
    FilesShape,
    HistoryShape,
    LineageShape,
    SchemaShape,
    VersionsShape,
    dataset_shape,
    datasets_shape,
    files_shape,
    history_shape,
    lineage_shape,
    schema_shape,
    versions_shape,
)
from lakehouse.gateway.strict import StrictRoute
from lakehouse.model.identity import Context

_ONE = "/catalog/datasets/{name}"

Search = Annotated[
    str,
    Query(
        description="Looks in name, description, tags, owner and columns.",
        examples=["people"],
        max_length=1000,
    ),
]
Tag = Annotated[str, Query(description="Only datasets with this tag.", max_length=1000)]
Owner = Annotated[str, Query(description="Only datasets of this owner.", max_length=1000)]
WithDropped = Annotated[Flag, Query(description="Dropped ones too, while they can be restored.")]
Purge = Annotated[bool, Query(description="Make it final: it cannot be restored.")]


def routes(catalog: CatalogService, settings: GatewaySettings) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["catalog"], route_class=StrictRoute)
    _add_collection(router, catalog, settings)
    _add_dataset(router, catalog, settings)
    _add_pages(router, catalog)
    return router


def _add_collection(router: APIRouter, catalog: CatalogService, settings: GatewaySettings) -> None:
    @router.get(
        "/catalog/datasets",
        **told("List and search datasets", DatasetsShape, examples.DATASETS),
    )
    async def list_datasets(
        ctx: Reader,
        q: Search = "",
        tag: Tag = "",
        owner: Owner = "",
        include_dropped: WithDropped = False,
        limit: Limit = 100,
        cursor: Cursor = "",
    ) -> Response:
        """Sorted by name, a page at a time; the filters are joined by and."""
        request = ListRequest(q, tag, owner, include_dropped, limit, cursor)
        result = await catalog.list(ctx, request)
        return reply(datasets_shape(result), result.version)

    @router.post(
        "/catalog/datasets",
        **with_json(
            told(
                "Register Parquet objects as a dataset",
                DatasetShape,
                examples.DATASET,
                statuses=(201, 200),
                also=(409,),
            ),
            RegisterBody,
            examples.REGISTER,
        ),
    )
    async def register(ctx: Writer, request: Request) -> Response:
        """The same fingerprint under the same name replaces the objects and keeps the id; another
        is a 409 with the difference column by column. A new name needs an owner and a
        description on its card."""
        body = await read_json(request, RegisterBody, settings.json_bytes_max)
        result = await catalog.register(ctx, body.request())
        return made(dataset_shape(result), result.version, result.created)


def _add_dataset(router: APIRouter, catalog: CatalogService, settings: GatewaySettings) -> None:
    @router.get(_ONE, **told("A dataset with its card", DatasetShape, examples.DATASET))
    async def get(
        ctx: Reader, name: Name, as_of: AsOfParam, include_dropped: WithDropped = False
    ) -> Response:
        """As it is now, or as it was at a version of the store or at a time."""
        result = await catalog.get(ctx, GetRequest(name, as_of, include_dropped))
        return reply(dataset_shape(result), result.version)

    @router.patch(
        _ONE,
        **with_json(
            told("Change the card, or rename", DatasetShape, examples.DATASET, also=(409,)),
            PatchBody,
            examples.PATCH,
        ),
    )
    async def patch(ctx: Writer, name: Name, request: Request) -> Response:
        """A `name` renames; other fields replace those of the card; both at once are refused."""
        body = await read_json(request, PatchBody, settings.json_bytes_max)
        result = await _apply_patch(catalog, ctx, body.request(name))
        return reply(dataset_shape(result), result.version)

    @router.delete(_ONE, **told("Drop a dataset", DroppedShape, examples.DROPPED, also=(409,)))
    async def drop(
        ctx: Writer,
        name: Name,
        purge: Purge = False,
        expected_version: ExpectedVersion = None,
    ) -> Response:
        """Soft: it can be restored for 7 days, unless it is purged."""
        result = await catalog.drop(ctx, DropRequest(name, purge, expected_version))
        return reply(DroppedShape(name, purge, result.version), result.version)

    @router.post(
        _ONE + "/restore",
        **with_json(
            told("Bring a dropped dataset back", DatasetShape, examples.DATASET, also=(409,)),
            RestoreBody,
            {"name": "people_again"},
        ),
    )
    async def restore(ctx: Writer, name: Name, request: Request) -> Response:
        """Under its own name, or under another one if that is taken; the body may be empty."""
        body = await read_json(request, RestoreBody, settings.json_bytes_max, RestoreBody())
        result = await catalog.restore(ctx, RestoreRequest(name, body.name))
        return reply(dataset_shape(result), result.version)

    @router.get(_ONE + "/schema", **told("Its columns", SchemaShape, examples.SCHEMA))
    async def schema(ctx: Reader, name: Name, as_of: AsOfParam) -> Response:
        """Columns with their stable ids, the schema's version and its fingerprint."""
        result = await catalog.get(ctx, GetRequest(name, as_of))
        return reply(schema_shape(result), result.version)

    @router.get(
        _ONE + "/lineage", **told("Where its rows came from", LineageShape, examples.LINEAGE)
    )
    async def lineage(ctx: Reader, name: Name, as_of: AsOfParam) -> Response:
        """Source system, ingest, inputs."""
        result = await catalog.get(ctx, GetRequest(name, as_of))
        return reply(lineage_shape(result), result.version)


def _add_pages(router: APIRouter, catalog: CatalogService) -> None:
    @router.get(_ONE + "/versions", **told("Its versions", VersionsShape, examples.VERSIONS))
    async def versions(
        ctx: Reader, name: Name, as_of: AsOfParam, limit: Limit = 100, cursor: Cursor = ""
    ) -> Response:
        """Every commit that touched it, newest first, with rows and files added and removed."""
        result = await catalog.versions(ctx, PageRequest(name, as_of, limit, cursor))
        return reply(versions_shape(name, result), result.version)

    @router.get(_ONE + "/history", **told("Who did what to it", HistoryShape, examples.HISTORY))
    async def history(
        ctx: Reader, name: Name, as_of: AsOfParam, limit: Limit = 100, cursor: Cursor = ""
    ) -> Response:
        """The same commits in words: who, when, what, from which source, by which request."""
        result = await catalog.versions(ctx, PageRequest(name, as_of, limit, cursor))
        return reply(history_shape(name, result), result.version)

    @router.get(_ONE + "/files", **told("The objects it is made of", FilesShape, examples.FILES))
    async def files(
        ctx: Reader, name: Name, as_of: AsOfParam, limit: Limit = 100, cursor: Cursor = ""
    ) -> Response:
        """With sizes, rows, checksums and the bounds of their columns."""
        result = await catalog.files(ctx, PageRequest(name, as_of, limit, cursor))
        return reply(files_shape(name, result), result.version)


async def _apply_patch(
    catalog: CatalogService, ctx: Context, request: RenameRequest | UpdateCardRequest
) -> DatasetResult:
    if isinstance(request, RenameRequest):
        return await catalog.rename(ctx, request)
    return await catalog.update_card(ctx, request)
