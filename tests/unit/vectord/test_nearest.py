"""The arithmetic of searches where float32 ends: nothing is found that is not allowed, and nothing
that is allowed is missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lakehouse.model.vectors import Distance
from lakehouse.vectord.nearest import Matrix, too_long

DIMENSIONS = 4
HUGE = 3e19
FAR = [Distance.DOT, Distance.L2]


def matrix(distance: Distance, *huge: int) -> tuple[Any, Matrix]:
    vectors = np.random.default_rng(5).standard_normal((20, DIMENSIONS)).astype(np.float32)
    vectors[list(huge)] = HUGE
    return vectors, Matrix(vectors, distance)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("distance", FAR)
@pytest.mark.parametrize(
    ("huge", "query"), [((7,), 1.0), ((7,), HUGE), ((), 1e20), ((7, 9), -1e20)]
)
@pytest.mark.parametrize("few", [False, True])
def test_what_is_not_allowed_is_never_found(
    distance: Distance, huge: tuple[int, ...], query: float, few: bool
) -> None:
    vectors, made = matrix(distance, *huge)
    allowed = np.arange(20) < 4 if few else np.arange(20) > 0
    allowed[7] = True
    asked = np.full((1, DIMENSIONS), query, np.float32)
    for k in (2, 19, 20, 30):
        labels, far = made.search(asked, k, allowed)
        found = labels[0][labels[0] >= 0]
        assert len(found) == len(set(found.tolist())) == min(k, int(allowed.sum()))
        assert allowed[found].all()
        assert np.isfinite(far[0, : len(found)]).all()
    whole = vectors.astype(np.float64)
    apart = -whole @ asked[0] if distance is Distance.DOT else ((whole - asked) ** 2).sum(axis=1)
    apart = np.clip(apart, -3.4e38, 3.4e38)
    apart[~allowed] = np.inf
    labels, _ = made.search(asked, 2, allowed)
    assert apart[labels[0]] == pytest.approx(np.sort(apart)[:2], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("distance", FAR)
def test_a_huge_row_is_found_where_all_are_asked_for(distance: Distance) -> None:
    _, made = matrix(distance, 7)
    labels, _ = made.search(np.ones((1, DIMENSIONS), np.float32), 20)
    assert sorted(labels[0].tolist()) == list(range(20))


def test_lengths_are_bounded_where_they_count() -> None:
    vectors = np.array([[1e18, 0.0], [1e18, 1e18], [3e38, 3e38]], np.float32)
    assert too_long(vectors, Distance.L2).tolist() == [False, True, True]
    assert too_long(vectors, Distance.DOT).tolist() == [False, True, True]
    assert not too_long(vectors, Distance.COSINE).any()
