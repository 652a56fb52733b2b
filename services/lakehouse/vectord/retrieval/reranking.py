"""Another order for the best candidates: by their vectors, or by their most similar sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from lakehouse.model.retrieval import Stage, StageScore
from lakehouse.model.vectors import Distance
from lakehouse.vectord.chunking import sentences
from lakehouse.vectord.image import Image
from lakehouse.vectord.nearest import as_scores, distances
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.retrieval.fusing import Candidate, Key

__all__ = ["by_sentences", "by_vectors", "reordered", "sentences_of"]

_SENTENCE_TOKENS = 200
_SENTENCES_MAX = 16

Embed = Callable[[list[str]], Awaitable[Vectors | None]]
"""Vectors of texts, as they are searched with; None where they cannot be had."""


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
