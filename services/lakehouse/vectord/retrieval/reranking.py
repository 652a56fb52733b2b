"""Another order for the best candidates: by their vectors, or by their most similar sentence."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.retrieval import Rerank, Stage, StageScore
from lakehouse.model.vectors import Distance, IndexVersion
from lakehouse.vectord.chunking import sentences
from lakehouse.vectord.image import Image
from lakehouse.vectord.nearest import as_scores, distances
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.retrieval.asked_for import Bounds
from lakehouse.vectord.retrieval.embedding import Embedding
from lakehouse.vectord.retrieval.found import FoundIn, key_of
from lakehouse.vectord.retrieval.fusing import Candidate, Key

__all__ = ["check_comparable", "reordered", "reranked"]

_SENTENCE_TOKENS = 200
_SENTENCES_MAX = 16


def by_vectors(
    candidates: Sequence[Candidate], images: Sequence[Image], queries: Sequence[Vectors]
) -> list[float]:
    """The similarity of each candidate's stored vector to the query's vector.

    Args:
        queries: the query's vector (dimensions) for each of ``images``.
    """
    found = [0.0] * len(candidates)
    for at, (image, query) in enumerate(zip(images, queries, strict=True)):
        places = [place for place, one in enumerate(candidates) if one.at == at]
        if places:
            rows = np.array([candidates[place].row for place in places], np.int64)
            far = distances(image.vectors(rows), query, image.distance)
            for place, score in zip(places, as_scores(far, image.distance).tolist(), strict=True):
                found[place] = score
    return found


def sentences_of(candidates: Sequence[Candidate], images: Sequence[Image]) -> list[list[str]]:
    """The first sentences of each candidate's text; a blank text has none."""
    found = []
    for one in candidates:
        page, at = images[one.at].book.place(one.row)
        found.append(sentences(page.text[at].as_py(), _SENTENCE_TOKENS)[:_SENTENCES_MAX])
    return found


def by_sentences(
    parts: Sequence[Sequence[str]],
    known: dict[str, Vectors],
    query: Vectors,
    distance: Distance,
) -> list[float | None]:
    """The similarity of each candidate's best sentence; None for one without any."""
    found: list[float | None] = []
    for some in parts:
        vectors = np.array([known[each] for each in some], np.float32)
        best = None
        if len(some):
            best = float(as_scores(distances(vectors, query, distance), distance).max())
        found.append(best)
    return found


def reordered(
    candidates: Sequence[Candidate], scores: Sequence[float | None], key: Key
) -> list[Candidate]:
    """By ``scores``, largest first, equal ones by key; those without any last, as they were."""
    scored = [
        (-score, key(one.at, one.row), place)
        for place, (one, score) in enumerate(zip(candidates, scores, strict=True))
        if score is not None
    ]
    rest = [place for place, score in enumerate(scores) if score is None]
    lowest = -max((less for less, _, _ in scored), default=0.0)
    order = [(place, -less) for less, _, place in sorted(scored)]
    order += [(place, lowest) for place in rest]
    found = []
    for rank, (place, score) in enumerate(order, 1):
        one = candidates[place]
        stages = (*one.stages, StageScore(Stage.RERANK, rank, score))
        found.append(Candidate(one.at, one.row, score, stages))
    return found


async def reranked(
    jobs: Executor,
    embedding: Embedding,
    request: c.SearchRequest,
    bounds: Bounds,
    found: Sequence[FoundIn],
    ranked: list[list[Candidate]],
) -> tuple[list[list[Candidate]], str]:
    """In the order that is asked for; or as they are, and why."""
    if request.rerank is Rerank.NONE or not any(ranked):
        return ranked, ""
    queries = [one.embedded.queries for one in found]
    if any(each is None for each in queries):
        return ranked, next(one.embedded.reason for one in found if one.embedded.reason)
    images, key = [one.image for one in found], key_of(found)
    ranked = [some[: bounds.reranked] for some in ranked]

    def look() -> list[list[float]]:
        return [
            by_vectors(some, images, [each[place] for each in queries if each is not None])
            for place, some in enumerate(ranked)
        ]

    if request.rerank is Rerank.VECTORS:
        scores: Sequence[Sequence[float | None]] = await run_in(jobs, look)
    else:
        parts = await run_in(jobs, lambda: [sentences_of(some, images) for some in ranked])
        first = found[0]
        texts = list(dict.fromkeys(each for some in parts for part in some for each in part))
        known, reason = await embedding.texts(first.asked.version, texts)
        if known is None:
            return ranked, reason
        wanted = first.embedded.queries
        assert wanted is not None
        distance = first.image.distance
        scores = [
            by_sentences(some, known, wanted[place], distance) for place, some in enumerate(parts)
        ]
    return [reordered(*each, key) for each in zip(ranked, scores, strict=True)], ""


def check_comparable(request: c.SearchRequest, versions: Sequence[IndexVersion]) -> None:
    """Similarities by two models say nothing of each other; ranks do."""
    if request.rerank is Rerank.NONE:
        return
    first = versions[0]
    for version in versions[1:]:
        same = (version.model, version.profile.distance) == (first.model, first.profile.distance)
        if not same or version.model_digest != first.model_digest:
            raise LakehouseError(
                ErrorKind.INVALID,
                "indexes of different models cannot be ordered anew together",
                model=first.model,
                other=version.model,
                hint="leave rerank out: ranks are fused whatever the models",
            )
