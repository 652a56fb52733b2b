"""Vectors: search by meaning, the indexes that answer it, vectors that are given."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.vectors import (
    VECTORS_BYTES_MAX,
    CompareReport,
    CutOverRequest,
    DeleteIndexRequest,
    DeleteIndexResult,
    DeleteVectorsRequest,
    GetVectorsRequest,
    GetVectorsResult,
    IndexRequest,
    IndexResult,
    ListIndexesRequest,
    PutVectorsReport,
    PutVectorsRequest,
    VectorsService,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway import vector_examples as examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import read_json
from lakehouse.gateway.given_vectors import read_vectors
from lakehouse.gateway.openapi import told, with_body, with_json
from lakehouse.gateway.params import Cursor, Limit
from lakehouse.gateway.replies import reply
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute
from lakehouse.gateway.vector_bodies import (
    BuildBody,
    CompareBody,
    CreateIndexBody,
    CutOverBody,
    IdsBody,
    SearchBody,
)
from lakehouse.gateway.vector_shapes import (
    IndexesShape,
    IndexShape,
    ManySearchShape,
    OneSearchShape,
    VectorsShape,
    index_shape,
    indexes_shape,
    search_json,
    vectors_shape,
)

_ALL: Final = "/vectors/indexes"
_ONE: Final = "/vectors/indexes/{name}"
_VECTORS: Final = "/vectors/indexes/{name}/vectors"
_NUMBER_MAX: Final = 2**31 - 1
_KEYS_MAX: Final = 1000

IndexName = Annotated[
    str, Path(description="An index's name.", examples=["tickets"], max_length=1000)
]
VectorKey = Annotated[
    str,
    Path(
        description="The row's key, percent-encoded: the bare value of a key of one column, or a"
        " JSON array of the values; or the id of a given vector.",
        examples=["[7]"],
        max_length=4000,
    ),
]
Keys = Annotated[
    list[str],
    Query(
        description="Keys, or ids of given vectors; repeated.",
        examples=[["[7]", "[8]"]],
        min_length=1,
        max_length=_KEYS_MAX,
    ),
]
VersionNumber = Annotated[
    int, Query(ge=0, le=_NUMBER_MAX, description="Of the index's version; absent: the live one.")
]
OneVersion = Annotated[
    int, Query(ge=0, le=_NUMBER_MAX, description="Only this version, which must not be live.")
]
OfDataset = Annotated[str, Query(description="Only over this dataset.", max_length=1000)]

_GIVEN: Final[dict[str, Any]] = {
    "required": True,
    "description": "At most 32 MiB. Arrow: columns `id` (string), `vector` (list of float32) and,"
    " if wanted, `text` (string).",
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/GivenVectorsBody"},
            "example": examples.PUT_VECTORS,
        },
        "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


def routes(vectors: VectorsService, settings: GatewaySettings) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["vectors"], route_class=StrictRoute)
    _add_search(router, vectors)
    _add_indexes(router, vectors, settings)
    _add_builds(router, vectors, settings)
    _add_given(router, vectors, settings)
    _add_reads(router, vectors)
    return router


def _add_search(router: APIRouter, vectors: VectorsService) -> None:
    either = OneSearchShape | ManySearchShape
    search_ = told("Search by meaning, by words, or both", either, examples.HITS, also=(409, 422))

    @router.post("/vectors/search", **with_json(search_, SearchBody, examples.SEARCH))
    async def search(ctx: Reader, request: Request) -> Response:
        """The nearest chunks of a `text` or of a `vector`, always as many as `k` where so many
        match the filter; ties are broken by key. `mode` says whether meaning counts (`vector`),
        words (`text`), or both (`hybrid`, which answers by words alone, and says `degraded`, while
        the model is away). A list of `queries` is answered by `results` in their order.
        `retrieval_id` names the answer for as long as it is kept: `GET /retrievals/{id}`."""
        body = await read_json(request, SearchBody, VECTORS_BYTES_MAX)
        found = await vectors.search(ctx, body.request())
        return reply(search_json(found, body.many), found.version)


def _add_indexes(router: APIRouter, vectors: VectorsService, settings: GatewaySettings) -> None:
    statuses = (202, 201, 200)
    create_ = told("Create an index", IndexShape, examples.BUILDING, statuses=statuses, also=(409,))
    delete_ = told("Delete an index", DeleteIndexResult, examples.DELETED_INDEX, also=(409,))

    @router.post(_ALL, **with_json(create_, CreateIndexBody, examples.CREATE_INDEX))
    async def create(ctx: Writer, request: Request) -> Response:
        """Over columns of a dataset that has a primary key: 202, and `GET .../{name}` tells how far
        it is; what is embedded can be searched meanwhile. Without a dataset: over vectors that are
        given. The same again is a 200, another definition under the name a 409."""
        body = await read_json(request, CreateIndexBody, settings.json_bytes_max)
        return _index_reply(await vectors.create_index(ctx, body.request()))

    @router.get(_ALL, **told("List indexes", IndexesShape, examples.INDEXES))
    async def list_indexes(
        ctx: Reader, dataset: OfDataset = "", limit: Limit = 100, cursor: Cursor = ""
    ) -> Response:
        """By name, a page at a time."""
        listed = await vectors.list_indexes(ctx, ListIndexesRequest(dataset, limit, cursor))
        return reply(indexes_shape(listed), listed.version)

    @router.get(_ONE, **told("An index", IndexShape, examples.INDEX))
    async def get(ctx: Reader, name: IndexName) -> Response:
        """Its versions, which of them answers, and how far a build is."""
        found = await vectors.get_index(ctx, IndexRequest(name))
        return reply(index_shape(found), found.version)

    @router.delete(_ONE, **delete_)
    async def delete(ctx: Writer, name: IndexName, number: OneVersion = 0) -> Response:
        """With all its vectors, or one version of it. The dataset stays as it is."""
        gone = await vectors.delete_index(ctx, DeleteIndexRequest(name, number))
        return reply(gone, gone.version)


def _add_builds(router: APIRouter, vectors: VectorsService, settings: GatewaySettings) -> None:
    build_ = told("Build an index", IndexShape, examples.BUILDING, statuses=(202, 200), also=(409,))
    cut_over_ = told("Make a version live", IndexShape, examples.INDEX, also=(409,))
    compare_ = told("Compare two versions", CompareReport, examples.COMPARED, also=(409,))

    @router.post(f"{_ONE}/build", **with_json(build_, BuildBody, examples.BUILD))
    async def build(ctx: Writer, name: IndexName, request: Request) -> Response:
        """Catch up with the dataset, or go on with a build that ended early: only what is new or
        changed is embedded. With `new_version` or a `profile` (another model, another backend) a
        version is built beside the live one, compared with it, and made live in one commit."""
        body = await read_json(request, BuildBody, settings.json_bytes_max, BuildBody())
        return _index_reply(await vectors.build(ctx, body.request(name)))

    @router.post(f"{_ONE}/cut-over", **with_json(cut_over_, CutOverBody, examples.CUT_OVER))
    async def cut_over(ctx: Writer, name: IndexName, request: Request) -> Response:
        """One commit; without a `number`, back to the version that was live before."""
        body = await read_json(request, CutOverBody, settings.json_bytes_max, CutOverBody())
        found = await vectors.cut_over(ctx, CutOverRequest(name, body.number))
        return reply(index_shape(found), found.version)

    @router.post(f"{_ONE}/compare", **with_json(compare_, CompareBody, examples.COMPARE))
    async def compare(ctx: Reader, name: IndexName, request: Request) -> Response:
        """The same queries to both: recall against comparing with every vector, latency, how much
        they agree, and how much of what is `relevant` each finds."""
        body = await read_json(request, CompareBody, settings.json_bytes_max, CompareBody())
        report = await vectors.compare(ctx, body.request(name))
        return reply(report, report.version)


def _add_given(router: APIRouter, vectors: VectorsService, settings: GatewaySettings) -> None:
    put_ = told("Put vectors", PutVectorsReport, examples.PUT_REPORT, also=(408, 409, 413, 415))
    delete_ = told("Delete vectors", PutVectorsReport, examples.DELETED_VECTORS, also=(409,))

    @router.post(_VECTORS, **with_body(put_, _GIVEN))
    async def put_given(ctx: Writer, name: IndexName, request: Request) -> Response:
        """Insert, or replace, by id: one commit, all of it or nothing. They are found at once. Only
        of an index over given vectors; any other one is a 409."""
        body = await read_vectors(request)
        report = await vectors.put_vectors(ctx, PutVectorsRequest(name, body))
        return reply(report, report.version)

    @router.delete(_VECTORS, **with_json(delete_, IdsBody, examples.IDS))
    async def delete_given(ctx: Writer, name: IndexName, request: Request) -> Response:
        """By ids in the body. Those that are not there are counted as missing."""
        ids = await read_json(request, IdsBody, settings.json_bytes_max)
        report = await vectors.delete_vectors(ctx, DeleteVectorsRequest(name, ids.root))
        return reply(report, report.version)


def _add_reads(router: APIRouter, vectors: VectorsService) -> None:
    @router.get(_VECTORS, **told("Vectors by key", VectorsShape, examples.VECTORS))
    async def get_many(
        ctx: Reader, name: IndexName, ids: Keys, number: VersionNumber = 0
    ) -> Response:
        """All chunks of each, with their vectors; for cosine they are normalised."""
        found = await vectors.get_vectors(ctx, GetVectorsRequest(name, tuple(ids), number))
        return reply(vectors_shape(found), found.version)

    @router.get(f"{_VECTORS}/{{key:path}}", **told("A vector", VectorsShape, examples.VECTORS))
    async def get_one(
        ctx: Reader, name: IndexName, key: VectorKey, number: VersionNumber = 0
    ) -> Response:
        """All chunks of a row, or a given vector; what is not there is a 404."""
        found = await vectors.get_vectors(ctx, GetVectorsRequest(name, (key,), number))
        return reply(_there(found, key), found.version)


def _index_reply(result: IndexResult) -> Response:
    """202 while it is built, 201 where the call made it, else 200."""
    status = 202 if result.building else 201 if result.created else 200
    return reply(index_shape(result), result.version, status)


def _there(found: GetVectorsResult, key: str) -> VectorsShape:
    if not found.vectors:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no vector of that key",
            key=key[:200],
            number=found.number,
            hint="a row without text has none; of a key of texts the key is a JSON array",
        )
    return vectors_shape(found)
