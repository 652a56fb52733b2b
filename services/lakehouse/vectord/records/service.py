"""The retrievals service: joins the use cases, one module each."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.contracts import retrievals as c
from lakehouse.contracts.tags import Tag
from lakehouse.model.identity import Context, Scope
from lakehouse.model.retrieval import RetrievedRef
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.explaining import brought_by, sentence_of, stages_of, steps_of
from lakehouse.vectord.records.finding import Finder, tag_prefix
from lakehouse.vectord.records.past import Past, PastReader
from lakehouse.vectord.records.pinning import Pinner
from lakehouse.vectord.records.recorder import Recorder
from lakehouse.vectord.records.values import digest_of_refs

__all__ = ["Retrievals"]


class Retrievals:
    """Implements ``contracts.retrievals.RetrievalsService``. Belongs to one event loop."""

    def __init__(self, parts: VectorParts, recorder: Recorder) -> None:
        self._finder = Finder(parts, recorder)
        self._past = PastReader(parts)
        self._pinner = Pinner(parts, self._finder, recorder.place, self._past)

    async def get(self, ctx: Context, request: c.RetrievalRequest) -> c.RetrievalResult:
        ctx.require(Scope.READ)
        return await self._finder.get(ctx, request.id)

    async def list(self, ctx: Context, request: c.ListRetrievalsRequest) -> c.ListRetrievalsResult:
        ctx.require(Scope.READ)
        return await self._finder.page(ctx, request)

    async def replay(self, ctx: Context, request: c.RetrievalRequest) -> c.ReplayReport:
        ctx.require(Scope.READ)
        found = await self._finder.get(ctx, request.id)
        retrieval = found.retrieval
        hits = tuple(
            _replayed(rank, hit, past)
            for rank, (hit, past) in enumerate(
                zip(retrieval.hits, await self._texts(ctx, found), strict=True), start=1
            )
        )
        digest = digest_of_refs(hits)
        missing = sum(hit.text is None for hit in hits)
        same = digest == retrieval.digest and not missing
        return c.ReplayReport(retrieval, hits, digest, same, missing, found.version)

    async def explain(self, ctx: Context, request: c.RetrievalRequest) -> c.Explanation:
        ctx.require(Scope.READ)
        found = await self._finder.get(ctx, request.id)
        retrieval, hits = found.retrieval, []
        texts = await self._texts(ctx, found)
        for rank, (hit, past) in enumerate(zip(retrieval.hits, texts, strict=True), start=1):
            stages = stages_of(retrieval, rank, hit)
            brought, said = brought_by(stages, hit.index), sentence_of(rank, hit, stages)
            hits.append(
                c.HitReason(
                    rank, hit.key, hit.chunk, hit.score, brought, said, past.text, stages, hit.index
                )
            )
        return c.Explanation(retrieval, steps_of(retrieval), tuple(hits), found.version)

    async def pin(self, ctx: Context, request: c.PinRequest) -> c.PinResult:
        return await self._pinner.pin(ctx, request)

    async def _texts(self, ctx: Context, found: c.RetrievalResult) -> Sequence[Past]:
        """Of each hit; versions that tags of the retrieval keep are looked at first."""
        retrieval = found.retrieval
        kept: dict[str, list[Tag]] = {}
        if retrieval.tags:
            tags, _ = await self._finder.tags(ctx, tag_prefix(retrieval.id))
            for tag in tags:
                kept.setdefault(tag.dataset_id, []).append(tag)
        return await self._past.read(ctx, retrieval, found.version, kept)


def _replayed(rank: int, hit: RetrievedRef, past: Past) -> c.ReplayedHit:
    """As it is shown: the digest of the text that was read stands for the text."""
    return c.ReplayedHit(
        rank,
        hit.key,
        hit.chunk,
        hit.start,
        hit.end,
        hit.version,
        hit.score,
        past.text,
        hit.text_sha256,
        past.text_from,
        past.row,
        past.row_version,
        hit.stages,
        hit.index,
    )
