"""Answers with citations: whole as JSON, or word by word as NDJSON or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from enum import StrEnum
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from lakehouse.contracts.rag import AnswerHeader, AnswerPart, AnswerStream
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.gateway.accepts import preferred
from lakehouse.gateway.answer_shapes import answer_shape, end_shape, header_shape
from lakehouse.gateway.replies import VERSION_HEADER, ChunkedReply, reply, while_connected
from lakehouse.gateway.vector_shapes import key_value


class AnswerForm(StrEnum):
    """How an answer comes."""

    WHOLE = "application/json"
    LINES = "application/x-ndjson"
    EVENTS = "text/event-stream"


_OFFERED: Final = {
    "application/json": AnswerForm.WHOLE,
    "application/x-ndjson": AnswerForm.LINES,
    "application/ndjson": AnswerForm.LINES,
    "application/jsonl": AnswerForm.LINES,
    "text/event-stream": AnswerForm.EVENTS,
}
_STREAMED: Final = {media: form for media, form in _OFFERED.items() if form is not AnswerForm.WHOLE}


def answer_form(request: Request, streamed: bool) -> AnswerForm:
    """What ``Accept`` asks for; lines where it is ``streamed`` and no kind of stream is preferred.

    Raises ``invalid`` with 406.
    """
    accept = request.headers.get("accept")
    form = preferred(accept, _OFFERED)
    if not streamed or form is not AnswerForm.WHOLE:
        return form
    return AnswerForm.EVENTS if "text/event-stream" in (accept or "") else AnswerForm.LINES


async def answered(work: Awaitable[AnswerStream]) -> AnswerStream:
    """The answer's beginning. Where no model answers, the error has what was retrieved in the form
    that an answer would have it in."""
    try:
        return await work
    except LakehouseError as error:
        raise _told(error) from error


def _told(error: LakehouseError) -> LakehouseError:
    context = error.fields.get("context")
    if not isinstance(context, list):
        return error
    pieces: list[FieldValue] = [_piece(one) for one in context]
    return LakehouseError(error.kind, error.message, **{**error.fields, "context": pieces})


def _piece(one: FieldValue) -> FieldValue:
    """A piece of context as a citation has it: the key's values, and the span as one."""
    if not isinstance(one, dict) or not {"key", "start", "end"} <= one.keys():
        return one
    rest = {name: value for name, value in one.items() if name not in ("key", "start", "end")}
    return {"key": key_value(str(one["key"])), "span": [one["start"], one["end"]], **rest}


async def answer_reply(request: Request, stream: AnswerStream, form: AnswerForm) -> Response:
    """The whole answer, or one that streams; a client that goes away stops the model."""
    if form is not AnswerForm.WHOLE:
        headers = {VERSION_HEADER: str(stream.header.version), "Cache-Control": "no-store"}
        return ChunkedReply(_Words(stream, form), form.value, headers)
    try:
        return await while_connected(request, _whole(stream))
    except LakehouseError as error:
        raise _told(error) from error
    finally:
        await _close(stream.parts)


async def _whole(stream: AnswerStream) -> Response:
    async for part in stream.parts:
        if part.end is not None:
            return reply(answer_shape(stream.header, part.end), stream.header.version)
    raise _cut(stream.header)


def _cut(header: AnswerHeader) -> LakehouseError:
    return LakehouseError(
        ErrorKind.UNAVAILABLE,
        "the model's answer ended before its end",
        retrieval_id=header.retrieval_id,
        model=header.model,
    )


class _Words:
    """What is known before the first word, the words, and the end, or an error in its place."""

    def __init__(self, stream: AnswerStream, form: AnswerForm) -> None:
        self._header = stream.header
        self._parts = stream.parts
        self._encode = _event if form is AnswerForm.EVENTS else _line
        self._begun = False
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return self._encode("header", header_shape(self._header))
        if self._ended:
            raise StopAsyncIteration
        try:
            return self._part(await anext(self._parts, None))
        except LakehouseError as error:
            return self._failed(_told(error))

    def _part(self, part: AnswerPart | None) -> bytes:
        if part is None:
            return self._failed(_cut(self._header))
        if part.end is None:
            return self._encode("text", part.text)
        self._ended = True
        return self._encode("end", end_shape(self._header, part.end))

    def _failed(self, error: LakehouseError) -> bytes:
        self._ended = True
        told = {"kind": error.kind.value, "message": error.message, **error.fields}
        return self._encode("error", told)

    async def aclose(self) -> None:
        """Nothing is awaited any more, and the model is stopped."""
        self._ended = True
        await _close(self._parts)


def _line(name: str, value: Any) -> bytes:
    return orjson.dumps({name: value}, option=orjson.OPT_APPEND_NEWLINE)


def _event(name: str, value: Any) -> bytes:
    """An event; JSON has no line break that would end its data."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps({name: value}))


async def _close(parts: AsyncIterator[AnswerPart]) -> None:
    close = getattr(parts, "aclose", None)
    if close is not None:
        await close()
