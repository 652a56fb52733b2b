"""The vectors of queries, for all indexes of a search."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lakehouse.contracts import vectors as c
from lakehouse.kit.clock import Clock
from lakehouse.model.retrieval import Rerank, SearchMode
from lakehouse.model.vectors import IndexVersion
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.retrieval.found import Embedded
from lakehouse.vectord.retrieval.patience import Patience
from lakehouse.vectord.searching import Searching

__all__ = ["Embedding"]


class Embedding:
    """Belongs to one event loop. Who can do without the embedder waits for it a little; who asked
    for nearest vectors alone waits as long as it takes."""

    def __init__(self, clock: Clock, searching: Searching) -> None:
        self._clock = clock
        self._searching = searching
        self._patience = Patience(clock)

    async def close(self) -> None:
        """End what is still asked; idempotent."""
        await self._patience.close()

    def begun(
        self, request: c.SearchRequest, versions: Sequence[IndexVersion]
    ) -> list[asyncio.Task[Embedded] | None]:
        """For each index the vectors of the queries, which are made once for all indexes of the
        same model; None where none are needed."""
        if request.mode is SearchMode.TEXT and request.rerank is Rerank.NONE:
            return [None for _ in versions]
        known: dict[tuple[object, ...], asyncio.Task[Embedded]] = {}
        found: list[asyncio.Task[Embedded] | None] = []
        for version in versions:
            key = (
                version.model,
                version.model_digest,
                version.dimensions,
                version.profile.distance,
            )
            if key not in known:
                known[key] = asyncio.create_task(self._embedded(request, version))
            found.append(known[key])
        return found

    async def _embedded(self, request: c.SearchRequest, version: IndexVersion) -> Embedded:
        clock = self._clock
        began = clock.monotonic()

        async def ask() -> tuple[Vectors, bool]:
            return await self._searching.queries(version, request.queries)

        if request.mode is SearchMode.VECTOR:
            queries, asked = await ask()
            return Embedded(queries, "", asked, (clock.monotonic() - began) * 1000.0)
        texts = [query.text for query in request.queries if not query.vector]
        if not texts:
            return Embedded((await ask())[0])
        made, reason = await self._patience.embedded(version.model, texts, ask)
        taken = (clock.monotonic() - began) * 1000.0
        return Embedded(None if made is None else made[0], reason, True, taken)

    async def texts(
        self, version: IndexVersion, texts: list[str]
    ) -> tuple[dict[str, Vectors] | None, str]:
        """The vector of each text; or None and why."""
        if not texts:
            return {}, ""

        async def ask() -> Vectors:
            asked = [c.VectorQuery(text) for text in texts]
            return (await self._searching.queries(version, asked))[0]

        made, reason = await self._patience.embedded(version.model, texts, ask)
        return (None, reason) if made is None else (dict(zip(texts, made, strict=True)), "")
