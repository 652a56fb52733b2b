"""An Ollama server that does what a test wants of it, and a real server for any application."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Vector = list[float]


def vector_of(text: str, salt: str = "", dimensions: int = 8) -> Vector:
    """As good as any: known by the text alone."""
    digest = hashlib.sha256(f"{salt}{text}".encode()).digest()
    return [byte / 255 + 0.01 for byte in digest[:dimensions]]


@dataclass
class Ollama:
    """``spoil``: what becomes of the vectors of a call, in place of them; raise to refuse.

    ``calls``: the texts of each call, in the order of their arrival. ``at_once``: calls that were
    at work together, at most.
    """

    digest: str = "d1"
    salt: str = ""
    seconds: float = 0.0
    spoil: Callable[[list[str], list[Vector]], list[Vector] | Response] | None = None
    calls: list[list[str]] = field(default_factory=list)
    at_once: int = 0
    _working: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/embed", self._embed, methods=["POST"]),
                Route("/api/tags", self._tags),
                Route("/api/generate", self._generate, methods=["POST"]),
            ]
        )

    async def _embed(self, request: Request) -> Response:
        body = await request.json()
        if body["model"] != "small":
            return JSONResponse({"error": f'model "{body["model"]}" not found'}, 404)
        texts: list[str] = body["input"]
        self.calls.append(texts)
        self._working += 1
        self.at_once = max(self.at_once, self._working)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self._working -= 1
        vectors: Any = [vector_of(text, self.salt) for text in texts]
        if self.spoil is not None:
            vectors = self.spoil(texts, vectors)
        if isinstance(vectors, Response):
            return vectors
        return JSONResponse({"model": body["model"], "embeddings": vectors})

    async def _tags(self, _: Request) -> Response:
        about = {"name": "small:latest", "model": "small:latest", "size": 7, "digest": self.digest}
        return JSONResponse({"models": [about]})

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        if body["model"] != "small":
            return JSONResponse({"error": "does not support generate"}, 400)

        async def parts() -> AsyncIterator[bytes]:
            for word in ("one ", "two"):
                yield b'{"model":"small","response":"%s","done":false}\n' % word.encode()
            yield b'{"model":"small","response":"","done":true}\n'

        return StreamingResponse(parts(), media_type="application/x-ndjson")


def failing(status: int, text: str = "broken") -> Response:
    return JSONResponse({"error": text}, status)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The application at a free port of loopback, on this loop; its URL."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(server._serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
