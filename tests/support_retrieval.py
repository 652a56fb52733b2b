"""A small library with an index over it, and a model that writes what a test scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakehouse.contracts import vectors as c
from lakehouse.contracts.profiles import PutProfileRequest
from lakehouse.errors import LakehouseError
from lakehouse.model.vectors import Profile
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.ports import Generated
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, Shelf, shelf

BOOKS = [
    {"id": 1, "title": "a red fox", "body": "runs through the snow", "year": 1999},
    {"id": 2, "title": "a red hen", "body": "sleeps in the barn", "year": 2004},
    {"id": 3, "title": "the blue whale", "body": None, "year": 2004},
    {"id": 4, "title": None, "body": None, "year": 2004},
    {"id": 5, "title": "snow in the barn", "body": "and a fox", "year": None},
]


class ScriptedWriter:
    """Implements ``ports.Generator`` with scripted answers: no model is behind it.

    Attributes:
        words: what it writes; ``failure``: raised behind them, or at once where there are none.
        prompts: what it was asked, with its options.
        stopped: set when a caller went away before the end.
    """

    def __init__(self) -> None:
        self.words: list[str] = ["They ", "mend [1]."]
        self.failure: LakehouseError | None = None
        self.prompts: list[tuple[str, str, dict[str, float | int]]] = []
        self.endless = False
        self.stopped = asyncio.Event()

    async def generate(
        self, model: str, prompt: str, options: Mapping[str, float | int]
    ) -> AsyncIterator[Generated]:
        self.prompts.append((model, prompt, dict(options)))
        try:
            for word in self.words:
                yield Generated(word)
            if self.failure is not None:
                raise self.failure
            if self.endless:
                await asyncio.Event().wait()
            yield Generated("", True, "stop", 7, 3)
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped.set()
            raise


@dataclass
class Library:
    """A store with an index, ``books``, in all modes; and the service that answers."""

    store: Shelf
    role: Vectors
    embedder: HashingEmbedder
    writer: ScriptedWriter = field(default_factory=ScriptedWriter)

    async def ask(self, text: str, **fields: Any) -> c.SearchResult:
        return await self.role.search(
            ADA, c.SearchRequest("books", (c.VectorQuery(text),), **fields)
        )

    async def build(self, name: str = "books", **fields: Any) -> None:
        await self.role.build(ADA, c.BuildRequest(name, wait_seconds=30.0, **fields))


@asynccontextmanager
async def library(folder: Path) -> AsyncIterator[Library]:
    async with shelf(folder) as store:
        await store.put("books", BOOKS)
        embedder, writer = HashingEmbedder(), ScriptedWriter()
        parts = store.parts(embedder, follow_seconds=0.05)
        parts.generator = writer
        role = Vectors(parts)
        await role.start()
        # Graphs are made of few rows already.
        graphs = Profile("graphs", exact_rows_max=100, hnsw_m=4, ef_construction=10)
        await Profiles(parts).put(ADA, PutProfileRequest(graphs))
        try:
            here = Library(store, role, embedder, writer)
            await role.create_index(ADA, c.CreateIndexRequest("books", "books", ("title", "body")))
            await here.build()
            yield here
        finally:
            await role.close()
