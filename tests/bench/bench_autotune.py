"""Tuned settings of graphs against the best of an exhaustive grid: the mixture of 100,000 x 768,
and the 117,000 glosses of WordNet by the embedded model.

The grid is tried on a sample, by the same code as the service's; both choices are then measured in
turns. What was chosen on the sample is built of all rows as well, as the service does where it has
the time, and searched from the ef of the sample up.
"""

from __future__ import annotations

import tempfile
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bench import glosses
from bench.bench_vectors import mixture
from bench.figures import Figure
from lakehouse.kit.clock import SystemClock
from lakehouse.model.vectors import Distance
from lakehouse.vectord.book import ROW_SCHEMA
from lakehouse.vectord.image import Image
from lakehouse.vectord.tuning.grid import Grid
from lakehouse.vectord.tuning.measuring import ground_of, measure, try_shape
from lakehouse.vectord.tuning.trying import Attempt, Job, Tuner

SAMPLE: Final = 5_000
ASKED: Final = 100
K: Final = 10
RECALL: Final = 0.99
ROUNDS: Final = 9
START: Final = (16, 100)
GRID: Final = Grid(
    (8, 16, 32),
    (50, 100, 200),
    (18, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 400),
)

Array = np.ndarray[Any, Any]
CLOCK: Final = SystemClock()


def never() -> bool:
    return False


def image_of(vectors: Array) -> Image:
    count = len(vectors)
    ids, zeros = pa.array([f"{at:07d}" for at in range(count)]), pa.array(np.zeros(count, np.int64))
    texts = pa.array([""] * count, pa.large_string())
    table = pa.Table.from_arrays([ids, zeros, zeros, zeros, texts, ids, zeros], schema=ROW_SCHEMA)
    shape = (vectors.shape[1], Distance.COSINE)
    return Image.of(shape, 1, table, (), lambda rows: vectors[rows])


def tuned(image: Image, queries: Array, folder: str, *, every: bool) -> tuple[Attempt, int, float]:
    """What a run chose, how many graphs it built, and how long it took."""
    asked = Job(image, GRID, START, K, RECALL, every, SAMPLE, 1 << 32, 3_600.0, 0, queries)
    tuner = Tuner(asked, lambda _: None, CLOCK, folder, never)
    began = CLOCK.monotonic()
    ended = tuner.run()
    assert ended.chosen is not None
    assert ended.reached, "no setting reached the recall"
    graphs = len({one.shape for one in tuner.attempts})
    return tuner.attempts[ended.chosen], graphs, CLOCK.monotonic() - began


def compared(image: Image, queries: Array, folder: str, two: tuple[Attempt, Attempt]) -> float:
    """How many times as long a search takes with the one as with the other."""
    rows = np.linspace(0, image.count - 1, SAMPLE).astype(np.int64)
    ground = ground_of(image, rows, queries, K, never)
    graphs = [try_shape(ground, one.shape, folder, CLOCK, never).image for one in two]
    costs = [
        [
            measure(ground, graph, one.ef, 0.0, (CLOCK, never)).cost
            for graph, one in zip(graphs, two, strict=True)
        ]
        for _ in range(ROUNDS)
    ]
    return float(np.median([first / second for first, second in costs]))


def measured(name: str, vectors: Array, queries: Array) -> list[Figure]:
    image = image_of(vectors)
    queries = np.ascontiguousarray(queries[:ASKED])
    with tempfile.TemporaryDirectory() as folder:
        best, all_, seconds_all = tuned(image, queries, folder, every=True)
        chosen, some, seconds = tuned(image, queries, folder, every=False)
        ratio = compared(image, queries, folder, (chosen, best))
        whole = ground_of(image, np.arange(image.count), queries, K, never)
        graph = try_shape(whole, chosen.shape, folder, CLOCK, never)
        for ef in GRID.ef[GRID.ef.index(chosen.ef) :]:
            found = measure(whole, graph.image, ef, 0.0, (CLOCK, never))
            if found.recall >= RECALL:
                break
    m, construction = chosen.shape
    said = f"M {m}, ef_construction {construction}, ef {chosen.ef}"
    other = f"M {best.shape[0]}, ef_construction {best.shape[1]}, ef {best.ef}"
    return [
        Figure(
            f"{name}_over_best", ratio, f"a search with {said}, against the best of all: {other}"
        ),
        Figure(f"{name}_recall", chosen.measured.recall, f"asked for {RECALL}; {SAMPLE:,} rows"),
        Figure(f"{name}_seconds", seconds, f"{some} graphs; all {all_}: {seconds_all:.0f} s"),
        Figure(
            f"{name}_recall_of_all",
            found.recall,
            f"the same graph of {image.count:,} rows, ef {ef}",
        ),
        Figure(f"{name}_p50_us", found.p50_ms * 1000.0, "a search there, in process"),
    ]


def run() -> list[Figure]:
    figures = measured("mixture", *mixture())
    if not glosses.FOLDER.is_dir():
        note = "wordnet-base is not installed: not measured"
        return [*figures, Figure("glosses_missing", 1.0, note)]
    rows = np.array(glosses.vectors(glosses.texts()))
    asked = np.zeros(len(rows), np.bool_)
    asked[np.linspace(0, len(rows) - 1, ASKED).astype(np.int64)] = True
    return [*figures, *measured("glosses", rows[~asked], rows[asked])]
