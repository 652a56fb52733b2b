"""SQL: run it, see what runs, cancel it."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import Field

from lakehouse.contracts.catalog import Pin
from lakehouse.contracts.query import (
    CancelRequest,
    CancelResult,
    Engine,
    QueryLimits,
    QueryRequest,
    QueryService,
    QueryStream,
    ResultFormat,
    RunningRequest,
    RunningResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway import examples
from lakehouse.gateway.accepts import RESULT_TYPES, result_format
from lakehouse.gateway.auth import Reader
from lakehouse.gateway.bodies import (
    INT64_MAX,
    Body,
    Point,
    media_type,
    parse_body,
    read_limited,
    unsupported,
)
from lakehouse.gateway.openapi import result_content, told, with_body
from lakehouse.gateway.params import parse_as_of, point
from lakehouse.gateway.replies import VERSION_HEADER, ChunkedReply, reply, while_connected
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute

_SQL_TYPES: Final = frozenset({"text/plain", "application/sql", "text/sql"})
_JSON_TYPES: Final = frozenset({"", "application/json", "application/x-www-form-urlencoded"})
_PARAMS_MAX: Final = 10_000

Whole = Annotated[int, Field(gt=0, le=INT64_MAX)]


class LimitsBody(Body):
    """A request may only lower the server's own limits."""

    timeout_seconds: Annotated[float, Field(gt=0, le=86400)] | None = None
    rows_max: Whole | None = None
    bytes_max: Whole | None = None
    memory_bytes_max: Whole | None = None


class SqlBody(Body):
    """``as_of``: a version of the store, a time, a tag (`tag:march`), or an object of dataset to
    one of these."""

    sql: str
    params: (
        Annotated[list[Any], Field(max_length=_PARAMS_MAX)]
        | Annotated[dict[str, Any], Field(max_length=_PARAMS_MAX)]
        | None
    ) = None
    engine: Engine = Engine.AUTO
    as_of: Point | dict[str, Point] | None = None
    limits: LimitsBody = LimitsBody()

    def request(self, wanted: ResultFormat, min_version: int | None) -> QueryRequest:
        """The contract's value. Raises ``invalid`` for a time or parameter that is none."""
        pinned = self.as_of if isinstance(self.as_of, dict) else {}
        at = None if isinstance(self.as_of, dict) else self.as_of
        as_of = point(at)
        limits = self.limits
        return QueryRequest(
            sql=self.sql,
            params_json=_params(self.params),
            engine=self.engine,
            as_of=dataclasses.replace(as_of, min_version=min_version),
            pins=tuple(Pin(name, point(one)) for name, one in pinned.items()),
            limits=QueryLimits(
                limits.timeout_seconds,
                limits.rows_max,
                limits.bytes_max,
                limits.memory_bytes_max,
            ),
            format=wanted,
        )


QueryId = Annotated[
    str, Path(description="As `GET /query` lists it.", examples=["q1"], max_length=1000)
]

_SQL_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/SqlBody"},
            "example": examples.SQL,
        },
        "application/sql": {"schema": {"type": "string"}, "example": "select * from people"},
        "text/plain": {"schema": {"type": "string"}, "example": "select * from people"},
    },
}
_SQL_DOC: Final[dict[str, Any]] = {
    "summary": "Run a SELECT",
    "responses": {
        200: {
            "description": "The rows, in the format Accept asks for; streamed.",
            "content": result_content(examples.RESULT),
        }
    },
    "response_class": Response,
    "openapi_extra": {
        "x-errors": [406, 408, 413, 415, 422],
        "parameters": [
            {
                "name": "Lakehouse-Min-Version",
                "in": "header",
                "required": False,
                "description": "Read at least this version.",
                "schema": {"type": "integer", "minimum": 0, "maximum": INT64_MAX},
            }
        ],
    },
}


def routes(query: QueryService, settings: GatewaySettings) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["query"], route_class=StrictRoute)

    @router.post("/query/sql", **with_body(_SQL_DOC, _SQL_BODY))
    async def sql(ctx: Reader, request: Request) -> Response:
        """One SELECT over one pinned version of the store. The answer names the versions it read;
        an error in mid-stream breaks the body (NDJSON: ends with a line `error`)."""
        wanted = result_format(request.headers.get("accept"))
        body = await _read_sql(request, settings.json_bytes_max)
        asked = body.request(wanted, _min_version(request))
        stream = await while_connected(request, query.run(ctx, asked))
        return _streamed(stream)

    @router.get("/query", **told("The running queries", RunningResult, examples.RUNNING))
    async def running(ctx: Reader) -> Response:
        """The caller's own; an operator sees all."""
        return reply(await query.running(ctx, RunningRequest()))

    @router.delete("/query/{id}", **told("Cancel a query", CancelResult, examples.CANCELLED))
    async def cancel(ctx: Reader, id: QueryId) -> Response:  # noqa: A002 - as on the wire
        """Its own client sees a broken body; a query that has ended is a 404."""
        return reply(await query.cancel(ctx, CancelRequest(id)))

    return router


def _streamed(stream: QueryStream) -> Response:
    header = stream.header
    headers = {VERSION_HEADER: str(header.version), "Lakehouse-Query-Id": header.query_id}
    if header.served_from:
        headers["Lakehouse-Served-From"] = ", ".join(header.served_from)
    return ChunkedReply(stream.chunks, RESULT_TYPES[header.format], headers)


async def _read_sql(request: Request, bytes_max: int) -> SqlBody:
    stated = media_type(request)
    body = await read_limited(request, bytes_max)
    if stated in _SQL_TYPES:
        return SqlBody(sql=_text(body))
    if stated not in _JSON_TYPES:
        raise unsupported("this takes a JSON body or SQL text", content_type=stated[:100])
    return parse_body(SqlBody, body)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise LakehouseError(ErrorKind.INVALID, "the SQL text is not UTF-8") from None


def _min_version(request: Request) -> int | None:
    stated = request.headers.get("lakehouse-min-version")
    return None if stated is None else _version(stated)


def _version(stated: str) -> int:
    found = parse_as_of(stated)
    if found.version is None:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the header Lakehouse-Min-Version must be a version of the store",
            header="Lakehouse-Min-Version",
        )
    return found.version


def _params(params: list[Any] | dict[str, Any] | None) -> str:
    if not params:
        return ""
    try:
        return json.dumps(params, allow_nan=False)
    except ValueError:
        raise LakehouseError(ErrorKind.INVALID, "params: NaN and infinity are no JSON") from None
