"""Bodies of requests that change rows: a batch of them, a key, columns, a point to go back to."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

from pydantic import Field
from starlette.requests import Request

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.ingest import ColumnOverride, IngestOptions
from lakehouse.contracts.rows import CHANGE_BYTES_MAX, ChangeRowsRequest, RowChange, WidenRequest
from lakehouse.contracts.tags import SetTagRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.bodies import Body, Point, Text
from lakehouse.gateway.params import point
from lakehouse.gateway.reading import as_sent
from lakehouse.gateway.uploads import open_upload

_COLUMNS_MAX: Final = 10_000

Short = Annotated[str, Field(max_length=1000)]


class KeyBody(Body):
    columns: Annotated[tuple[Short, ...], Field(min_length=1, max_length=_COLUMNS_MAX)]


class TypedColumn(Body):
    name: Short
    type: Short

    def column(self) -> ColumnOverride:
        return ColumnOverride(self.name, self.type)


class SchemaBody(Body):
    """Columns to ``add``, which are null in rows that are there, and columns to ``widen``."""

    add: Annotated[tuple[TypedColumn, ...], Field(max_length=_COLUMNS_MAX)] = ()
    widen: Annotated[tuple[TypedColumn, ...], Field(max_length=_COLUMNS_MAX)] = ()

    def request(self, dataset: str, reason: str, dry_run: bool) -> WidenRequest:
        """Raises ``invalid`` where nothing is asked for."""
        if not self.add and not self.widen:
            raise LakehouseError(
                ErrorKind.INVALID,
                "name columns to add or to widen",
                hint='for example {"add": [{"name": "email", "type": "string"}]}',
            )
        add = tuple(one.column() for one in self.add)
        widen = tuple(one.column() for one in self.widen)
        return WidenRequest(dataset, add, widen, reason, dry_run)


class RestoreRowsBody(Body):
    """``as_of``: a version of the store, a time, or a tag (`tag:march`)."""

    as_of: Point

    def point(self) -> AsOf:
        return point(self.as_of)


class TagBody(Body):
    """What to tag: ``as_of``, absent for now, of one ``dataset`` or of the whole store."""

    as_of: Point | None = None
    dataset: Short = ""
    note: Text = ""

    def request(self, tag: str) -> SetTagRequest:
        return SetTagRequest(tag, self.dataset, point(self.as_of), self.note)


async def read_change(
    request: Request, reading: IngestOptions, asked: ChangeRowsRequest
) -> ChangeRowsRequest:
    """``asked`` with the body of the request: rows or keys, or the fields to set with ``where``.

    Raises ``invalid``: no body, or one that is not wanted; with 413 beyond ``CHANGE_BYTES_MAX``.
    """
    body, options = await _read(request, reading)
    if asked.where and asked.change is RowChange.UPSERT:
        raise LakehouseError(
            ErrorKind.INVALID,
            "an upsert names its rows by their keys",
            hint="mode=patch sets fields of the rows that `where` selects",
        )
    if asked.where and asked.change is RowChange.DELETE:
        if body:
            raise LakehouseError(
                ErrorKind.INVALID, "either keys in the body or `where` say what to delete"
            )
        return _with(asked, b"", IngestOptions(), "")
    if not body:
        raise LakehouseError(ErrorKind.INVALID, "the body is empty", hint=_WANTED[asked.change])
    if asked.where:
        return _with(asked, b"", IngestOptions(), _utf8(body))
    return _with(asked, body, options, "")


_WANTED: Final = {
    RowChange.UPSERT: 'send rows, for example [{"id": 7, "phone": "555"}]',
    RowChange.PATCH: 'send [{"key": 7, "set": {"phone": "555"}, "expect": {"phone": "444"}}], or'
    " with `where` the fields to set",
    RowChange.DELETE: "send keys, for example [7, 8], or select rows with `where`",
}


async def _read(request: Request, reading: IngestOptions) -> tuple[bytes, IngestOptions]:
    try:
        upload = await open_upload(request, CHANGE_BYTES_MAX)
        body = b"".join([chunk async for chunk in upload.chunks])
    except LakehouseError as error:
        if error.http_status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        hint = "ingest a file of this size: POST /ingest/datasets/{name}?mode=upsert"
        raise LakehouseError(
            error.kind, "the batch is too large", **{**error.fields, "hint": hint}
        ) from None
    return body, as_sent(reading, upload)


def _with(
    asked: ChangeRowsRequest, body: bytes, options: IngestOptions, set_json: str
) -> ChangeRowsRequest:
    return ChangeRowsRequest(
        asked.dataset,
        asked.change,
        body,
        options,
        asked.where,
        set_json,
        asked.expected_version,
        asked.reason,
        asked.dry_run,
    )


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise LakehouseError(ErrorKind.INVALID, "the fields to set are not UTF-8") from None
