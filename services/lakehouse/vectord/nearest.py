"""Which rows of a matrix are nearest: the arithmetic that every search ends in.

A rough pass in float32 leaves few candidates; these are compared again in float64, a row at a time,
and rounded to float32. So the same two vectors are as near to each other in every place of every
matrix, whatever structure found them, and equal ones are told apart by their place alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from lakehouse.model.vectors import Distance
from lakehouse.vectord.ports import Labels, Vectors

__all__ = ["LENGTH_MAX", "Matrix", "as_scores", "blank", "distances", "too_long"]

Flags = npt.NDArray[np.bool_]

LENGTH_MAX: Final = 1e18
"""Of a vector that is not scaled to length 1: what is made of two of them fits in a float32."""

# Of float32 arithmetic over up to 8,192 coordinates, relative to the lengths of both vectors.
_ROUGHNESS: Final = 2e-6
_BLOCK_ENTRIES: Final = 4_000_000
_GATHER_SHARE: Final = 4


def distances(vectors: Vectors, query: Vectors, distance: Distance) -> Vectors:
    """From ``query`` (dimensions) to each row, smaller for nearer: 1 - cosine (of vectors of length
    1), minus the product, the squared distance."""
    rows = vectors.astype(np.float64)
    wanted = query.astype(np.float64)
    if distance is Distance.COSINE:
        found = np.einsum("ij,j->i", rows, wanted)
        np.subtract(1.0, found, out=found)
        np.maximum(found, 0.0, out=found)
        np.minimum(found, 2.0, out=found)
        near: Vectors = found.astype(np.float32)
        return near
    if distance is Distance.L2:
        rows -= wanted
        found = np.einsum("ij,ij->i", rows, rows)
    else:
        found = np.einsum("ij,j->i", rows, wanted)
        np.negative(found, out=found)
    # Infinitely far is what is not there (``blank``); whatever is there is nearer.
    most = float(np.finfo(np.float32).max)
    rounded: Vectors = found.clip(-most, most).astype(np.float32)
    return rounded


def too_long(vectors: Vectors, distance: Distance) -> Flags:
    """One flag a row: whether it is longer than ``LENGTH_MAX``. By cosine lengths do not count."""
    if distance is Distance.COSINE:
        return np.zeros(len(vectors), np.bool_)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    longer: Flags = lengths > LENGTH_MAX
    return longer


def as_scores(found: Vectors, distance: Distance) -> Vectors:
    """Larger for nearer, as ``model.vectors.Distance`` says."""
    scores: Vectors = np.float32(1.0) - found if distance is Distance.COSINE else -found
    return scores


def blank(queries: int, k: int) -> tuple[Labels, Vectors]:
    """What nothing was found in: labels of -1, infinitely far."""
    return np.full((queries, k), -1, np.int64), np.full((queries, k), np.inf, np.float32)


class Matrix:
    """Vectors one below the other, and every one of them compared.

    Args:
        vectors: float32, (rows, dimensions), of length 1 for cosine; may be a strided view.

    Attributes:
        rank: of each row, where those that are as near as each other are not told apart by their
            position; None where they are.
    """

    __slots__ = ("_distance", "_squares", "rank", "vectors")

    def __init__(self, vectors: Vectors, distance: Distance) -> None:
        self.vectors = vectors
        self._distance = distance
        self._squares: Vectors | None = None
        self.rank: Labels | None = None

    def search(
        self, queries: Vectors, k: int, allowed: Flags | None = None
    ) -> tuple[Labels, Vectors]:
        """As ``ports.SearchIndex.search``: positions of the min(k, allowed) nearest, those that are
        as near as each other by position, or by ``rank``."""
        labels, found = blank(len(queries), k)
        for at, (best, far) in enumerate(self.ranked(queries, k, allowed)):
            count = min(k, len(best))
            labels[at, :count], found[at, :count] = best[:k], far[:k]
        return labels, found

    def ranked(
        self, queries: Vectors, k: int, allowed: Flags | None = None
    ) -> Iterator[tuple[Labels, Vectors]]:
        """Positions and distances for each query: the ``k`` nearest, and all that are as near as
        the last of them."""
        places = None if allowed is None else np.flatnonzero(allowed)
        total = len(self.vectors) if places is None else len(places)
        if not total:
            for _ in queries:
                yield np.empty(0, np.int64), np.empty(0, np.float32)
            return
        rows = self.vectors
        if places is not None and total * _GATHER_SHARE < len(rows):
            rows, allowed = rows[places], None
        else:
            places = None
        for at, near in self._rough(rows, queries, places):
            if allowed is not None:
                near[~allowed] = np.inf
            chosen = _candidates(near, min(k, total), self.slack(queries[at]))
            if allowed is not None:
                # Of lengths beyond what float32 holds all is infinite, whether allowed or not.
                chosen = chosen[allowed[chosen]]
            yield self.settle(queries[at], chosen if places is None else places[chosen], k)

    def settle(self, query: Vectors, places: Labels, k: int) -> tuple[Labels, Vectors]:
        """The ``k`` nearest of ``places`` (rising), and all that are as near as the last of them,
        with their exact distances."""
        vectors, most = self.vectors, _BLOCK_ENTRIES // self.vectors.shape[1]
        if self.rank is not None:
            places = places[self.rank[places].argsort()]
        if len(places) <= most:
            found = distances(vectors[places], query, self._distance)
        else:
            blocks = [places[at : at + most] for at in range(0, len(places), most)]
            found = np.concatenate([distances(vectors[b], query, self._distance) for b in blocks])
        order = found.argsort(kind="stable")
        places, found = places[order], found[order]
        if len(order) > k:
            count = int(found.searchsorted(found[k - 1], side="right"))
            return places[:count], found[:count]
        return places, found

    def slack(self, query: Vectors) -> float:
        """How far a distance in float32 arithmetic may be off."""
        if self._distance is Distance.COSINE:
            return _ROUGHNESS * 2.0
        length = float(np.linalg.norm(query))
        longest = float(np.sqrt(self._squared().max()))
        if self._distance is Distance.DOT:
            return _ROUGHNESS * 2.0 * length * longest
        return _ROUGHNESS * (length + longest) ** 2

    def _squared(self) -> Vectors:
        if self._squares is None:
            self._squares = np.einsum("ij,ij->i", self.vectors, self.vectors)
        return self._squares

    def _rough(
        self, rows: Vectors, queries: Vectors, places: Labels | None
    ) -> Iterator[tuple[int, Vectors]]:
        """Each query's number, and about how far each of ``rows`` is."""
        at_once = max(1, _BLOCK_ENTRIES // max(1, len(rows)))
        base: Vectors | None = None
        if self._distance is Distance.L2:
            base = self._squared() if places is None else self._squared()[places]
        for start in range(0, len(queries), at_once):
            block = queries[start : start + at_once]
            # One query at a time is a product of a matrix and a vector, which is twice as fast.
            products = (rows @ block[0])[None, :] if len(block) == 1 else block @ rows.T
            for offset in range(len(block)):
                near = -products[offset]
                if base is not None:
                    near = base + 2.0 * near + float(block[offset] @ block[offset])
                elif self._distance is Distance.COSINE:
                    near += 1.0
                yield start + offset, near


def _candidates(near: Vectors, k: int, slack: float) -> Labels:
    """Places that may be among the ``k`` nearest, all that are as near as the last one included,
    and those of which nothing is known."""
    if k >= len(near):
        return np.arange(len(near))
    bound = np.partition(near, k - 1)[k - 1]
    with np.errstate(invalid="ignore"):
        return np.flatnonzero(~(near > bound + np.float32(slack)))
