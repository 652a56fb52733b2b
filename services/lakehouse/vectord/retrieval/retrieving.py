"""Searches of every mode: by vectors, by words, by both; of several indexes; in another order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lakehouse.contracts import vectors as c
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context, Scope
from lakehouse.model.retrieval import RecordClass, SearchedIndex, SearchMode, Stage
from lakehouse.vectord.asking import Asked, Asking
from lakehouse.vectord.checking import check_model
from lakehouse.vectord.image import Image
from lakehouse.vectord.lexical.lexical import Lexical
from lakehouse.vectord.nearest import as_scores
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.recorder import Recorder
from lakehouse.vectord.retrieval.asked_for import (
    Bounds,
    bounds_of,
    check_purpose,
    check_reached,
    check_retrieval,
    is_now,
    is_plain,
)
from lakehouse.vectord.retrieval.earlier import Earlier
from lakehouse.vectord.retrieval.embedding import Embedding
from lakehouse.vectord.retrieval.found import Embedded, FoundIn, hit_of, key_of, together
from lakehouse.vectord.retrieval.fusing import Candidate, Leg, fused, single
from lakehouse.vectord.retrieval.noting import Noting
from lakehouse.vectord.retrieval.reranking import check_comparable, reranked
from lakehouse.vectord.searching import Searching, served_by

__all__ = ["More", "Retrieving"]

Flags = npt.NDArray[np.bool_]
T = TypeVar("T")

More = Callable[[c.SearchResult], Awaitable[c.SearchResult]]
BM25: Final = "bm25"
# More are looked at beside the loop.
_FEW: Final = 500
_VAIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Opened:
    """An index that is to be searched, as it is now."""

    asking: Asking
    asked: Asked

    async def on_image(self, ctx: Context, ask: Callable[[Image], Awaitable[T]]) -> tuple[Image, T]:
        asked = self.asked
        return await self.asking.on_image(ctx, asked.version, ask, asked.store_version)

    async def wanted(self, ctx: Context, image: Image, predicate: str) -> Flags | None:
        if not predicate.strip():
            return None
        return await self.asking.matching(ctx, self.asked, image, predicate)


class _Index(Protocol):
    """An index that is to be searched, as it is or as it was."""

    @property
    def asked(self) -> Asked: ...

    async def on_image(
        self, ctx: Context, ask: Callable[[Image], Awaitable[T]]
    ) -> tuple[Image, T]: ...

    async def wanted(self, ctx: Context, image: Image, predicate: str) -> Flags | None:
        """One flag a row; None where all are candidates."""
        ...


class Retrieving:
    """Belongs to one event loop."""

    def __init__(
        self,
        parts: VectorParts,
        searching: Searching,
        lexical: Lexical,
        earlier: Earlier,
        recorder: Recorder,
    ) -> None:
        self._parts = parts
        self._searching = searching
        self._lexical = lexical
        self._earlier = earlier
        self._noting = Noting(parts.clock, recorder)
        self._embedding = Embedding(parts.clock, searching)
        self._vain: dict[tuple[str, int], tuple[int, float]] = {}

    async def search(
        self, ctx: Context, request: c.SearchRequest, more: More | None = None
    ) -> c.SearchResult:
        """As ``contracts.vectors.VectorsService.search``.

        Args:
            more: what its caller makes of an answer before it is remembered.
        """
        check_purpose(request.purpose)
        if not is_plain(request):
            ctx.require(Scope.READ)
            check_retrieval(request)
            return await self._retrieved(ctx, request, more)
        answered = await self._searching.answered(ctx, request)
        result = answered.result if more is None else await more(answered.result)
        if request.record is not RecordClass.NONE:
            noting = self._noting
            indexes = (noting.index(answered.asked, answered.image, result.served_by),)
            await noting.remember(ctx, request, result, indexes, answered.queries)
        return result

    async def close(self) -> None:
        """End what runs in the background; idempotent."""
        await self._embedding.close()
        await self._earlier.close()
        await self._lexical.close()

    async def _retrieved(
        self, ctx: Context, request: c.SearchRequest, more: More | None
    ) -> c.SearchResult:
        clock = self._parts.clock
        bounds = bounds_of(request)
        names = (request.index, *request.also)
        opened = await together([self._open(ctx, request, name) for name in names])
        check_comparable(request, [one.asked.version for one in opened])
        began = clock.monotonic()
        embedding = self._embedding.begun(request, [one.asked.version for one in opened])
        try:
            found = await together(
                [
                    self._of_index(ctx, request, bounds, at, one, embedding[at])
                    for at, one in enumerate(opened)
                ]
            )
        finally:
            for task in embedding:
                # That nobody waited for its error any more is no defect.
                if task is not None and not task.cancel() and not task.cancelled():
                    task.exception()
        ranked = await self._ranked(request, bounds, found)
        results, reason = await reranked(
            self._parts.jobs, self._embedding, request, bounds, found, ranked
        )
        reason = reason or next((one.embedded.reason for one in found if one.embedded.reason), "")
        taken = (clock.monotonic() - began) * 1000.0
        result = await self._result(request, found, results, reason, taken)
        if more is not None:
            result = await more(result)
        if request.record is not RecordClass.NONE:
            said = [self._noting.index(one.asked, one.image, one.served_by) for one in found]
            indexes: tuple[SearchedIndex, ...] = tuple(said)
            queries = found[0].embedded.queries
            then = 0 if is_now(request.as_of) else result.version
            await self._noting.remember(ctx, request, result, indexes, queries, then)
        return result

    async def _open(self, ctx: Context, request: c.SearchRequest, name: str) -> _Index:
        asking = self._searching.asking
        number = request.number if name == request.index else 0
        if not is_now(request.as_of):
            past = await self._earlier.opened(ctx, name, number, request.as_of)
            if name == request.index:
                check_model(request, past.asked.version)
            return past
        asked = await asking.asked(ctx, name, number)
        if name == request.index:
            check_model(request, asked.version)
            check_reached(request.as_of, asked.store_version)
        return _Opened(asking, await self._fresh(ctx, asked, number))

    async def _fresh(self, ctx: Context, asked: Asked, number: int) -> Asked:
        """As ``Asking.fresh``; but where it was waited for in vain a moment ago, and nothing came
        since, what is there is enough: without a model nothing will."""
        if not asked.behind:
            return asked
        key, now = (asked.info.name, asked.version.number), self._parts.clock.monotonic()
        came, until = self._vain.get(key, (-1, 0.0))
        if came == asked.version.source_version and now < until:
            return asked
        asked = await self._searching.asking.fresh(ctx, asked, number)
        self._vain.pop(key, None)
        if asked.behind:
            until = self._parts.clock.monotonic() + _VAIN_SECONDS
            self._vain[key] = asked.version.source_version, until
        return asked

    async def _of_index(
        self,
        ctx: Context,
        request: c.SearchRequest,
        bounds: Bounds,
        at: int,
        opened: _Index,
        embedding: asyncio.Task[Embedded] | None,
    ) -> FoundIn:
        version = opened.asked.version
        how = (bounds.candidates, request.ef or version.profile.ef_search, request.exact)
        texts = [query.text for query in request.queries]
        backend = version.profile.vector_backend

        async def by_words(image: Image, wanted: Flags | None) -> list[Leg]:
            found = await self._lexical.search(
                image, backend, texts, bounds.candidates, wanted, deadline=ctx.deadline
            )
            return await self._beside(
                sum(len(rows) for rows, _ in found),
                lambda: [
                    Leg(at, Stage.TEXT, rows.tolist(), scores.astype(float).tolist())
                    for rows, scores in found
                ],
            )

        async def by_vectors(image: Image, wanted: Flags | None) -> list[Leg]:
            embedded = await asyncio.shield(embedding) if embedding is not None else Embedded(None)
            if embedded.queries is None:
                return []
            found = await self._searching.nearest(image, embedded.queries, how, wanted)
            return await self._beside(
                sum(len(rows) for rows, _ in found),
                lambda: [
                    Leg(at, Stage.VECTOR, rows.tolist(), as_scores(far, image.distance).tolist())
                    for rows, far in found
                ],
            )

        async def ask(image: Image) -> list[list[Leg]]:
            wanted = await opened.wanted(ctx, image, request.filter if at == 0 else "")
            legs = []
            if request.mode is not SearchMode.TEXT:
                legs.append(by_vectors(image, wanted))
            if request.mode is not SearchMode.VECTOR:
                legs.append(by_words(image, wanted))
            found = [leg for leg in await together(legs) if leg]
            return [[leg[place] for leg in found] for place in range(len(texts))]

        image, legs = await opened.on_image(ctx, ask)
        embedded = await asyncio.shield(embedding) if embedding is not None else Embedded(None)
        served = []
        if request.mode is not SearchMode.TEXT and embedded.queries is not None:
            served.append("exact" if request.exact else served_by(image))
        if request.mode is not SearchMode.VECTOR:
            served.append(BM25)
        return FoundIn(opened.asked, image, legs, embedded, "+".join(served))

    async def _ranked(
        self, request: c.SearchRequest, bounds: Bounds, found: Sequence[FoundIn]
    ) -> list[list[Candidate]]:
        """The best candidates of each query."""
        most = max(request.k, bounds.reranked)
        alone = len(found) == 1 and request.mode is not SearchMode.HYBRID
        key = key_of(found)

        def rank() -> list[list[Candidate]]:
            legs = [
                [leg for one in found for leg in one.legs[place]]
                for place in range(len(request.queries))
            ]
            return [single(some[0], most) if alone else fused(some, key, most) for some in legs]

        return await self._beside(len(request.queries) * len(found) * bounds.candidates, rank)

    async def _beside(self, count: int, make: Callable[[], T]) -> T:
        """What ``make`` makes of ``count`` rows: here, if they are few."""
        return make() if count <= _FEW else await run_in(self._parts.jobs, make)

    async def _result(
        self,
        request: c.SearchRequest,
        found: Sequence[FoundIn],
        ranked: Sequence[Sequence[Candidate]],
        reason: str,
        taken: float,
    ) -> c.SearchResult:
        first = found[0]
        asked, version = first.asked, first.asked.version
        names = self._searching.names(request)
        shown = [one.asked.info.name if len(found) > 1 else "" for one in found]

        def hits() -> tuple[c.Hits, ...]:
            return tuple(
                c.Hits(tuple([hit_of(found, shown, one) for one in some[: request.k]]), name)
                for some, name in zip(ranked, names, strict=True)
            )

        results = await self._beside(sum(len(some) for some in ranked), hits)
        embed_ms = max((one.embedded.ms for one in found if one.embedded.asked), default=0.0)
        return c.SearchResult(
            results,
            asked.info.name,
            version.number,
            version.model,
            version.profile.vector_backend.value,
            "+".join(dict.fromkeys(each for one in found for each in one.served_by.split("+"))),
            version.source_version,
            asked.behind,
            asked.store_version,
            embed_ms,
            max(0.0, taken - embed_ms),
            request.mode,
            bool(reason),
            reason,
        )
