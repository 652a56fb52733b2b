"""Rows by key: read one, change some, look back, and the upkeep of what changes leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.rows import (
    ChangeRowsReport,
    ChangeRowsRequest,
    CompactReport,
    CompactRequest,
    DiffRequest,
    RestoreRowsRequest,
    RowChange,
    RowRequest,
    RowsService,
    SetKeyReport,
    SetKeyRequest,
    WidenReport,
)
from lakehouse.gateway import row_examples as examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import read_json
from lakehouse.gateway.openapi import told, with_body, with_json, with_listings
from lakehouse.gateway.params import (
    AS_OF,
    AsOfParam,
    Cursor,
    DryRun,
    ExpectedVersion,
    Flag,
    LongLimit,
    Name,
    Reason,
    parse_as_of,
)
from lakehouse.gateway.reading import Dialect
from lakehouse.gateway.replies import reply
from lakehouse.gateway.row_bodies import KeyBody, RestoreRowsBody, SchemaBody, read_change
from lakehouse.gateway.row_replies import diff_reply, row_reply, wanted
from lakehouse.gateway.row_shapes import DiffShape, RowShape
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute

_CHANGES: Final = "/ingest/datasets/{name}/rows"

RowKey = Annotated[
    str,
    Path(
        description="The row's key, percent-encoded: the bare value of a key of one column, or a"
        " JSON array of the values in the order of the key.",
        examples=["7"],
        max_length=4000,
    ),
]
Where = Annotated[
    str,
    Query(
        description="Instead of keys: a SQL predicate over the dataset's columns.",
        examples=["city = 'Graz' and phone is null"],
        max_length=100_000,
    ),
]
Mode = Annotated[
    RowChange,
    Query(
        description="upsert: whole rows by key; a column that a row lacks is null. patch: some"
        " fields of rows that are there. delete: by key, as DELETE does."
    ),
]
Full = Annotated[Flag, Query(description="All of it, whatever the thresholds say.")]


async def _asked(
    name: Name,
    where: Where = "",
    expected_version: ExpectedVersion = None,
    reason: Reason = "",
    dry_run: DryRun = False,
) -> ChangeRowsRequest:
    return ChangeRowsRequest(
        name,
        where=where,
        expected_version=expected_version,
        reason=reason,
        dry_run=dry_run,
    )


async def _compared(
    name: Name,
    old: Annotated[str, Query(alias="from", min_length=1, **AS_OF)],
    new: Annotated[str, Query(alias="to", **AS_OF)] = "",
    limit: LongLimit = 1000,
    cursor: Cursor = "",
) -> DiffRequest:
    return DiffRequest(name, parse_as_of(old), parse_as_of(new), limit, cursor)


Asked = Annotated[ChangeRowsRequest, Depends(_asked)]
Compared = Annotated[DiffRequest, Depends(_compared)]

_TEXT: Final[dict[str, Any]] = {"schema": {"type": "string"}}
_BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}


def _batch(example: object, required: bool) -> dict[str, Any]:
    return {
        "required": required,
        "description": "The batch, at most 32 MiB. With `where`: a JSON object of the fields to"
        " set (patch), or nothing (delete).",
        "content": {
            "application/json": {"schema": {}, "example": example},
            "application/x-ndjson": _TEXT,
            "text/csv": {**_TEXT, "example": "id,phone\n7,555\n"},
            "application/vnd.apache.arrow.stream": _BINARY,
            "application/vnd.apache.parquet": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }


def routes(rows: RowsService, settings: GatewaySettings) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["rows"], route_class=StrictRoute)
    _add_reads(router, rows)
    _add_changes(router, rows)
    _add_shape(router, rows, settings)
    _add_upkeep(router, rows, settings)
    return router


def _add_reads(router: APIRouter, rows: RowsService) -> None:
    one = told("One row by its key", RowShape, examples.ROW, also=(409,))
    one["responses"][304] = {"description": "Not Modified"}
    differ = with_listings(told("Compare two versions", DiffShape, examples.DIFF, also=(406, 409)))

    @router.get("/datasets/{name}/rows/{key:path}", **one)
    async def get(
        ctx: Reader, name: Name, key: RowKey, as_of: AsOfParam, request: Request
    ) -> Response:
        """As it is now, or as it was at a version, a time or a tag; beyond retention it is made
        from the journal, and `served_from` says so. The ETag changes when the row does:
        `If-None-Match` is answered by 304."""
        return row_reply(request, await rows.get(ctx, RowRequest(name, key, as_of)))

    @router.get("/datasets/{name}/diff", **differ)
    async def diff(ctx: Reader, asked: Compared, request: Request) -> Response:
        """By key: which rows came, went, or have other values, and which fields. NDJSON has a row
        a line, CSV a field a line; the cursor is then in the header Lakehouse-Next."""
        form = wanted(request)
        return diff_reply(await rows.diff(ctx, asked), form)


def _add_changes(router: APIRouter, rows: RowsService) -> None:
    errors = (408, 409, 413, 415, 422)
    change_ = told("Change rows", ChangeRowsReport, examples.CHANGED, also=errors)
    delete_ = told("Delete rows", ChangeRowsReport, examples.DELETED, also=errors)

    @router.post(_CHANGES, **with_body(change_, _batch(examples.UPSERT, required=True)))
    async def change(
        ctx: Writer,
        asked: Asked,
        reading: Dialect,
        request: Request,
        mode: Mode = RowChange.UPSERT,
    ) -> Response:
        """One batch, one commit: all of it or nothing, with its events in the journal. A patch is
        `{"key", "set", "expect"}`, one or many: where an expected value is another, it is a 409
        with the actual one. Rows that are already so change nothing."""
        wanted_ = await read_change(request, reading, replace(asked, change=mode))
        report = await rows.change(ctx, wanted_)
        return reply(report, report.version)

    @router.delete(_CHANGES, **with_body(delete_, _batch(examples.KEYS, required=False)))
    async def delete(ctx: Writer, asked: Asked, reading: Dialect, request: Request) -> Response:
        """By keys in the body, or by `where`. Keys that are not there are counted as missing."""
        gone = await read_change(request, reading, replace(asked, change=RowChange.DELETE))
        report = await rows.change(ctx, gone)
        return reply(report, report.version)


def _add_shape(router: APIRouter, rows: RowsService, settings: GatewaySettings) -> None:
    key_ = told("Declare the primary key", SetKeyReport, examples.KEY, also=(409,))
    widen_ = told("Add or widen columns", WidenReport, examples.WIDENED, also=(409,))

    @router.put("/ingest/datasets/{name}/key", **with_json(key_, KeyBody, examples.SET_KEY))
    async def set_key(ctx: Writer, name: Name, request: Request, reason: Reason = "") -> Response:
        """Of a dataset that has none, or to confirm the one it has. Rows with a null or repeated
        key are named and refused."""
        body = await read_json(request, KeyBody, settings.json_bytes_max)
        report = await rows.set_key(ctx, SetKeyRequest(name, body.columns, reason))
        return reply(report, report.version)

    @router.post("/ingest/datasets/{name}/schema", **with_json(widen_, SchemaBody, examples.WIDEN))
    async def widen(
        ctx: Writer, name: Name, request: Request, reason: Reason = "", dry_run: DryRun = False
    ) -> Response:
        """Added columns are null in rows that are there. A column may become `string`, an integer
        a `decimal` that holds it, a `date` a `timestamp`, a `decimal` one with more digits; a
        column of the key keeps its type. Nothing is rewritten."""
        body = await read_json(request, SchemaBody, settings.json_bytes_max)
        report = await rows.widen(ctx, body.request(name, reason, dry_run))
        return reply(report, report.version)


def _add_upkeep(router: APIRouter, rows: RowsService, settings: GatewaySettings) -> None:
    restore_ = told("Restore the rows", ChangeRowsReport, examples.RESTORED, also=(409,))
    compact_ = told("Compact a dataset", CompactReport, examples.COMPACTED, also=(409,))

    @router.post(
        "/ingest/datasets/{name}/restore-rows",
        **with_json(restore_, RestoreRowsBody, examples.RESTORE),
    )
    async def restore(
        ctx: Writer, name: Name, request: Request, reason: Reason = "", dry_run: DryRun = False
    ) -> Response:
        """Make the rows what they were at a version, a time or a tag, by a commit like any other:
        nothing is undone. A dropped dataset comes back by
        `POST /catalog/datasets/{name}/restore`."""
        body = await read_json(request, RestoreRowsBody, settings.json_bytes_max)
        asked = RestoreRowsRequest(name, body.point(), reason, dry_run)
        report = await rows.restore(ctx, asked)
        return reply(report, report.version)

    @router.post("/ingest/datasets/{name}/compact", **compact_)
    async def compact(
        ctx: Writer, name: Name, full: Full = False, dry_run: DryRun = False
    ) -> Response:
        """Fold row changes together, and small files, where it pays; with `full`, all changes
        into the rows. The rows are the same before and after, which is checked. Readers and
        writers go on meanwhile. A dry run gives the plan and what it is expected to gain."""
        report = await rows.compact(ctx, CompactRequest(name, full, dry_run))
        return reply(report, report.version)
