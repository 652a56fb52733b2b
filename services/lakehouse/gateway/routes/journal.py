"""The journal: what happened to rows, one row's past, and a feed of what happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.journal import EventsRequest, FeedRequest, HistoryRequest, JournalService
from lakehouse.gateway import row_examples as examples
from lakehouse.gateway.auth import Reader
from lakehouse.gateway.bodies import INT64_MAX
from lakehouse.gateway.openapi import described, told, with_listings
from lakehouse.gateway.params import AsOfParam, Cursor, Flag, Limit, LongLimit, Since, Until
from lakehouse.gateway.routes.rows import RowKey
from lakehouse.gateway.row_replies import events_reply, feed_reply, history_reply, wanted
from lakehouse.gateway.row_shapes import EventsShape, RowHistoryShape
from lakehouse.gateway.strict import StrictRoute
from lakehouse.kit.clock import Clock
from lakehouse.kit.when import parse_when
from lakehouse.model.events import EventKind


async def _filtered(
    dataset: Annotated[str, Query(description="Only of this one.", max_length=1000)] = "",
    entity: Annotated[
        str,
        Query(
            description="Only of the row with this key, written as in a path; needs `dataset`.",
            max_length=4000,
        ),
    ] = "",
    field: Annotated[str, Query(description="Only of this column.", max_length=1000)] = "",
    kind: Annotated[EventKind | None, Query(description="Only of this kind.")] = None,
    actor: Annotated[str, Query(description="Only by this one.", max_length=1000)] = "",
    workspace: Annotated[str, Query(description="Only from this one.", max_length=1000)] = "",
    request_id: Annotated[str, Query(description="Only by this call.", max_length=128)] = "",
    after_version: Annotated[
        int, Query(ge=0, le=INT64_MAX, description="Only later than this version.")
    ] = 0,
    before_version: Annotated[
        int, Query(ge=0, le=INT64_MAX, description="Only up to this version; 0: no bound.")
    ] = 0,
    limit: LongLimit = 1000,
    cursor: Cursor = "",
) -> EventsRequest:
    return EventsRequest(
        dataset=dataset,
        entity_json=entity,
        field=field,
        kind="" if kind is None else kind.value,
        actor=actor,
        workspace=workspace,
        request_id=request_id,
        after_version=after_version,
        before_version=before_version,
        limit=limit,
        cursor=cursor,
    )


async def _history(
    dataset: Annotated[
        str, Path(description="A dataset's name.", examples=["people"], max_length=1000)
    ],
    key: RowKey,
    as_of: AsOfParam,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> HistoryRequest:
    return HistoryRequest(dataset, key, as_of, limit, cursor)


async def _feed(
    dataset: Annotated[
        str, Query(description="Of which one.", examples=["people"], max_length=1000)
    ],
    after: Annotated[
        int, Query(ge=0, le=INT64_MAX, description="Only events later than this version.")
    ] = 0,
    follow: Annotated[Flag, Query(description="Then wait for more.")] = False,
) -> FeedRequest:
    return FeedRequest(dataset, after, follow)


Filtered = Annotated[EventsRequest, Depends(_filtered)]
History = Annotated[HistoryRequest, Depends(_history)]
Feed = Annotated[FeedRequest, Depends(_feed)]
Heartbeat = Annotated[
    float | None,
    Query(ge=1, le=3600, description="An empty line whenever nothing came for so many seconds."),
]
_LINES = {
    "application/x-ndjson": {"schema": {"type": "string"}, "example": examples.FEED},
}


def routes(journal: JournalService, clock: Clock) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["journal"], route_class=StrictRoute)
    _add_events(router, journal, clock)
    _add_history(router, journal)
    _add_feed(router, journal)
    return router


def _add_events(router: APIRouter, journal: JournalService, clock: Clock) -> None:
    doc = with_listings(told("What happened to rows", EventsShape, examples.EVENTS, also=(406,)))

    @router.get("/journal/events", **doc)
    async def events(
        ctx: Reader, asked: Filtered, request: Request, since: Since = "", until: Until = ""
    ) -> Response:
        """Newest first; the filters are joined by and. An update is an event a changed field, a
        delete one a field that had a value; rows that came together are one event. NDJSON and CSV
        have the events alone: the cursor is then in the header Lakehouse-Next."""
        form, begin = wanted(request), parse_when("since", since, clock)
        asked = replace(asked, since=begin, until=parse_when("until", until, clock))
        return events_reply(await journal.events(ctx, asked), form)


def _add_history(router: APIRouter, journal: JournalService) -> None:
    doc = with_listings(told("A row's past", RowHistoryShape, examples.HISTORY, also=(406, 409)))

    @router.get("/journal/rows/{dataset}/{key:path}", **doc)
    async def history(ctx: Reader, asked: History, request: Request) -> Response:
        """Who changed which field of the row, from what, to what, when and why, newest first, and
        the row as it was at `as_of`. It answers for as long as the dataset is there, whatever was
        compacted or is beyond retention since. NDJSON has a change a line, CSV a field a line."""
        form = wanted(request)
        return history_reply(await journal.history(ctx, asked), form)


def _add_feed(router: APIRouter, journal: JournalService) -> None:
    @router.get("/journal/feed", **described("Follow what happens", {200: _LINES}))
    async def feed(ctx: Reader, asked: Feed, heartbeat: Heartbeat = None) -> Response:
        """A line an event, oldest first, the events of one version together. What fails midway
        ends it with a line `error`. Start again `after` the version before the last one that came:
        with `follow` it ends only when the client goes, or the server."""
        return feed_reply(await journal.feed(ctx, asked), heartbeat)
