"""What every SearchIndex must do, whatever structure it is. The oracle is arithmetic of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from lakehouse.model.vectors import Distance
from lakehouse.vectord.ports import Labels, SearchIndex, Vectors

__all__ = ["SearchIndexSuite", "clustered", "oracle", "unit"]

Flags = npt.NDArray[np.bool_]

EF: Final = 128
_TOLERANCE: Final = 2e-5
_BASES: Final = 32
_LIMITS: Final = (1, 2, 3, 10, 10, 37, 100, 999, 10_000)


def unit(vectors: Vectors) -> Vectors:
    """Of length 1; what has no length stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)
    return found


def clustered(rng: np.random.Generator, rows: int, dimensions: int) -> Vectors:
    """Vectors near a subspace, as those of texts are."""
    bases = np.random.default_rng(dimensions).normal(size=(min(_BASES, dimensions), dimensions))
    found = rng.normal(size=(rows, len(bases))) @ bases
    found += 0.1 * rng.normal(size=found.shape)
    return found.astype(np.float32)


def oracle(
    vectors: Vectors, query: Vectors, distance: Distance, allowed: Flags | None = None
) -> tuple[Labels, npt.NDArray[np.float64]]:
    """All labels that are allowed, nearest first, with their distances in float64."""
    rows, wanted = vectors.astype(np.float64), query.astype(np.float64)
    if distance is Distance.L2:
        far = ((rows - wanted) ** 2).sum(axis=1)
    else:
        far = -(rows * wanted).sum(axis=1) + (1.0 if distance is Distance.COSINE else 0.0)
    labels = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    order = np.lexsort((labels, far[labels]))
    return labels[order], far[labels][order]


