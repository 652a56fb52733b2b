"""Answers about rows and their past: pages in three formats, a row with its ETag, a feed."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi.responses import Response
from starlette.requests import Request

from lakehouse.contracts.journal import EventsResult, FeedStream, HistoryResult
from lakehouse.contracts.query import ResultFormat
from lakehouse.contracts.rows import DiffResult, FieldChange, RowResult
from lakehouse.errors import LakehouseError
from lakehouse.gateway.accepts import LISTINGS, RESULT_TYPES, result_format
from lakehouse.gateway.listings import ndjson
from lakehouse.gateway.replies import VERSION_HEADER, ChunkedReply, reply, stop
from lakehouse.gateway.row_shapes import (
    EventShape,
    diff_shape,
    difference_shape,
    event_shape,
    events_shape,
    revision_shape,
    row_history_shape,
    row_shape,
)
from lakehouse.model.events import JournalEvent

_NEXT: Final = "Lakehouse-Next"
_EVENT_COLUMNS: Final = tuple(EventShape.__dataclass_fields__)
_FIELD_COLUMNS: Final = ("field", "old", "new")
_REVISION_COLUMNS: Final = (
    "version",
    "at",
    "kind",
    "operation",
    "actor",
    "source",
    "workspace",
    "reason",
    "request_id",
)


@dataclass(frozen=True, slots=True)
class _Page:
    """What there is to say of a page beside its records, and the records' tables."""

    version: int
    next: str
    shape: Any
    lines: Sequence[Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def wanted(request: Request) -> ResultFormat:
    """The format of a list that is asked for. Raises ``invalid`` with 406."""
    return result_format(request.headers.get("accept"), LISTINGS)


def row_reply(request: Request, found: RowResult) -> Response:
    """The row, or 304 where the caller has it: the ETag is that of its values, not of a version."""
    digest = hashlib.sha256(f"{found.key_json}\n{found.row_json}".encode()).hexdigest()
    etag = f'W/"{digest[:32]}"'
    held = request.headers.get("if-none-match", "")
    if held.strip() == "*" or etag.removeprefix("W/") in held:
        headers = {VERSION_HEADER: str(found.version), "ETag": etag}
        return Response(None, HTTPStatus.NOT_MODIFIED.value, headers)
    answer = reply(row_shape(found), found.version)
    answer.headers["ETag"] = etag
    return answer


def events_reply(result: EventsResult, form: ResultFormat) -> Response:
    if form is ResultFormat.JSON:
        return reply(events_shape(result), result.version)
    shapes = [event_shape(event) for event in result.events]
    rows = [_event_cells(event) for event in result.events] if form is ResultFormat.CSV else []
    page = _Page(result.version, result.cursor, None, shapes, _EVENT_COLUMNS, rows)
    return _listed(page, form)


def diff_reply(result: DiffResult, form: ResultFormat) -> Response:
    if form is ResultFormat.JSON:
        return reply(diff_shape(result), result.new_version)
    shapes = [difference_shape(one) for one in result.rows]
    rows = [
        (one.key_json, one.change, *cells) for one in result.rows for cells in _cells(one.fields)
    ]
    columns = ("key", "change", *_FIELD_COLUMNS)
    return _listed(_Page(result.new_version, result.cursor, None, shapes, columns, rows), form)


def history_reply(result: HistoryResult, form: ResultFormat) -> Response:
    if form is ResultFormat.JSON:
        return reply(row_history_shape(result), result.version)
    shapes = [revision_shape(one) for one in result.revisions]
    rows = [
        (*(_plain(getattr(one, name)) for name in _REVISION_COLUMNS), *cells)
        for one in result.revisions
        for cells in _cells(one.fields)
    ]
    columns = (*_REVISION_COLUMNS, *_FIELD_COLUMNS)
    return _listed(_Page(result.version, result.cursor, None, shapes, columns, rows), form)


def _listed(page: _Page, form: ResultFormat) -> Response:
    headers = {VERSION_HEADER: str(page.version)}
    if page.next:
        headers[_NEXT] = page.next
    body = ndjson(page.lines) if form is ResultFormat.NDJSON else _csv(page.columns, page.rows)
    return Response(body, headers=headers, media_type=RESULT_TYPES[form])


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _cells(fields: tuple[FieldChange, ...]) -> list[tuple[object, ...]]:
    """A line a field, values as JSON; one line where there is none."""
    return [(one.field, one.old_json, one.new_json) for one in fields] or [("", None, None)]


def _event_cells(event: JournalEvent) -> tuple[object, ...]:
    named = {"old": event.old_json, "new": event.new_json}
    return tuple(
        named[name] if name in named else _plain(getattr(event, name)) for name in _EVENT_COLUMNS
    )


def _plain(value: Any) -> object:
    """As in JSON, but texts without their quotes."""
    text = orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()
    return orjson.loads(text) if text.startswith('"') else text if value is not None else ""


def feed_reply(stream: FeedStream, heartbeat_seconds: float | None) -> Response:
    """A line an event as it comes; an ``error`` line where it fails. Ends with its client."""
    lines = _Feed(stream, heartbeat_seconds)
    return ChunkedReply(lines, RESULT_TYPES[ResultFormat.NDJSON], {}, at_once=True)


class _Feed:
    """The lines of a feed; with a heartbeat, an empty line whenever nothing came for so long."""

    def __init__(self, stream: FeedStream, heartbeat_seconds: float | None) -> None:
        self._groups = stream.groups
        self._heartbeat = heartbeat_seconds
        self._coming: asyncio.Future[bytes] | None = None
        self._failed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._failed:
            raise StopAsyncIteration
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next())
        # The event that is awaited goes on being awaited through the empty lines.
        done, _ = await asyncio.wait((self._coming,), timeout=self._heartbeat)
        if not done:
            return b"\n"
        coming, self._coming = self._coming, None
        line = coming.result()
        if not line:
            raise StopAsyncIteration
        return line

    async def _next(self) -> bytes:
        """The lines of the next commit; b"" at the end."""
        try:
            async for group in self._groups:
                if group:
                    return ndjson([event_shape(event) for event in group])
        except LakehouseError as error:
            self._failed = True
            told = {"kind": error.kind.value, "message": error.message, **error.fields}
            return orjson.dumps({"error": told}, option=orjson.OPT_APPEND_NEWLINE)
        return b""

    async def aclose(self) -> None:
        """Nothing is awaited any more, and whoever makes the events is told."""
        self._failed = True
        if self._coming is not None:
            await stop(self._coming)
        close = getattr(self._groups, "aclose", None)
        if close is not None:
            await close()
