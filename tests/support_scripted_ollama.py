"""An HTTP peer that speaks the Ollama API and answers what a script says. It thinks of nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from support_ollama import vector_of

MODEL = "scripted"


@dataclass
class Script:
    """An answer: its words one by one, and what comes of it.

    Attributes:
        fails: after the words: ``error`` is a line that says so, ``cut`` ends without an end.
        gate: waited for before the word of the same place, "" as the place of the first.
        think: seconds before the first word.
    """

    words: tuple[str, ...] = ("Nothing.",)
    fails: str = ""
    wait_before: int = -1
    gate: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class ScriptedOllama:
    """``asked``: bodies of the calls to generate. ``called``: every path that was asked for.

    ``stopped``: answers that nobody heard to their end. ``script``: of the next answers.
    """

    script: Script = field(default_factory=Script)
    asked: list[dict[str, Any]] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    stopped: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    refuse: Callable[[], Response | None] = lambda: None

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/generate", self._generate, methods=["POST"]),
                Route("/api/embed", self._embed, methods=["POST"]),
                Route("/api/tags", self._tags),
                Route("/{other:path}", self._other, methods=["GET", "POST", "PUT", "DELETE"]),
            ]
        )

    async def _other(self, request: Request) -> Response:
        self.called.append(request.url.path)
        return JSONResponse({"error": "not scripted"}, 404)

    async def _tags(self, request: Request) -> Response:
        self.called.append(request.url.path)
        about = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "size": 7, "digest": "d1"}
        return JSONResponse({"models": [about]})

    async def _embed(self, request: Request) -> Response:
        self.called.append(request.url.path)
        body = await request.json()
        if body["model"] != MODEL:
            return JSONResponse({"error": f'model "{body["model"]}" not found'}, 404)
        vectors = [vector_of(text) for text in body["input"]]
        return JSONResponse({"model": MODEL, "embeddings": vectors})

    async def _generate(self, request: Request) -> Response:
        self.called.append(request.url.path)
        body = await request.json()
        self.asked.append(body)
        refused = self.refuse()
        if refused is not None:
            return refused
        if body["model"] != MODEL:
            return JSONResponse({"error": f'model "{body["model"]}" not found'}, 404)
        return StreamingResponse(self._said(self.script), media_type="application/x-ndjson")

    async def _said(self, script: Script) -> AsyncIterator[bytes]:
        whole = False
        try:
            for place, word in enumerate(script.words):
                if place == script.wait_before:
                    await script.gate.wait()
                yield _line(response=word, done=False)
            if script.wait_before >= len(script.words):
                await script.gate.wait()
            if script.fails == "error":
                yield json.dumps({"error": "the runner was killed"}).encode() + b"\n"
            elif not script.fails:
                count = len(script.words)
                yield _line(
                    response="",
                    done=True,
                    done_reason="stop",
                    prompt_eval_count=11,
                    eval_count=count,
                )
            whole = True
        finally:
            self.stopped += not whole
            self.ended.set()


def _line(**fields: Any) -> bytes:
    return (
        json.dumps({"model": MODEL, "created_at": "2026-02-15T00:00:00Z", **fields}).encode()
        + b"\n"
    )
