"""Retrievals: what was asked and answered, shown again, explained, and kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.retrievals import (
    Explanation,
    ListRetrievalsRequest,
    PinRequest,
    PinResult,
    RetrievalRequest,
    RetrievalsService,
)
from lakehouse.gateway import retrieval_examples as examples
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import read_json
from lakehouse.gateway.openapi import told, with_json, with_page
from lakehouse.gateway.pages.choice import PageFormat, wants_page
from lakehouse.gateway.pages.explanation import explanation_page
from lakehouse.gateway.params import Cursor, Limit, Since, Until
from lakehouse.gateway.replies import reply
from lakehouse.gateway.retrieval_bodies import PinBody
from lakehouse.gateway.retrieval_shapes import (
    ExplanationShape,
    ReplayShape,
    RetrievalShape,
    RetrievalsShape,
    explanation_shape,
    replay_shape,
    retrieval_shape,
    retrievals_shape,
)
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute
from lakehouse.kit.clock import Clock
from lakehouse.kit.when import parse_when
from lakehouse.model.retrieval import SearchMode

_ONE = "/retrievals/{id}"

RetrievalId = Annotated[
    str,
    Path(
        description="The `retrieval_id` of an answer.",
        examples=["01K5ZC1GQ0XW5T1T9Q0R8M7A2B"],
        max_length=1000,
    ),
]


async def _filtered(
    index: Annotated[str, Query(description="Only of this one.", max_length=1000)] = "",
    actor: Annotated[str, Query(description="Only by this one.", max_length=1000)] = "",
    mode: Annotated[SearchMode | None, Query(description="Only in this mode.")] = None,
    purpose: Annotated[
        str, Query(description="Only for this: `search`, `sql`, `rag`, `recall`.", max_length=1000)
    ] = "",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> ListRetrievalsRequest:
    wanted = "" if mode is None else mode.value
    return ListRetrievalsRequest(index, actor, wanted, purpose, limit=limit, cursor=cursor)


Filtered = Annotated[ListRetrievalsRequest, Depends(_filtered)]


def routes(retrievals: RetrievalsService, settings: GatewaySettings, clock: Clock) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["retrievals"], route_class=StrictRoute)
    _add_records(router, retrievals, clock)
    _add_readings(router, retrievals)
    _add_pins(router, retrievals, settings)
    return router


def _add_records(router: APIRouter, retrievals: RetrievalsService, clock: Clock) -> None:
    @router.get("/retrievals", **told("List retrievals", RetrievalsShape, examples.RETRIEVALS))
    async def list_retrievals(
        ctx: Reader, asked: Filtered, since: Since = "", until: Until = ""
    ) -> Response:
        """Newest first; the filters are joined by and. Each with the best of its hits; all of them
        are under its id."""
        begin, end = parse_when("since", since, clock), parse_when("until", until, clock)
        asked = replace(asked, since=begin, until=end)
        listed = await retrievals.list(ctx, asked)
        return reply(retrievals_shape(listed), listed.version)

    @router.get(_ONE, **told("A retrieval", RetrievalShape, examples.RETRIEVAL))
    async def get(ctx: Reader, id: RetrievalId) -> Response:  # noqa: A002 - as the contract has it
        """What was asked, of which versions of which indexes, and the ranked rows with their scores
        and the digests of their texts, as they were answered."""
        found = await retrievals.get(ctx, RetrievalRequest(id))
        return reply(retrieval_shape(found), found.version)


def _add_readings(router: APIRouter, retrievals: RetrievalsService) -> None:
    explain_ = with_page(told("Why these hits", ExplanationShape, examples.EXPLANATION))

    @router.post(f"{_ONE}/replay", **told("Replay a retrieval", ReplayShape, examples.REPLAY))
    async def replay(ctx: Reader, id: RetrievalId) -> Response:  # noqa: A002
        """The same ranked rows and scores, with the texts they had then, after whatever was built,
        compacted or changed since; neither a model nor an index is asked. A text that cannot be
        read any more is null and `gone`; `row` says what became of the row since."""
        report = await retrievals.replay(ctx, RetrievalRequest(id))
        return reply(replay_shape(report), report.version)

    @router.get(f"{_ONE}/explain", **explain_)
    async def explain(
        ctx: Reader,
        id: RetrievalId,  # noqa: A002
        request: Request,
        format: PageFormat = None,  # noqa: A002
    ) -> Response:
        """What was done, step by step, and for each hit which stage brought it up, with its rank
        and score there. A browser gets a page."""
        page = wants_page(request, format)
        return _explained(await retrievals.explain(ctx, RetrievalRequest(id)), page)


def _add_pins(router: APIRouter, retrievals: RetrievalsService, settings: GatewaySettings) -> None:
    pin_ = with_json(
        told("Pin a retrieval", PinResult, examples.PINNED, also=(409,)), PinBody, examples.PIN
    )
    unpin_ = told("Let a retrieval go", PinResult, examples.UNPINNED)

    @router.post(f"{_ONE}/pin", **pin_)
    async def pin(ctx: Writer, id: RetrievalId, request: Request) -> Response:  # noqa: A002
        """The rows that it cites stay readable for as long as it is pinned, beyond the retention of
        time travel, by tags on what was read. Rows that are gone already are a 409."""
        body = await read_json(request, PinBody, settings.json_bytes_max, PinBody())
        done = await retrievals.pin(ctx, body.request(id))
        return reply(done, done.version)

    @router.delete(f"{_ONE}/pin", **unpin_)
    async def unpin(ctx: Writer, id: RetrievalId) -> Response:  # noqa: A002
        """Its tags are removed: what they alone kept is collected as all else is."""
        done = await retrievals.pin(ctx, PinRequest(id, remove=True))
        return reply(done, done.version)


def _explained(found: Explanation, page: bool) -> Response:
    if page:
        return explanation_page(found)
    answer = reply(explanation_shape(found), found.version)
    answer.headers["Vary"] = "Accept"
    return answer
