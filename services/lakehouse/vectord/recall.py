"""What a structure finds of what is there."""

from __future__ import annotations

from typing import Final

import numpy as np

from lakehouse.model.vectors import Profile
from lakehouse.vectord.nearest import Matrix
from lakehouse.vectord.ports import SearchIndex, Vectors

__all__ = ["recall_of"]

_ASKED: Final = 32
_NEAREST: Final = 10


def recall_of(index: SearchIndex, vectors: Vectors, profile: Profile) -> float:
    """The part of the ten nearest of some of its rows that ``index`` over ``vectors`` finds, asked
    as searches ask it."""
    if not len(vectors):
        return 1.0
    some = np.linspace(0, len(vectors) - 1, min(_ASKED, len(vectors))).astype(np.int64)
    queries = np.ascontiguousarray(vectors[some])
    near, _ = index.search(queries, _NEAREST, profile.ef_search)
    true, _ = Matrix(vectors, profile.distance).search(queries, _NEAREST)
    found = [len(set(a[a >= 0]) & set(b[b >= 0])) for a, b in zip(near, true, strict=True)]
    return sum(found) / max(1, int((true >= 0).sum()))
