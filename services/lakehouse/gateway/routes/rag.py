"""Answers from retrieved text, with citations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lakehouse.contracts.rag import RagService
from lakehouse.gateway import retrieval_examples as examples
from lakehouse.gateway.answer_replies import answer_form, answer_reply, answered
from lakehouse.gateway.answer_shapes import AnswerShape
from lakehouse.gateway.auth import Reader
from lakehouse.gateway.bodies import read_json
from lakehouse.gateway.openapi import told, with_json
from lakehouse.gateway.replies import while_connected
from lakehouse.gateway.retrieval_bodies import RagBody
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.strict import StrictRoute


def routes(rag: RagService, settings: GatewaySettings) -> APIRouter:
    """The route of this noun over the contract."""
    router = APIRouter(tags=["vectors"], route_class=StrictRoute)
    answer_ = _streamed(told("Answer a question", AnswerShape, examples.ANSWER, also=(406, 409)))

    @router.post("/vectors/rag", **with_json(answer_, RagBody, examples.ASK))
    async def answer(ctx: Reader, request: Request) -> Response:
        """Search, give what was found to a generative model as data, and answer with citations: to
        document, span and row version. With `stream`, or by `Accept`, as NDJSON or server-sent
        events: a `header`, `text` as it comes, the `end`, or an `error` in its place. Where no
        model answers, the 503 has the `context` that was retrieved and its `retrieval_id`."""
        body = await read_json(request, RagBody, settings.json_bytes_max)
        form = answer_form(request, body.stream)
        # A client that goes away before the first word stops the model as well.
        stream = await while_connected(request, answered(rag.answer(ctx, body.request())))
        return await answer_reply(request, stream, form)

    return router


def _streamed(told_: dict[str, Any]) -> dict[str, Any]:
    """The same for an answer that can be had word by word."""
    text = {"schema": {"type": "string"}}
    told_["responses"][200]["content"] |= {
        "application/x-ndjson": {**text, "example": examples.ANSWER_LINES},
        "text/event-stream": {**text, "example": examples.ANSWER_EVENTS},
    }
    return told_
