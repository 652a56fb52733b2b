"""How good an answer is against what should be found. Pure.

An answer is keys, best first. A key counts once, where it stands first: of a document several
chunks may be found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lakehouse.contracts.trials import EvalQuery

__all__ = ["Figures", "figures", "gains_of", "mean", "ndcg", "recall", "reciprocal_rank", "spelled"]


def gains_of(query: EvalQuery) -> dict[str, float]:
    """What each key is worth: its grade, or by its place where there are none, the last one 1.
    Keys that are worth nothing are left out."""
    count = len(query.relevant)
    grades = query.grades or [float(count - at) for at in range(count)]
    gains: dict[str, float] = {}
    for key, grade in zip(query.relevant, grades, strict=True):
        gains[key] = max(gains.get(key, 0.0), grade)
    return {key: gain for key, gain in gains.items() if gain > 0.0}


def ndcg(found: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """Normalised discounted cumulative gain of the first ``k``, in [0, 1]: each gain divided by
    ``log2(1 + rank)``, their sum by that of the best order there is. 0 where nothing is worth
    anything."""
    ideal = sorted(gains.values(), reverse=True)[:k]
    best = _discounted(ideal)
    return _discounted([gains.get(key, 0.0) for key in _distinct(found, k)]) / best if best else 0.0


def reciprocal_rank(found: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """One over the rank of the first key of the first ``k`` that is worth something; else 0."""
    for rank, key in enumerate(_distinct(found, k), 1):
        if key in gains:
            return 1.0 / rank
    return 0.0


def recall(found: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """The part of the keys worth something that is among the first ``k``, in [0, 1]."""
    return len(gains.keys() & set(_distinct(found, k))) / len(gains) if gains else 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of many answers, on average; ``queries``: of how many."""

    ndcg: float
    mrr: float
    recall: float
    queries: int


def figures(
    answers: Sequence[Sequence[str]], wanted: Sequence[Mapping[str, float]], k: int
) -> Figures | None:
    """Over those of which is known what they should find; None without any."""
    known = [(found, gains) for found, gains in zip(answers, wanted, strict=True) if gains]
    if not known:
        return None
    return Figures(
        mean([ndcg(found, gains, k) for found, gains in known]),
        mean([reciprocal_rank(found, gains, k) for found, gains in known]),
        mean([recall(found, gains, k) for found, gains in known]),
        len(known),
    )


def _spellings(key: str) -> tuple[str, ...]:
    """How a key may be that is written so: one of a single column without its brackets, and a text
    without its quotes."""
    if key.startswith("["):
        return (key,)
    text = json.dumps([key], ensure_ascii=False, separators=(",", ":"))
    return (key, f"[{key}]", text)


def spelled(found: Sequence[str], wanted: Mapping[str, float]) -> list[str]:
    """Keys that were found, as those who want them write them."""
    known = {spelling: key for key in wanted for spelling in _spellings(key)}
    return [known.get(key, key) for key in found]


def mean(values: Sequence[float]) -> float:
    """0 of none."""
    return math.fsum(values) / len(values) if values else 0.0


def _distinct(found: Sequence[str], k: int) -> list[str]:
    return list(dict.fromkeys(found))[:k]


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
