"""Images as values: exchanged beneath threads that search, planned, folded, and what they cost."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.model.vectors import (
    Distance,
    IndexVersion,
    Profile,
    Structure,
    VectorBackend,
    VersionState,
)
from lakehouse.vectord.adapters import hnsw
from lakehouse.vectord.adapters.exact import ExactIndex
from lakehouse.vectord.book import sorted_rows
from lakehouse.vectord.image import Image, Part
from lakehouse.vectord.planning import merge_of, mergeable, plan_of, should_fold, tail_max
from lakehouse.vectord.recall import recall_of
from lakehouse.vectord.structures import LABELS

DIMENSIONS = 8
PROFILE = Profile("p", exact_rows_max=10)
VERSION = IndexVersion(
    1, VersionState.READY, PROFILE, "m", "d", DIMENSIONS, "v", "i", datetime(2026, 1, 1, tzinfo=UTC)
)


def vectors_of(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


def rows_of(first: int, count: int, seed: int = 0) -> pa.Table:
    flat = pa.array(vectors_of(count, seed + first).ravel())
    zeros = pa.array([0] * count, pa.int64())
    return pa.table(
        {
            "entity": [f"[{at:06d}]" for at in range(first, first + count)],
            "chunk": zeros,
            "start": zeros,
            "end": zeros,
            "text": [f"row {at}" for at in range(first, first + count)],
            "digest": ["d"] * count,
            "version": zeros,
            "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS),
        }
    )


def image_of(count: int) -> Image:
    empty = sorted_rows(rows_of(0, 0))
    return Image.of((DIMENSIONS, Distance.L2), 0, empty).applied(rows_of(0, count), (), 1)


def with_part(image: Image, rows: Any, dropped: Any = ()) -> Image:
    rows = image.book.in_order(np.asarray(rows, np.int64))
    index = ExactIndex(image.vectors(rows), image.distance)
    return image.rebuilt([Part(Structure("hnsw", "", len(rows)), index, rows)], dropped)


def test_eight_threads_search_while_images_are_exchanged(tmp_path: Path) -> None:
    held = [image_of(300)]
    ended = threading.Event()
    wrong: list[str] = []
    asked = [0] * 8

    def ask(number: int) -> None:
        chance = np.random.default_rng(number)
        while not ended.is_set():
            image = held[0]
            query = chance.standard_normal((1, DIMENSIONS)).astype(np.float32)
            rows, far = image.search(query, 20, 0)[0]
            whole = ((image.vectors(rows) - query) ** 2).sum(axis=1)
            keys = {image.book.key(int(row)) for row in rows}
            if len(keys) != 20 or not image.live[rows].all() or not np.allclose(whole, far, 1e-3):
                wrong.append(f"{len(keys)} rows at {image.head}")
            asked[number] += 1

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(30):
            image = held[0]
            gone = [(f"[{at:06d}]", 0) for at in range(turn * 8, turn * 8 + 8)]
            image = image.applied(rows_of(300 + turn * 12, 12, turn), gone, image.head + 1)
            if turn % 3 == 0:
                rows = image.tail_rows[image.live[image.tail_rows]]
                shape = (image.vectors(rows), Distance.L2, (8, 40), str(tmp_path))
                rows = image.book.in_order(rows)
                index = hnsw.build_graph(image.vectors(rows), *shape[1:])
                image = image.rebuilt([Part(Structure("hnsw", "", len(rows)), index, rows)], ())
            if turn % 10 == 9:
                image = image.folded()
            held[0] = image
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert min(asked) > 0
    assert held[0].rows == 300 + 30 * 12 - 30 * 8


def test_nothing_is_built_of_few_rows_or_a_short_tail() -> None:
    assert plan_of(image_of(10), PROFILE, 0) is None
    assert plan_of(image_of(30), PROFILE, 30) is None
    plan = plan_of(image_of(30), PROFILE, 29)
    assert plan is not None
    assert [len(rows) for rows in plan.rows] == [30]


def test_small_and_worn_parts_are_built_again_with_the_tail() -> None:
    image = with_part(image_of(100), range(100))
    image = image.applied(rows_of(100, 10), (), 2)
    assert plan_of(image, PROFILE, 10) is None
    plan = plan_of(image, PROFILE, 9)
    assert plan is not None
    assert (len(plan.rows[0]), plan.dropped) == (10, ())
    grown = image.applied(rows_of(110, 50), (), 3)
    plan = plan_of(grown, PROFILE, 9)
    assert plan is not None
    assert len(plan.rows[0]) == 160
    worn = image.applied(None, [(f"[{at:06d}]", 0) for at in range(40)], 3)
    plan = plan_of(worn, PROFILE, 50)
    assert plan is not None
    assert len(plan.rows[0]) == 70


def test_parts_stay_few() -> None:
    image = image_of(1000)
    for at in range(4):
        image = with_part(image, range(at * 240, at * 240 + 240))
    plan = plan_of(image, PROFILE, 30)
    assert plan is not None
    assert len(plan.dropped) == 1
    assert len(plan.rows[0]) == 240 + 40


def test_a_large_graph_is_built_in_two_pieces_and_a_table_in_one() -> None:
    image = image_of(20_000)
    plan = plan_of(image, PROFILE, 1)
    assert plan is not None
    assert [len(rows) for rows in plan.rows] == [10_000, 10_000]
    plan = plan_of(image, replace(PROFILE, vector_backend=VectorBackend.LANCE), 1)
    assert plan is not None
    assert len(plan.rows) == 1


def test_graphs_are_merged_unless_little_comes_of_it() -> None:
    image = image_of(1000)
    for rows in (range(300), range(300, 900)):
        image = with_part(image, rows)
    assert not mergeable(image, VERSION), "nobody knows what their labels are"
    labels = rows_of(0, 0).select(LABELS)
    image = replace(image, parts=tuple(replace(part, labels=labels) for part in image.parts))
    assert mergeable(image, VERSION)
    assert not mergeable(image, replace(VERSION, state=VersionState.BUILDING))
    lance = replace(PROFILE, vector_backend=VectorBackend.LANCE)
    assert not mergeable(image, replace(VERSION, profile=lance))
    assert not mergeable(replace(image, parts=image.parts[:1]), VERSION)
    plan = merge_of(image)
    assert (plan.dropped, plan.grown) == (image.parts, image.parts[1])
    assert plan.rows[0].tolist() == [*range(300), *range(900, 1000)]
    assert plan.labelled[0].tolist() == [*range(300, 900), *range(300), *range(900, 1000)]
    gone = [(f"[{at:06d}]", 0) for at in [*range(289), *range(900, 1000)]]
    few = image.applied(None, gone, 3)
    assert not mergeable(few, VERSION), "eleven rows beside six hundred"
    assert merge_of(few).rows[0].tolist() == [*range(289, 300)]


def test_the_tail_may_be_longer_while_much_is_to_come() -> None:
    image = with_part(image_of(500), range(300))
    building = replace(VERSION, state=VersionState.BUILDING)
    assert tail_max(image, building, 50, quiet=True) == 300
    assert tail_max(image, VERSION, 50, quiet=False) == 50
    assert tail_max(image, VERSION, 10_000, quiet=False) == 100
    assert tail_max(image_of(9_000), VERSION, 10_000, quiet=True) == 1_000


def test_rows_are_numbered_anew_when_many_were_appended() -> None:
    image = image_of(10_001)
    assert should_fold(image)
    folded = image.folded()
    assert not should_fold(folded)
    assert folded.rows == 10_001
    assert folded.rows_of("[000007]") == [7]


def test_recall_is_told_of_what_is_found() -> None:
    vectors = vectors_of(500, 3)

    class Half(ExactIndex):
        """Finds nothing among the second half."""

        def search(self, queries: Any, k: int, ef: int, allowed: Any = None) -> Any:
            return super().search(queries, k, ef, np.arange(500) < 250)

    profile = replace(PROFILE, distance=Distance.L2)
    assert recall_of(ExactIndex(vectors, Distance.L2), vectors, profile) == 1.0
    assert 0.3 < recall_of(Half(vectors, Distance.L2), vectors, profile) < 0.7


@pytest.mark.parametrize("distance", list(Distance))
def test_the_same_rows_make_the_same_bytes(tmp_path: Path, distance: Distance) -> None:
    vectors = vectors_of(400, 4)
    one, other = (hnsw.build_graph(vectors, distance, (8, 40), str(tmp_path)) for _ in range(2))
    assert one.content[:] == other.content[:]
    assert not list(tmp_path.iterdir()), "a graph leaves nothing in its folder"