class SearchIndexSuite:
    """``build`` is overridden, and ``reopened`` where a structure can be written and read.

    Attributes:
        recall_min: of all neighbours asked for in the random mixes, so many are found.
        mixes: how many of them.
        rows: of the largest structure built here.
    """

    recall_min: float = 1.0
    mixes: int = 40
    rows: int = 2_400

    def build(self, vectors: Vectors, distance: Distance) -> SearchIndex:
        """A structure over ``vectors`` (for cosine of length 1), labelled in their order."""
        raise NotImplementedError

    def reopened(self, index: SearchIndex) -> SearchIndex:
        """``index`` written and read back, as after a restart."""
        return index

    def made(
        self, rng: np.random.Generator, rows: int, dimensions: int, distance: Distance
    ) -> tuple[Vectors, SearchIndex]:
        vectors = clustered(rng, rows, dimensions)
        if distance is Distance.COSINE:
            vectors = unit(vectors)
        return vectors, self.reopened(self.build(vectors, distance))

    @pytest.mark.parametrize(
        ("distance", "dimensions"),
        [(Distance.COSINE, 64), (Distance.DOT, 24), (Distance.L2, 20)],
    )
    def test_random_mixes_of_filter_and_k(self, distance: Distance, dimensions: int) -> None:
        """Never fewer than min(k, allowed), each of them allowed, nearest first, and rightly told
        how near it is."""
        rng = np.random.default_rng(dimensions)
        vectors, index = self.made(rng, self.rows, dimensions, distance)
        asked = found = 0
        for _ in range(self.mixes):
            k = int(rng.choice(_LIMITS))
            share = float(rng.choice([0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999, 1.0]))
            allowed = None if share == 1.0 else rng.random(self.rows) < share
            query = clustered(rng, 1, dimensions)[0]
            query = unit(query[None])[0] if distance is Distance.COSINE else query
            labels, far = self._asked(index, query, k, allowed)
            best, apart = oracle(vectors, query, distance, allowed)
            wanted = min(k, len(best))
            self._check(labels, far, wanted)
            near = labels[:wanted]
            assert allowed is None or allowed[near].all()
            told = dict(zip(best.tolist(), apart.tolist(), strict=True))
            exact = np.array([told[each] for each in near.tolist()])
            scale = max(1.0, float(np.abs(apart).max(initial=0.0)))
            assert np.allclose(far[:wanted], exact, atol=_TOLERANCE * scale)
            asked += wanted
            found += len(set(near.tolist()) & set(best[:wanted].tolist()))
        assert found >= self.recall_min * asked, f"recall {found / asked:.4f}"
        index.close()

    def _asked(
        self, index: SearchIndex, query: Vectors, k: int, allowed: Flags | None
    ) -> tuple[Labels, Vectors]:
        labels, far = index.search(query[None], k, EF, allowed)
        assert labels.shape == far.shape == (1, k)
        assert labels.dtype == np.int64
        assert far.dtype == np.float32
        return labels[0], far[0]

    def _check(self, labels: Labels, far: Vectors, wanted: int) -> None:
        near = labels[:wanted]
        assert (near >= 0).all()
        assert len(set(near.tolist())) == wanted
        assert (labels[wanted:] == -1).all()
        assert np.isposinf(far[wanted:]).all()
        assert (np.diff(far[:wanted]) >= 0).all()
        ties = np.diff(far[:wanted]) == 0
        assert (np.diff(near)[ties] > 0).all(), "as near as each other, but not by label"

    @pytest.mark.parametrize("rows", [1, 2, 7, 300])
    @pytest.mark.parametrize("dimensions", [1, 3, 8])
    def test_small_structures_find_all(self, rows: int, dimensions: int) -> None:
        rng = np.random.default_rng(rows)
        _, index = self.made(rng, rows, dimensions, Distance.L2)
        assert index.rows == rows
        query = clustered(rng, 1, dimensions)[0]
        for k in (1, rows, rows + 5):
            labels, far = self._asked(index, query, k, None)
            self._check(labels, far, min(k, rows))
        labels, _ = self._asked(index, query, rows, None)
        assert set(labels.tolist()) == set(range(rows))
        one = np.zeros(rows, np.bool_)
        one[rows // 2] = True
        labels, _ = self._asked(index, query, 3, one)
        assert labels.tolist() == [rows // 2, -1, -1]
        labels, far = self._asked(index, query, 3, np.zeros(rows, np.bool_))
        assert labels.tolist() == [-1, -1, -1]
        assert np.isposinf(far).all()
        index.close()

    def test_vectors_are_given_back_as_they_were(self) -> None:
        rng = np.random.default_rng(3)
        vectors, index = self.made(rng, self.rows, 24, Distance.DOT)
        for labels in ([], [0], [5, 3, 5, self.rows - 1], list(range(self.rows))):
            wanted = np.array(labels, np.int64)
            got = index.vectors(wanted)
            assert got.dtype == np.float32
            assert np.array_equal(got, vectors[wanted])
        index.close()

    @pytest.mark.parametrize("distance", list(Distance))
    def test_what_is_as_near_comes_by_label(self, distance: Distance) -> None:
        """One vector many times over, across what a structure would look at."""
        rng = np.random.default_rng(4)
        vectors = clustered(rng, self.rows, 16)
        twins = np.sort(rng.choice(self.rows, self.rows // 3, replace=False))
        vectors[twins] = vectors[twins[0]]
        vectors = unit(vectors) if distance is Distance.COSINE else vectors
        index = self.reopened(self.build(vectors, distance))
        query = vectors[twins[0]] if distance is not Distance.DOT else 100 * vectors[twins[0]]
        allowed = rng.random(self.rows) < 0.5
        for flags in (None, allowed):
            best, _ = oracle(vectors, query, distance, flags)
            labels, far = self._asked(index, query, 20, flags)
            self._check(labels, far, 20)
            if distance is not Distance.DOT:
                assert labels.tolist() == best[:20].tolist()
        index.close()

    def test_nothing_is_as_near_as_nothing(self) -> None:
        """Vectors and queries of zero have no direction, but a place."""
        rng = np.random.default_rng(5)
        vectors = unit(clustered(rng, self.rows, 16))
        vectors[[3, 7]] = 0.0
        index = self.reopened(self.build(vectors, Distance.COSINE))
        labels, far = self._asked(index, np.zeros(16, np.float32), 10, None)
        self._check(labels, far, 10)
        assert np.allclose(far, 1.0)
        labels, far = self._asked(index, vectors[0], self.rows, None)
        self._check(labels, far, self.rows)
        index.close()

    def test_many_queries_at_once_are_as_each_alone(self) -> None:
        rng = np.random.default_rng(6)
        _, index = self.made(rng, self.rows, 16, Distance.L2)
        queries = clustered(rng, 25, 16)
        allowed = rng.random(self.rows) < 0.3
        for flags in (None, allowed):
            labels, far = index.search(queries, 10, EF, flags)
            for at, query in enumerate(queries):
                alone, apart = self._asked(index, query, 10, flags)
                assert labels[at].tolist() == alone.tolist()
                assert far[at].tolist() == apart.tolist()
        labels, far = index.search(queries[:0], 10, EF)
        assert labels.shape == far.shape == (0, 10)
        index.close()

    def test_threads_search_at_once(self) -> None:
        rng = np.random.default_rng(7)
        _, index = self.made(rng, self.rows, 16, Distance.COSINE)
        queries = unit(clustered(rng, 40, 16))
        masks = [None, rng.random(self.rows) < 0.4, rng.random(self.rows) < 0.02]

        def ask(at: int) -> list[int]:
            labels, _ = index.search(queries[at][None], 10, EF, masks[at % 3])
            found: list[int] = labels[0].tolist()
            return found

        alone = [ask(at) for at in range(len(queries))]
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(ask, range(len(queries)))) == alone
        index.close()

    def test_closing_twice_is_closing(self) -> None:
        _, index = self.made(np.random.default_rng(8), 50, 8, Distance.L2)
        index.close()
        index.close()
