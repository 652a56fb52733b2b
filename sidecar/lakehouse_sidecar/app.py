"""The sidecar over HTTP: /embed, /generate, /models, /health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lakehouse_sidecar.embedding import Embedded, Embedding
from lakehouse_sidecar.errors import STATUS, Code, SidecarError
from lakehouse_sidecar.lanes import Lane, Lanes
from lakehouse_sidecar.models import Model, Models
from lakehouse_sidecar.server import Server
from lakehouse_sidecar.settings import Settings

BINARY: Final = "application/octet-stream"
_RETRY_SECONDS: Final = "1"
_DEADLINE_MAX: Final = 3600.0

T = TypeVar("T")
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: Name


class EmbedRequest(_Asked):
    """``input``: one text or several. ``deadline_seconds``: answer by then or not at all.
    ``partial``: a text without a vector does not fail the others; the answer tells which."""

    input: str | list[str]
    lane: Lane = Lane.QUERY
    deadline_seconds: Annotated[float, Field(gt=0, le=_DEADLINE_MAX)] | None = None
    partial: bool = False


class GenerateRequest(_Asked):
    """``stream`` false: one answer at the end. ``options``: the server's own."""

    prompt: str
    stream: bool = True
    options: dict[str, Any] = Field(default_factory=dict)


class Sidecar:
    """What the routes share. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.server = Server(settings.ollama_url, settings.call_seconds, settings.word_seconds)
        writer = settings.generate_url or settings.ollama_url
        self.writer = Server(writer, settings.call_seconds, settings.word_seconds)
        self.lanes = Lanes(settings.permits, settings.queue_max)
        self.models = Models(self.server, self.lanes, settings)
        self.embedding = Embedding(self.server, self.models, self.lanes, settings)
        # Generating takes long, and must not keep vectors waiting.
        self.generating = Lanes(1, settings.queue_max)


def create_app(settings: Settings) -> FastAPI:
    """The application."""
    sidecar = Sidecar(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await sidecar.server.close()
        await sidecar.writer.close()

    app = FastAPI(title="embedding sidecar", lifespan=lifespan)
    app.add_exception_handler(SidecarError, _refused)
    app.add_exception_handler(ValidationError, _malformed)

    @app.post("/embed")
    async def embed(request: Request) -> Response:
        asked = EmbedRequest.model_validate(await _body(request, settings.body_bytes_max))
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        doing = sidecar.embedding.embed(
            asked.model, texts, asked.lane, asked.deadline_seconds, partial=asked.partial
        )
        found = await _while_heard(request, doing)
        binary = BINARY in request.headers.get("accept", "")
        return _binary(found) if binary else _json(_described(found))

    @app.post("/generate")
    async def generate(request: Request) -> Response:
        asked = GenerateRequest.model_validate(await _body(request, settings.body_bytes_max))
        parts = _generated(sidecar, asked)
        # The status is known with the first part. A caller that leaves before it stops the model.
        first = await _while_heard(request, _next(parts))
        if asked.stream:
            return StreamingResponse(_lines(first, parts), media_type="application/x-ndjson")
        return _json(await _while_heard(request, _whole(first, parts)))

    @app.get("/models")
    async def models(writer: bool = False) -> Response:
        found = await (sidecar.writer if writer else sidecar.server).models()
        return _json({"models": [_named(one) for one in found]})

    @app.get("/models/{name:path}")
    async def model(name: str, request: Request) -> Response:
        return _json(_about(await _while_heard(request, sidecar.models.get(name, Lane.QUERY))))

    @app.get("/health")
    async def health() -> Response:
        depth = sidecar.lanes.depth()
        about: dict[str, object] = {"ollama_url": settings.ollama_url, "queue": depth}
        try:
            await sidecar.server.models()
        except SidecarError as error:
            return _json({"status": "unavailable", **about, **error.as_json()}, 503)
        return _json({"status": "ok", **about})

    return app


async def _while_heard(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Its result; given up as soon as nobody waits for it any more."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise SidecarError(Code.DEADLINE, "the caller has left")
        return doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Return when the connection is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, bytes_max: int) -> Any:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > bytes_max:
            raise SidecarError(Code.INVALID, "the body is too large", bytes_max=bytes_max)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise SidecarError(Code.INVALID, "the body is no JSON", cause=str(error)) from error


async def _generated(
    sidecar: Sidecar, asked: GenerateRequest
) -> AsyncGenerator[dict[str, Any], None]:
    lanes = sidecar.generating
    async with lanes.admitted(Lane.QUERY), lanes.permit(Lane.QUERY):
        words = sidecar.writer.generate(asked.model, asked.prompt, asked.options)
        async with aclosing(words):
            async for part in words:
                yield part


async def _next(parts: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(parts, None)


async def _whole(
    first: dict[str, Any] | None, rest: AsyncIterator[dict[str, Any]]
) -> dict[str, Any]:
    """All parts as one."""
    answer: dict[str, Any] = {}
    text = ""
    for part in [first] + [part async for part in rest]:
        answer |= part or {}
        text += (part or {}).get("response", "")
    return answer | {"response": text}


async def _lines(
    first: dict[str, Any] | None, rest: AsyncGenerator[dict[str, Any], None]
) -> AsyncIterator[bytes]:
    """What breaks after the first part is the last line: the status was sent. Where nobody reads
    them any more, the model stops."""
    async with aclosing(rest):
        if first is not None:
            yield orjson.dumps(first) + b"\n"
        try:
            async for part in rest:
                yield orjson.dumps(part) + b"\n"
        except SidecarError as error:
            yield orjson.dumps(error.as_json()) + b"\n"


def _binary(found: Embedded) -> Response:
    """Rows of little-endian float32, one after the other; what they are, in the head."""
    about = _about(found.model)
    head = {
        "x-rows": str(len(found.vectors)),
        "x-dimensions": str(about["dimensions"]),
        "x-model-digest": str(about["digest"]),
        "x-canary-sha256": str(about["canary_sha256"]),
    }
    if found.refused:
        head["x-refused"] = orjson.dumps(_by_reason(found)).decode()
    return Response(found.vectors.astype("<f4").tobytes(), headers=head, media_type=BINARY)


def _described(found: Embedded) -> dict[str, object]:
    return {**_about(found.model), "embeddings": found.vectors, "refused": _by_reason(found)}


def _by_reason(found: Embedded) -> dict[str, list[int]]:
    """Places of texts without a vector, by the reason, which is one of ours: short, and ASCII."""
    reasons: dict[str, list[int]] = {}
    for place, reason in sorted(found.refused.items()):
        reasons.setdefault(reason, []).append(place)
    return reasons


def _about(model: Model) -> dict[str, object]:
    return {
        "model": model.name,
        "digest": model.digest,
        "dimensions": model.dimensions,
        "canary_sha256": model.canary_sha256,
    }


def _named(one: Any) -> dict[str, object]:
    return {
        "name": one.name,
        "digest": one.digest,
        "size_bytes": one.size_bytes,
        "family": one.family,
        "parameters": one.parameters,
    }


def _json(content: object, status: int = 200) -> Response:
    data = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(data, status, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, SidecarError)
    later = error.code in (Code.EXHAUSTED, Code.UNAVAILABLE)
    headers = {"retry-after": _RETRY_SECONDS} if later else None
    return JSONResponse(error.as_json(), STATUS[error.code], headers)


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where, cause = ".".join(str(part) for part in first["loc"]), first["msg"]
    malformed = SidecarError(Code.INVALID, "the request is malformed", field=where, cause=cause)
    return await _refused(_, malformed)
