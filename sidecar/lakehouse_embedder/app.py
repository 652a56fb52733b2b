"""The Ollama API over one model: what its clients ask for embeddings, and honest errors else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lakehouse_embedder.model import CONTEXT, MiniLM, TooLong, Vectors
from lakehouse_embedder.weights import Weights

NAME: Final = "all-minilm:latest"
_ALIASES: Final = frozenset({"all-minilm", NAME})
_VERSION: Final = "0.12.0"
_MODIFIED: Final = "2021-08-30T00:00:00Z"
_DETAILS: Final = {
    "parent_model": "",
    "format": "safetensors",
    "family": "bert",
    "families": ["bert"],
    "parameter_size": "23M",
    "quantization_level": "F32",
}
_BODY_BYTES_MAX: Final = 64 * 1024 * 1024


class Refused(Exception):
    """Answered as Ollama does: a status, and ``{"error": ...}``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Embeddings:
    """The routes. One computation at a time: it takes all cores as it is."""

    def __init__(self, model: MiniLM, weights: Weights) -> None:
        self._model = model
        self._weights = weights
        self._thread = ThreadPoolExecutor(1, "model")

    async def embed(self, body: dict[str, Any]) -> Any:
        _must_be_here(body)
        given = body.get("input", "")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise Refused(400, "invalid input type")
        if texts == [""]:
            # How a client loads a model without asking anything.
            texts = []
        started = time.perf_counter_ns()
        vectors, tokens = await self._compute(texts, truncate=body.get("truncate") is not False)
        return {
            "model": body["model"],
            "embeddings": _normalised(vectors),
            "total_duration": time.perf_counter_ns() - started,
            "load_duration": 0,
            "prompt_eval_count": tokens,
        }

    async def embeddings(self, body: dict[str, Any]) -> Any:
        """The older form: one text, and its vector as the model gives it."""
        _must_be_here(body)
        text = body.get("prompt", "")
        if not isinstance(text, str):
            raise Refused(400, "invalid input type")
        if not text:
            return {"embedding": []}
        vectors, _ = await self._compute([text], truncate=True)
        return {"embedding": vectors[0]}

    async def generate(self, body: dict[str, Any]) -> Any:
        _must_be_here(body)
        raise Refused(400, f'"{body["model"]}" does not support generate')

    async def chat(self, body: dict[str, Any]) -> Any:
        _must_be_here(body)
        raise Refused(400, f'"{body["model"]}" does not support chat')

    async def show(self, body: dict[str, Any]) -> Any:
        _must_be_here(body)
        return {
            "license": "Apache License 2.0",
            "modelfile": "",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": _DETAILS,
            "model_info": {
                "general.architecture": "bert",
                "general.parameter_count": 22_713_216,
                "bert.context_length": CONTEXT,
                "bert.embedding_length": MiniLM.dimensions,
            },
            "capabilities": ["embedding"],
            "modified_at": _MODIFIED,
        }

    async def tags(self) -> Any:
        about = {
            "name": NAME,
            "model": NAME,
            "modified_at": _MODIFIED,
            "size": self._weights.path.stat().st_size,
            "digest": self._weights.sha256,
            "details": _DETAILS,
        }
        return {"models": [about]}

    async def version(self) -> Any:
        return {"version": _VERSION}

    async def _compute(self, texts: list[str], *, truncate: bool) -> tuple[Vectors, int]:
        if not texts:
            return np.empty((0, MiniLM.dimensions), np.float32), 0
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._thread, lambda: self._model.embed(texts, truncate=truncate)
            )
        except TooLong as error:
            raise Refused(400, "the input length exceeds the context length") from error


def _must_be_here(body: dict[str, Any]) -> None:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise Refused(400, "model is required")
    if name not in _ALIASES:
        raise Refused(404, f'model "{name}" not found, try pulling it first')


def _normalised(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _answer(content: Any, status: int = 200) -> Response:
    data = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(data, status, media_type="application/json; charset=utf-8")


def _posted(
    handle: Callable[[dict[str, Any]], Awaitable[Any]],
) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        try:
            return _answer(await handle(await _body(request)))
        except Refused as error:
            return _answer({"error": str(error)}, error.status)

    return route


def _asked(handle: Callable[[], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def route(_: Request) -> Response:
        return _answer(await handle())

    return route


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _BODY_BYTES_MAX:
            raise Refused(413, "request body too large")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"invalid JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "a JSON object is expected")
    return body


def create_app(model: MiniLM, weights: Weights) -> Starlette:
    """The application; ``model`` is loaded already."""
    routes = Embeddings(model, weights)
    posted = ("embed", "embeddings", "generate", "chat", "show")
    asked = ("tags", "version")
    return Starlette(
        routes=[
            *(Route(f"/api/{n}", _posted(getattr(routes, n)), methods=["POST"]) for n in posted),
            *(Route(f"/api/{n}", _asked(getattr(routes, n)), methods=["GET"]) for n in asked),
            Route("/", _alive, methods=["GET"]),
        ]
    )


async def _alive(_: Request) -> Response:
    return Response("Ollama API, embeddings only", media_type="text/plain")
