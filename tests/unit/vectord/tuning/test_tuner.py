"""Tuned settings against the best of an exhaustive grid over the same rows.

Both settings are measured again, in turns, so that nothing but the choice is held to account.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.kit.clock import SystemClock
from lakehouse.model.vectors import Distance
from lakehouse.vectord.book import ROW_SCHEMA
from lakehouse.vectord.image import Image
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.tuning import trying
from lakehouse.vectord.tuning.grid import Grid
from lakehouse.vectord.tuning.measuring import ground_of, held_out, measure, try_shape
from lakehouse.vectord.tuning.trying import Attempt, Ended, Job, Tuner, rows_within

RECALL = 0.97
GRID = Grid((4, 8, 16), (30, 60, 120), (18, 32, 48, 72, 110, 160))


def mixture(rows: int, dimensions: int) -> Vectors:
    """That of the design, cut to size: centres, each with a subspace of its own."""
    chance = np.random.default_rng(7)
    centres = chance.standard_normal((rows // 50, dimensions))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    bases = chance.standard_normal((8, 16, dimensions))
    bases /= np.linalg.norm(bases, axis=2, keepdims=True)
    of = chance.integers(0, 8, len(centres))
    picked = chance.integers(0, len(centres), rows)
    weights = chance.standard_normal((rows, 16)) / 4.0
    drawn = 0.8 * centres[picked] + 0.8 * np.einsum("nk,nkd->nd", weights, bases[of[picked]])
    drawn += 0.02 * chance.standard_normal((rows, dimensions))
    return unit(drawn)


def scattered(rows: int, dimensions: int) -> Vectors:
    """Without any structure: as hard as it gets for a graph."""
    return unit(np.random.default_rng(8).standard_normal((rows, dimensions)))


def unit(rows: Any) -> Vectors:
    made: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def image_of(vectors: Vectors) -> Image:
    count = len(vectors)
    ids, zeros = pa.array([f"{at:06d}" for at in range(count)]), pa.array([0] * count)
    texts = pa.array([""] * count, pa.large_string())
    columns = [ids, zeros, zeros, zeros, texts, ids, zeros]
    table = pa.Table.from_arrays(columns, schema=ROW_SCHEMA)
    shape = (vectors.shape[1], Distance.COSINE)
    return Image.of(shape, 1, table, (), lambda rows: vectors[rows])


def run(image: Image, folder: Path, **fields: Any) -> tuple[Ended, list[Attempt]]:
    asked: dict[str, Any] = {
        "grid": GRID,
        "start": (8, 60),
        "k": 10,
        "recall": RECALL,
        "every": False,
        "rows_max": image.rows,
        "bytes_max": 1 << 30,
        "budget_seconds": 600.0,
        "samples": 30,
        **fields,
    }
    tuner = Tuner(Job(image, **asked), lambda _: None, SystemClock(), str(folder), lambda: False)
    return tuner.run(), tuner.attempts


def compared(image: Image, one: Attempt, other: Attempt, folder: Path) -> float:
    """How many times as long a search takes with ``one`` as with ``other``: the median of several
    rounds, in turns."""
    never, clock = lambda: False, SystemClock()
    asked = held_out(image, 30)
    rest = np.setdiff1d(np.arange(image.count), asked)
    ground = ground_of(image, rest, image.vectors(asked), 10, never)
    graphs = [try_shape(ground, each.shape, str(folder), clock, never) for each in (one, other)]
    costs = [
        [
            measure(ground, graph.image, each.ef, 0.0, (clock, never)).cost
            for graph, each in zip(graphs, (one, other), strict=True)
        ]
        for _ in range(9)
    ]
    return float(np.median([first / second for first, second in costs]))


@pytest.mark.parametrize("make", [mixture, scattered])
def test_the_choice_is_within_a_tenth_of_the_best_of_all(make: Any, tmp_path: Path) -> None:
    image = image_of(make(2_000, 32))
    every, all_ = run(image, tmp_path, every=True)
    assert (every.ended, len(all_)) == ("all", GRID.settings)
    reached = [one for one in all_ if one.measured.recall >= RECALL]
    best = min(reached, key=lambda one: one.measured.cost)
    ended, tried = run(image, tmp_path)
    assert ended.reached
    assert ended.chosen is not None
    chosen = tried[ended.chosen]
    assert chosen.measured.recall >= RECALL
    ratio = compared(image, chosen, best, tmp_path)
    print(chosen.shape, chosen.ef, best.shape, best.ef, ratio, len(tried), len(all_))
    assert ratio <= 1.1
    assert len(tried) < len(all_)


def test_a_graph_is_the_same_whenever_it_is_tried(tmp_path: Path) -> None:
    image = image_of(scattered(600, 16))
    one = Grid((8,), (40,), (20, 30))
    first, second = (run(image, tmp_path, grid=one, every=True)[1] for _ in range(2))
    assert [a.measured.recall for a in first] == [b.measured.recall for b in second]
    for a, b in zip(first[0].measured.found, second[0].measured.found, strict=True):
        assert np.array_equal(a, b)


def test_asked_rows_are_not_in_the_graph(tmp_path: Path) -> None:
    image = image_of(scattered(300, 16))
    _, tried = run(image, tmp_path, grid=Grid((8,), (40,), (200,)), samples=500)
    assert (tried[0].queries, tried[0].rows) == (30, 270)
    # Its own row would be the nearest to each of them.
    own = np.ascontiguousarray(image.vectors(np.arange(300)))
    _, tried = run(image, tmp_path, grid=Grid((8,), (40,), (200,)), queries=own)
    assert (tried[0].queries, tried[0].rows) == (300, 300)
    assert tried[0].measured.recall > 0.95


def test_what_a_sample_says_is_settled_on_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(scattered(3_000, 24))
    # As if there were time for few rows in each of many graphs.
    monkeypatch.setattr(trying, "rows_within", lambda *_: 400)
    ended, tried = run(image, tmp_path, rows_max=0, recall=0.9)
    assert ended.reached
    assert ended.chosen is not None
    chosen = tried[ended.chosen]
    assert (chosen.sampled, chosen.rows) == (False, 2_970)
    assert chosen.measured.recall >= 0.9
    sample = [one for one in tried if one.sampled]
    assert {one.rows for one in sample} == {400}
    assert {one.shape for one in tried[len(sample) :]} == {chosen.shape}
    # Without the time for it, the sample's choice stands, and says what it is.
    ended, tried = run(image, tmp_path, rows_max=0, recall=0.9, bytes_max=1)
    assert ended.chosen is not None
    assert tried[ended.chosen].sampled


def test_one_row_is_enough(tmp_path: Path) -> None:
    image = image_of(scattered(1, 8))
    ended, tried = run(image, tmp_path)
    assert ended.reached
    assert [(one.rows, one.queries, one.measured.recall) for one in tried[:1]] == [(1, 1, 1.0)]
    ended, tried = run(image, tmp_path, exact_rows_max=5)
    assert (ended, len(tried)) == (Ended("all", 0, True), 1)
    assert (tried[0].shape, tried[0].measured.recall) == ((0, 0), 1.0)


def test_nothing_goes_on_when_the_node_stops(tmp_path: Path) -> None:
    image = image_of(scattered(300, 16))
    asked = Job(image, GRID, (8, 60), 10, 0.9, False, 300, 1 << 30, 600.0, 20)
    tuner = Tuner(asked, lambda _: None, SystemClock(), str(tmp_path), lambda: True)
    assert tuner.run() == Ended("time", None, False)


def test_rows_are_as_many_as_there_is_time_for() -> None:
    assert rows_within(100_000, 1_000, 0.001, 60.0) == 100_000
    some = rows_within(100_000, 1_000, 1.0, 60.0)
    assert 2_000 < some < 60_000
    assert rows_within(100_000, 1_000, 1.0, 120.0) > some
    assert rows_within(100_000, 1_000, 100.0, 60.0) == 2_000
