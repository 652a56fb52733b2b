"""Turns of conversations as bodies: one, a list, or a line each; and what is asked of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, AwareDatetime, Field, RootModel
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from lakehouse.contracts.ingest import SourceFormat
from lakehouse.contracts.memory import TURN_BYTES_MAX, TURNS_MAX, RecallRequest, Turn
from lakehouse.contracts.vectors import K_MAX
from lakehouse.errors import LakehouseError
from lakehouse.gateway.accepts import source_format
from lakehouse.gateway.bodies import Body, media_type, parse_body, read_limited, unsupported
from lakehouse.gateway.vector_bodies import Also, Asked, Short
from lakehouse.kit.clock import Clock
from lakehouse.kit.when import parse_when
from lakehouse.model.retrieval import RecordClass, SearchMode

_TAGS_MAX: Final = 100
_TAKEN: Final = (SourceFormat.AUTO, SourceFormat.JSON, SourceFormat.NDJSON)
# A body of more than this is read beside the event loop.
_SMALL_BYTES: Final = 64 * 1024


def _in_utc(when: datetime) -> datetime:
    try:
        return when.astimezone(UTC)
    except (OverflowError, ValueError):
        text = "the time is beyond what a calendar of four digits has"
        raise PydanticCustomError("value", "{text}", {"text": text}) from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
When = Annotated[
    str | None,
    Field(
        max_length=64,
        description="A duration back from now (`1h`, `7d`) or an RFC 3339 time.",
        examples=["7d"],
    ),
]
TagList = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...], Field(max_length=_TAGS_MAX)
]


class TurnBody(Body):
    """Something that somebody said: ``who``, ``when`` (``at``, RFC 3339), in which ``session``."""

    text: Annotated[str, Field(min_length=1, max_length=TURN_BYTES_MAX)]
    who: Short = ""
    session: Short = ""
    at: Moment | None = None
    tags: TagList = ()

    def turn(self) -> Turn:
        return Turn(self.text, self.who, self.session, self.at, self.tags)


class TurnsBody(
    RootModel[Annotated[tuple[TurnBody, ...], Field(min_length=1, max_length=TURNS_MAX)]]
):
    """Turns, in the order in which they were said."""


class RecallBody(Body):
    """What was said that has to do with ``text``.

    ``session``, ``who``, ``tags`` (a turn has all of them), ``since``, ``until`` narrow it down.
    ``also``: indexes over tables that are searched together with the turns.
    """

    text: Asked
    k: Annotated[int, Field(ge=1, le=K_MAX)] = 10
    mode: SearchMode = SearchMode.HYBRID
    session: Short = ""
    who: Short = ""
    tags: TagList = ()
    since: When = ""
    until: When = ""
    also: Also = ()
    record: RecordClass = RecordClass.BEST_EFFORT

    def request(self, memory: str, clock: Clock) -> RecallRequest:
        """Raises ``invalid`` for a time that is none."""
        begin = parse_when("since", self.since or "", clock)
        end = parse_when("until", self.until or "", clock)
        return RecallRequest(memory, **{**self.model_dump(), "since": begin, "until": end})


async def read_turns(request: Request, bytes_max: int) -> tuple[Turn, ...]:
    """The body's turns: a JSON object, a JSON list of them, or NDJSON, whatever its type says.

    Raises ``invalid``: no such JSON; with 413 too large; with 415 another media type.
    """
    stated = media_type(request)
    form = source_format(stated)
    if form not in _TAKEN:
        raise unsupported("this takes JSON or NDJSON", content_type=stated[:100])
    body = await read_limited(request, bytes_max)
    if len(body) < _SMALL_BYTES:
        return _turns(body)
    return await asyncio.to_thread(_turns, body)


def _turns(body: bytes) -> tuple[Turn, ...]:
    lines = _lines(body)
    try:
        given = parse_body(TurnsBody, b"[" + b",".join(lines) + b"]" if lines else body)
    except LakehouseError as error:
        unit = "line" if lines else "turn"
        told: dict[str, Any] = {"hint": f"each {unit} is an object with a text", **error.fields}
        raise LakehouseError(error.kind, error.message, **told) from None
    return tuple(one.turn() for one in given.root)


def _lines(body: bytes) -> list[bytes]:
    """The objects that stand one a line, or one over several lines; none where it is a list."""
    if body.lstrip()[:1] != b"{":
        return []
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return [line for line in body.split(b"\n") if line.strip()]
    return [body]
