"""Why a retrieval is as it is, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.model.retrieval import (
    Rerank,
    Retrieval,
    RetrievedRef,
    SearchMode,
    Stage,
    StageScore,
)

__all__ = ["brought_by", "sentence_of", "stages_of", "steps_of"]

_ASKED: Final = {
    SearchMode.VECTOR: "by meaning",
    SearchMode.TEXT: "by words (BM25)",
    SearchMode.HYBRID: "by meaning and by words (BM25)",
}
_STAGES: Final = {
    Stage.VECTOR: "similarity of vectors",
    Stage.TEXT: "words (BM25)",
    Stage.FUSION: "fusion of ranks",
    Stage.RERANK: "the reranker",
}
_RERANKS: Final = {
    Rerank.VECTORS: "the similarity of each one's vector to the query's",
    Rerank.SENTENCES: "that of its most similar sentence, embedded for the purpose",
}
_SHOWN: Final = 200


def steps_of(retrieval: Retrieval) -> tuple[str, ...]:
    """What was done, in order."""
    return tuple(_steps(retrieval))


def _steps(retrieval: Retrieval) -> Iterator[str]:
    asked = f"{retrieval.text[:_SHOWN]!r}" if retrieval.text else "a vector"
    yield f"{retrieval.actor} asked for {asked}, {_ASKED[retrieval.mode]}, the best {retrieval.k}"
    if retrieval.embed_ms:
        first = retrieval.indexes[0]
        yield f"the query was embedded by {first.model} in {retrieval.embed_ms:.1f} ms"
    for one in retrieval.indexes:
        behind = ", which had later rows that were not embedded yet" if one.behind else ""
        of = f" over {one.dataset}{behind}" if one.dataset else " of given vectors"
        rows = f"rows up to version {one.source_version}" if one.dataset else "its rows"
        kept = f", their vectors as of version {one.rows_version}" if one.rows_version else ""
        asked_of = f"version {one.number} of index {one.index}{of} was asked"
        yield f"{asked_of}: {rows}{kept}, {one.served_by}"
    if retrieval.as_of_version:
        yield f"everything was read as of version {retrieval.as_of_version} of the store"
    if retrieval.filter:
        yield f"only rows that match {retrieval.filter[:_SHOWN]} were candidates"
    if retrieval.exact:
        yield "every vector was compared"
    elif retrieval.ef:
        yield f"{retrieval.ef} candidates were looked at in each graph"
    if retrieval.degraded:
        yield f"a part was left out, for the model did not answer: {retrieval.degraded_reason}"
    if _is_fused(retrieval):
        most = f"the best {retrieval.candidates}" if retrieval.candidates else "the best"
        yield f"{most} of each stage were fused: the sum of 1 / (60 + rank) over them is the score"
    if retrieval.rerank in _RERANKS:
        yield f"the best of these were ordered anew by {_RERANKS[retrieval.rerank]}"
    count = retrieval.hits_total or len(retrieval.hits)
    yield f"{count} {'hit' if count == 1 else 'hits'} came of it in {retrieval.search_ms:.1f} ms"


def _is_fused(retrieval: Retrieval) -> bool:
    fused = (each.stage is Stage.FUSION for hit in retrieval.hits for each in hit.stages)
    return len(retrieval.indexes) > 1 or any(fused)


def stages_of(retrieval: Retrieval, rank: int, hit: RetrievedRef) -> tuple[StageScore, ...]:
    """The stages of a hit; where one stage alone ranked them, that one."""
    if hit.stages:
        return hit.stages
    stage = Stage.TEXT if retrieval.mode is SearchMode.TEXT else Stage.VECTOR
    return (StageScore(stage, rank, hit.score),)


def brought_by(stages: tuple[StageScore, ...], index: str) -> tuple[str, ...]:
    """The stages that had it among their candidates, and its index where there were several."""
    names = [each.stage.value for each in stages if each.stage in (Stage.VECTOR, Stage.TEXT)]
    return (*names, *([index] if index else []))


def sentence_of(rank: int, hit: RetrievedRef, stages: tuple[StageScore, ...]) -> str:
    """Why a hit is where it is."""
    found = [
        f"{_STAGES[each.stage]} put it at {each.rank} with {each.score:.6g}" for each in stages
    ]
    of = f" of index {hit.index}" if hit.index else ""
    return f"{hit.key}{of}, place {rank}: {'; '.join(found)}"
