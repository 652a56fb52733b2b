"""Memory: turns of conversations, remembered, recalled, caught up with."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.memory import (
    CatchUpRequest,
    MemoriesRequest,
    MemoryService,
    RememberReport,
    RememberRequest,
)
from lakehouse.gateway import retrieval_examples as examples
from lakehouse.gateway.answer_shapes import (
    CatchUpShape,
    MemoriesShape,
    RecallShape,
    catch_up_shape,
    memories_shape,
    recall_shape,
)
from lakehouse.gateway.auth import Reader, Writer
from lakehouse.gateway.bodies import read_json
from lakehouse.gateway.memory_bodies import RecallBody, read_turns
from lakehouse.gateway.openapi import told, with_body, with_json
from lakehouse.gateway.params import Cursor, Limit, Since
from lakehouse.gateway.replies import made, reply
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute
from lakehouse.kit.clock import Clock
from lakehouse.kit.when import parse_when

MemoryName = Annotated[
    str, Path(description="A memory's name.", examples=["support"], max_length=1000)
]
ProfileOfNew = Annotated[
    str, Query(description="Of the index, where the call makes the memory.", max_length=1000)
]
_TURNS: Final[dict[str, Any]] = {
    "required": True,
    "description": "A turn, a list of turns, or a turn a line; at most 10,000.",
    "content": {
        "application/x-ndjson": {"schema": {"type": "string"}, "example": examples.TURN_LINES},
        "application/json": {
            "schema": {
                "anyOf": [
                    {"$ref": "#/components/schemas/TurnsBody"},
                    {"$ref": "#/components/schemas/TurnBody"},
                ]
            },
            "example": examples.TURNS,
        },
    },
}


async def _catching_up(
    name: MemoryName,
    session: Annotated[str, Query(description="Only of this one.", max_length=1000)] = "",
    who: Annotated[str, Query(description="Only by this one.", max_length=1000)] = "",
    tag: Annotated[
        list[str],
        Query(description="Only turns with it; repeated: with all of them.", max_length=100),
    ] = [],  # noqa: B006 - it is read only
    limit: Limit = 100,
    cursor: Cursor = "",
) -> CatchUpRequest:
    return CatchUpRequest(name, None, session, who, tuple(tag), limit, cursor)


CatchingUp = Annotated[CatchUpRequest, Depends(_catching_up)]


def routes(memory: MemoryService, settings: GatewaySettings, clock: Clock) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["memory"], route_class=StrictRoute)
    statuses = (200, 201)
    remember_ = told(
        "Remember turns", RememberReport, examples.REMEMBERED, statuses=statuses, also=(409,)
    )
    recall_ = told("Recall turns", RecallShape, examples.RECALLED, also=(409,))

    @router.get("/memory", **told("List memories", MemoriesShape, examples.MEMORIES))
    async def list_memories(ctx: Reader, limit: Limit = 100, cursor: Cursor = "") -> Response:
        """By name, a page at a time."""
        listed = await memory.memories(ctx, MemoriesRequest(limit, cursor))
        return reply(memories_shape(listed), listed.version)

    @router.post("/memory/{name}/turns", **with_body(remember_, _TURNS, (408, 413, 415)))
    async def remember(
        ctx: Writer, name: MemoryName, request: Request, profile: ProfileOfNew = "conversation"
    ) -> Response:
        """In one commit. The first call makes the memory (201): a dataset of turns, and an index of
        the same name. A turn that is there already, or comes twice, is one: a duplicate."""
        turns = await read_turns(request, settings.json_bytes_max)
        report = await memory.remember(ctx, RememberRequest(name, turns, profile))
        return made(report, report.version, report.created)

    @router.post("/memory/{name}/recall", **with_json(recall_, RecallBody, examples.RECALL))
    async def recall(ctx: Reader, name: MemoryName, request: Request) -> Response:
        """What was said that has to do with the text, best first, together with rows of tables
        where `also` names indexes over them."""
        body = await read_json(request, RecallBody, settings.json_bytes_max)
        found = await memory.recall(ctx, body.request(name, clock))
        return reply(recall_shape(found), found.version)

    @router.get("/memory/{name}/catch-up", **told("Catch up", CatchUpShape, examples.CAUGHT_UP))
    async def catch_up(ctx: Reader, asked: CatchingUp, since: Since = "") -> Response:
        """Turns in the order in which they were remembered. The `cursor` of the answer goes on
        behind the last of them, also where nothing more was there: keep it for the next time."""
        asked = replace(asked, since=parse_when("since", since, clock))
        found = await memory.catch_up(ctx, asked)
        return reply(catch_up_shape(found), found.version)

    return router
