"""Fusion and reranks, against what was worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lakehouse.model.retrieval import Stage, StageScore
from lakehouse.vectord.retrieval.fusing import Candidate, Leg, fused, single
from lakehouse.vectord.retrieval.reranking import reordered


def key(at: int, row: int) -> tuple[str, str, int]:
    return ("ab"[at], f"e{row // 10}", row % 10)


VECTOR = Leg(0, Stage.VECTOR, [4, 1, 2, 9], [0.9, 0.8, 0.7, 0.1])
TEXT = Leg(0, Stage.TEXT, [2, 7, 4], [12.5, 3.0, 1.0])


def test_the_sums_of_reciprocal_ranks() -> None:
    # By hand: row 4 is first and third, 2 third and first, 7 second, 1 second, 9 fourth.
    #   2 and 4: 1/61 + 1/63 = 124/3843 each, both have been first: 2 goes before 4 by its chunk.
    #   1 and 7: 1/62 each, both second: 1 before 7.  9: 1/64.
    found = fused([VECTOR, TEXT], key, 10)
    assert [one.row for one in found] == [2, 4, 1, 7, 9]
    by_hand = [Fraction(124, 3843)] * 2 + [Fraction(1, 62)] * 2 + [Fraction(1, 64)]
    assert [one.score for one in found] == pytest.approx([float(one) for one in by_hand], rel=1e-15)
    assert found[0].stages == (
        StageScore(Stage.VECTOR, 3, 0.7),
        StageScore(Stage.TEXT, 1, 12.5),
        StageScore(Stage.FUSION, 1, found[0].score),
    )
    assert found[3].stages == (
        StageScore(Stage.TEXT, 2, 3.0),
        StageScore(Stage.FUSION, 4, found[3].score),
    )


def test_one_sum_goes_by_the_best_rank_then_by_index_entity_and_chunk() -> None:
    legs = [
        Leg(0, Stage.VECTOR, [30, 11], [1.0, 1.0]),
        Leg(1, Stage.VECTOR, [30, 10], [1.0, 1.0]),
        Leg(1, Stage.TEXT, [20, 12], [1.0, 1.0]),
    ]
    found = fused(legs, key, 10)
    assert [(one.at, one.row) for one in found] == [
        (0, 30),
        (1, 20),
        (1, 30),
        (0, 11),
        (1, 10),
        (1, 12),
    ]
    for most in range(1, 7):
        assert fused(legs, key, most) == found[:most]


def test_a_row_of_another_index_is_another_candidate() -> None:
    found = fused([Leg(0, Stage.VECTOR, [5], [1.0]), Leg(1, Stage.VECTOR, [5], [1.0])], key, 9)
    assert [(one.at, one.row) for one in found] == [(0, 5), (1, 5)]


def test_nothing_is_fused_to_nothing() -> None:
    assert fused([], key, 5) == []
    assert fused([Leg(0, Stage.TEXT, [], [])], key, 5) == []


def test_fusion_agrees_with_a_slow_one_on_random_legs() -> None:
    rng = np.random.default_rng(19)
    for _ in range(50):
        legs = [
            Leg(at, stage, rng.permutation(30)[: rng.integers(0, 20)].tolist(), [0.0] * 20)
            for at in (0, 1)
            for stage in (Stage.VECTOR, Stage.TEXT)
        ]
        legs = [Leg(leg.at, leg.stage, leg.rows, leg.scores[: len(leg.rows)]) for leg in legs]
        slow = []
        for at in (0, 1):
            for row in range(30):
                ranks = [
                    leg.rows.index(row) + 1 for leg in legs if leg.at == at and row in leg.rows
                ]
                if ranks:
                    total = sum((Fraction(1, 60 + rank) for rank in ranks), Fraction())
                    slow.append((-total, min(ranks), key(at, row), (at, row)))
        wanted = [one[3] for one in sorted(slow)]
        assert [(one.at, one.row) for one in fused(legs, key, 12)] == wanted[:12]


def test_one_leg_stays_as_it_is() -> None:
    found = single(VECTOR, 2)
    assert found == [
        Candidate(0, 4, 0.9, (StageScore(Stage.VECTOR, 1, 0.9),)),
        Candidate(0, 1, 0.8, (StageScore(Stage.VECTOR, 2, 0.8),)),
    ]


def test_a_rerank_goes_by_its_scores_and_keeps_what_came_before() -> None:
    before = fused([VECTOR, TEXT], key, 5)
    found = reordered(before, [0.1, None, 0.5, 0.5, 0.9], key)
    # Rows were 2, 4, 1, 7, 9; row 4 has no score, and 1 goes before 7 by its chunk.
    assert [one.row for one in found] == [9, 1, 7, 2, 4]
    assert [one.score for one in found] == [0.9, 0.5, 0.5, 0.1, 0.1]
    assert found[0].stages == (*before[4].stages, StageScore(Stage.RERANK, 1, 0.9))
    assert [one.stages[-1].rank for one in found] == [1, 2, 3, 4, 5]
