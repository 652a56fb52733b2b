"""The answers service: retrieve, remember, ask a model, say what the answer rests on."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, cast

from lakehouse.contracts import rag as c
from lakehouse.contracts.vectors import SearchRequest, SearchResult, VectorQuery
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.model.identity import Context, Scope
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Generated
from lakehouse.vectord.rag.context import as_fields, citations, given_texts
from lakehouse.vectord.rag.prompt import prompt_of
from lakehouse.vectord.rag.words import Asked, Words

__all__ = ["Rag"]

_PURPOSE: Final = "rag"
_INSTRUCTIONS_BYTES_MAX: Final = 32 * 1024
_TOKENS_MAX: Final = 100_000
_TEMPERATURE_MAX: Final = 2.0
_MODEL_MAX: Final = 200
_MARK_BYTES: Final = 12
# Servers cut what is longer than their window at its beginning, where the rules are. Windows go
# in steps, for a model is loaded anew for each other one.
_WINDOWS: Final = (4_096, 8_192, 16_384, 32_768, 65_536, 131_072)
_BYTES_A_TOKEN: Final = 3
_ANSWER_TOKENS: Final = 1_024

Search = Callable[[Context, SearchRequest], Awaitable[SearchResult]]


class Rag:
    """Implements ``contracts.rag.RagService``. Belongs to one event loop.

    The model gets text and gives text: nothing is called for what either of them says.
    """

    def __init__(self, parts: VectorParts, search: Search) -> None:
        self._parts = parts
        self._search = search

    async def answer(self, ctx: Context, request: c.AnswerRequest) -> c.AnswerStream:
        """See the contract."""
        ctx.require(Scope.READ)
        _check(request)
        found = await self._search(ctx, _wanted(request))
        settings = self._parts.rag
        hits = found.results[0]
        context = citations(hits.hits, found.index, settings.context_bytes_max)
        header = c.AnswerHeader(
            hits.retrieval_id,
            request.model or settings.model,
            context,
            found.version,
            found.degraded,
            found.behind,
        )
        try:
            words = self._asked(ctx, request, header)
            try:
                await words.begin()
            except BaseException:
                await words.aclose()
                raise
        except LakehouseError as error:
            error.fields["retrieval_id"] = header.retrieval_id
            error.fields["context"] = as_fields(context, settings.context_bytes_max)
            raise
        return c.AnswerStream(header, words)

    def _asked(self, ctx: Context, request: c.AnswerRequest, header: c.AnswerHeader) -> Words:
        generator = self._parts.generator
        if generator is None or not header.model:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "no model is there to answer",
                hint="set rag.model to one that an Ollama server at embedding.generate_url has, or"
                " name it in the request; what was retrieved is in context",
            )
        texts = given_texts([one.text for one in header.context], self._parts.rag.context_bytes_max)
        mark = self._parts.ids.token(_MARK_BYTES)
        prompt = prompt_of(request.question, texts, request.instructions, mark)
        options: dict[str, float | int] = {"num_ctx": _window(prompt, request.tokens_max)}
        if request.tokens_max:
            options["num_predict"] = request.tokens_max
        if request.temperature is not None:
            options["temperature"] = request.temperature
        asked = Asked(
            header.model,
            header.retrieval_id,
            len(header.context),
            self._parts.clock.monotonic(),
            ctx.deadline,
        )
        source = generator.generate(header.model, prompt, options)
        return Words(cast("AsyncGenerator[Generated, None]", source), asked, self._parts.clock)


def _wanted(request: c.AnswerRequest) -> SearchRequest:
    return SearchRequest(
        request.index,
        (VectorQuery(request.question),),
        request.k,
        request.filter,
        request.number,
        mode=request.mode,
        also=request.also,
        rerank=request.rerank,
        as_of=request.as_of,
        record=request.record,
        purpose=_PURPOSE,
    )


def _window(prompt: str, tokens_max: int) -> int:
    """Tokens that the model is to look at: the prompt's and the answer's, estimated."""
    wanted = len(prompt.encode()) // _BYTES_A_TOKEN + (tokens_max or _ANSWER_TOKENS)
    return next((window for window in _WINDOWS if window >= wanted), _WINDOWS[-1])


def _check(request: c.AnswerRequest) -> None:
    for name, text, most in (
        ("question", request.question, c.QUESTION_BYTES_MAX),
        ("instructions", request.instructions, _INSTRUCTIONS_BYTES_MAX),
    ):
        if len(text) > most or _bytes(name, text) > most:
            raise _bad(f"{name} has too many bytes", maximum_bytes=most)
    if not request.question.strip():
        raise _bad("there is no question", hint="ask in a sentence")
    if not 1 <= request.k <= c.CONTEXT_MAX:
        raise _bad("k is out of range", k=request.k, minimum=1, maximum=c.CONTEXT_MAX)
    if not 0 <= request.tokens_max <= _TOKENS_MAX:
        raise _bad(
            "tokens_max is out of range",
            tokens_max=request.tokens_max,
            minimum=0,
            maximum=_TOKENS_MAX,
        )
    given = request.temperature
    if given is not None and not (math.isfinite(given) and 0 <= given <= _TEMPERATURE_MAX):
        raise _bad("temperature is out of range", minimum=0, maximum=_TEMPERATURE_MAX)
    if len(request.model) > _MODEL_MAX or not (request.model.isprintable()):
        raise _bad("a model's name is too long, or cannot be shown", maximum=_MODEL_MAX)


def _bytes(name: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _bad(f"{name} is no Unicode text") from None


def _bad(message: str, **fields: FieldValue) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)
