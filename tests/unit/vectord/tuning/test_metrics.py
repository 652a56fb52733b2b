"""Figures of retrieval against values that were worked out by hand."""

from __future__ import annotations

import pytest

from lakehouse.contracts.trials import EvalQuery
from lakehouse.vectord.tuning.metrics import (
    figures,
    gains_of,
    ndcg,
    recall,
    reciprocal_rank,
    spelled,
)


def test_ndcg_of_graded_keys_is_the_one_of_the_textbook() -> None:
    # Found: grades 3, 2, 3, 0, 1, 2. DCG = 3/1 + 2/1.58496 + 3/2 + 0 + 1/2.58496 + 2/2.80735
    #   = 3 + 1.26186 + 1.5 + 0.38685 + 0.71241 = 6.86113
    # Best of all known (3, 3, 3, 2, 2, 2, 1) at 6: 3 + 3/1.58496 + 1.5 + 2/2.32193 + 2/2.58496
    #   + 2/2.80735 = 3 + 1.89279 + 1.5 + 0.86135 + 0.77371 + 0.71241 = 8.74026
    gains = {"a": 3.0, "b": 2.0, "c": 3.0, "e": 1.0, "f": 2.0, "g": 3.0, "h": 2.0}
    assert ndcg(["a", "b", "c", "d", "e", "f"], gains, 6) == pytest.approx(0.785, abs=5e-4)


def test_ndcg_with_one_relevant_key_is_the_discount_of_its_rank() -> None:
    gains = {"a": 1.0}
    assert ndcg(["a", "b", "c"], gains, 3) == 1.0
    assert ndcg(["b", "a", "c"], gains, 3) == pytest.approx(0.63093, abs=1e-5)  # 1 / log2(3)
    assert ndcg(["b", "c", "a"], gains, 3) == 0.5  # 1 / log2(4)
    assert ndcg(["b", "c", "a"], gains, 2) == 0.0


def test_the_best_order_has_ndcg_one_and_the_worst_less() -> None:
    gains = {"a": 3.0, "b": 2.0, "c": 1.0}
    assert ndcg(["a", "b", "c"], gains, 3) == 1.0
    # (1 + 2/1.58496 + 3/2) / (3 + 2/1.58496 + 1/2) = 3.76186 / 4.76186
    assert ndcg(["c", "b", "a"], gains, 3) == pytest.approx(0.79000, abs=1e-5)


def test_a_document_counts_once_where_it_stands_first() -> None:
    gains = {"a": 1.0, "b": 1.0}
    assert ndcg(["a", "a", "b"], gains, 2) == 1.0
    assert recall(["a", "a", "b"], gains, 2) == 1.0


def test_the_reciprocal_rank_is_that_of_the_first() -> None:
    gains = {"c": 1.0, "d": 1.0}
    assert reciprocal_rank(["a", "b", "c", "d"], gains, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(["a", "b", "c", "d"], gains, 2) == 0.0


def test_recall_is_the_part_of_what_should_be_found() -> None:
    gains = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert recall(["x", "a", "b"], gains, 3) == 0.5
    assert recall(["x", "a", "b"], gains, 2) == 0.25


def test_grades_say_what_keys_are_worth_and_else_their_order() -> None:
    assert gains_of(EvalQuery("q", relevant=("a", "b", "c"))) == {"a": 3.0, "b": 2.0, "c": 1.0}
    graded = EvalQuery("q", relevant=("a", "b", "c"), grades=(1.0, 5.0, 0.0))
    assert gains_of(graded) == {"a": 1.0, "b": 5.0}
    assert gains_of(EvalQuery("q")) == {}


def test_queries_of_which_nothing_is_known_are_left_out() -> None:
    made = figures([["a"], ["b"], ["x", "c"]], [{"a": 1.0}, {}, {"c": 1.0}], 2)
    assert made is not None
    assert (made.queries, made.mrr, made.recall) == (2, 0.75, 1.0)
    assert made.ndcg == pytest.approx((1.0 + 0.63093) / 2, abs=1e-5)
    assert figures([["a"]], [{}], 2) is None


def test_keys_are_known_without_brackets_and_quotes() -> None:
    wanted = {"7": 1.0, "é": 1.0, '["b"]': 1.0}
    assert spelled(["[7]", '["é"]', '["b"]', "[8]"], wanted) == ["7", "é", '["b"]', "[8]"]
