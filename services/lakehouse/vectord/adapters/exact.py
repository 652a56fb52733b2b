"""Every vector compared: the oracle, and the choice where there are few."""

from __future__ import annotations

import numpy.typing as npt
from numpy import bool_

from lakehouse.model.vectors import Distance
from lakehouse.vectord.nearest import Matrix
from lakehouse.vectord.ports import Labels, Vectors

__all__ = ["ExactIndex"]


class ExactIndex:
    """Implements ``ports.SearchIndex``; ``ef`` means nothing to it.

    Args:
        vectors: float32, (rows, dimensions); for cosine of length 1.
    """

    def __init__(self, vectors: Vectors, distance: Distance) -> None:
        self._matrix = Matrix(vectors, distance)

    @property
    def rows(self) -> int:
        return len(self._matrix.vectors)

    def search(
        self, queries: Vectors, k: int, ef: int, allowed: npt.NDArray[bool_] | None = None
    ) -> tuple[Labels, Vectors]:
        return self._matrix.search(queries, k, allowed)

    def vectors(self, labels: Labels) -> Vectors:
        found: Vectors = self._matrix.vectors[labels]
        return found

    def close(self) -> None:
        """Nothing is open."""
