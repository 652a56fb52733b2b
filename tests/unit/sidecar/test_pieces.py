"""How texts are cut, and what of an answer is believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_sidecar.checks import canary_sha256, same_direction, wrong_with
from lakehouse_sidecar.pieces import Pace, cost, order, take

texts_of_any_length = st.lists(st.integers(1, 400).map("x".__mul__), min_size=1, max_size=60)


@given(texts_of_any_length, st.floats(1, 5000), st.integers(1, 20))
def test_pieces_hold_every_text_once_within_the_budget(
    texts: list[str], budget: float, texts_max: int
) -> None:
    left, seen = order(texts), []
    while left:
        count = take(texts, left, budget, texts_max)
        piece, left = left[:count], left[count:]
        assert 1 <= len(piece) <= texts_max
        assert len(piece) == 1 or sum(cost(texts[place]) for place in piece) <= budget
        seen += piece
    assert sorted(seen) == list(range(len(texts)))


def test_the_pace_follows_what_is_measured() -> None:
    pace = Pace()
    for _ in range(30):
        pace.measured(5000, 0.5)
    assert pace.rate == pytest.approx(10_000, rel=0.01)
    pace.measured(0, 1.0)
    assert pace.rate == pytest.approx(10_000, rel=0.01)


GOOD = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (GOOD, ""),
        (None, "different lengths"),
        (np.ones(3, np.float32), "different lengths"),
        (np.ones((3, 3), np.float32), "more or fewer"),
        (np.ones((2, 4), np.float32), "another dimension"),
        (np.array([[1, 2, 3], [1, np.nan, 3]], np.float32), "no numbers"),
        (np.array([[1, 2, 3], [1, np.inf, 3]], np.float32), "no numbers"),
        (np.array([[1, 2, 3], [0, 0, 0]], np.float32), "zero"),
    ],
)
def test_what_cannot_be_right_is_told(vectors: np.ndarray | None, says: str) -> None:
    assert says in wrong_with(vectors, 2, 3)
    assert bool(wrong_with(vectors, 2, 3)) == bool(says)


def test_the_canary_bears_rounding_and_length_and_nothing_else() -> None:
    seen = np.random.default_rng(7).normal(size=64).astype(np.float32)
    near = seen * np.float32(2) + np.float32(1e-7)
    other = np.roll(seen, 1)
    assert same_direction(seen, near)
    assert not same_direction(seen, other)
    assert not same_direction(seen, seen[:32])
    assert canary_sha256(seen) == canary_sha256(near) != canary_sha256(other)
