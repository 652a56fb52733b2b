"""Reciprocal rank fusion: several rankings of candidates made one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lakehouse.model.retrieval import Stage, StageScore

__all__ = ["Candidate", "Leg", "fused", "single"]

_K: Final = 60


@dataclass(frozen=True, slots=True)
class Leg:
    """What one stage found in one index, best first.

    Attributes:
        at: which of the indexes that are searched together.
        rows: of that index's image, each once.
    """

    at: int
    stage: Stage
    rows: Sequence[int]
    scores: Sequence[float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of an index, with what the stages said of it."""

    at: int
    row: int
    score: float
    stages: tuple[StageScore, ...]


Key = Callable[[int, int], tuple[str, str, int]]
"""Index, entity and chunk of a row: what tells apart candidates that are as good as each other."""


def fused(legs: Sequence[Leg], key: Key, most: int) -> list[Candidate]:
    """The ``most`` best by the sum of ``1 / (60 + rank)`` over the legs that have them; those of
    one sum by their best rank, then by key."""
    sums: dict[tuple[int, int], float] = {}
    firsts: dict[tuple[int, int], int] = {}
    for leg in legs:
        at = leg.at
        for rank, row in enumerate(leg.rows, 1):
            place = (at, row)
            sums[place] = sums.get(place, 0.0) + 1.0 / (_K + rank)
            firsts[place] = min(rank, firsts.get(place, rank))
    order = sorted((-total, firsts[place], place) for place, total in sums.items())
    best = order[:most]
    # Those that are as good as the last one may belong before it, by their keys.
    while len(best) < len(order) and order[len(best)][:2] == best[-1][:2]:
        best.append(order[len(best)])
    best.sort(key=lambda one: (one[0], one[1], key(*one[2])))
    said = _said(legs, {place for _, _, place in best[:most]})
    found = []
    for rank, (less, _, place) in enumerate(best[:most], 1):
        stages = (*said[place], StageScore(Stage.FUSION, rank, -less))
        found.append(Candidate(*place, -less, stages))
    return found


def _said(
    legs: Sequence[Leg], places: set[tuple[int, int]]
) -> dict[tuple[int, int], list[StageScore]]:
    """What each leg says of ``places``."""
    said: dict[tuple[int, int], list[StageScore]] = {place: [] for place in places}
    for leg in legs:
        for rank, row in enumerate(leg.rows, 1):
            if (leg.at, row) in said:
                said[leg.at, row].append(StageScore(leg.stage, rank, leg.scores[rank - 1]))
    return said


def single(leg: Leg, most: int) -> list[Candidate]:
    """The ``most`` best of one leg, as they are."""
    return [
        Candidate(leg.at, row, score, (StageScore(leg.stage, rank, score),))
        for rank, (row, score) in enumerate(zip(leg.rows[:most], leg.scores[:most], strict=True), 1)
    ]
