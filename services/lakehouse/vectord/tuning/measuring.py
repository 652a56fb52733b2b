"""Graphs of other settings over the same rows, searched as searches do it, and what that costs.

All of it blocks, and is called in the one thread that trials have. What decides between settings is
the processor time of a search: its shortest of several, held against that of a piece of work that
is always the same and done in between, for a busy machine makes both slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, thread_seconds
from lakehouse.model.vectors import Structure
from lakehouse.vectord.image import Image, Part
from lakehouse.vectord.ports import Labels, Vectors
from lakehouse.vectord.tuning.grid import Shape

__all__ = [
    "Enough",
    "Ground",
    "Measured",
    "Tried",
    "drawn",
    "ground_of",
    "held_out",
    "measure",
    "try_shape",
]

Stop = Callable[[], bool]

PASSES: Final = 3
_EXACT_AT_ONCE: Final = 8
_HELD_OUT_SHARE: Final = 10
_PIECE_ROWS: Final = 64


class Enough(Exception):
    """The time is over, or the node stops."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What settings are tried on.

    Attributes:
        image: the rows, none of them in a structure.
        queries: float32, (queries, dimensions), as they are searched for.
        truth: of each query the rows that are nearest, ``k`` of them.
    """

    image: Image
    queries: Vectors
    truth: tuple[Labels, ...]
    k: int

    def compare_some(self, at: int) -> Vectors:
        """The piece of work: as a search does, vectors that lie apart are compared with query
        ``at``."""
        rows = np.linspace(at, self.image.count - 1, _PIECE_ROWS).astype(np.int64)
        near: Vectors = np.einsum("ij,j->i", self.image.tail.vectors[rows], self.queries[at])
        return near


@dataclass(frozen=True, slots=True)
class Measured:
    """``cost``: of one search, on average, in pieces of work (``Ground.compare_some``), of which
    one took ``piece_ms`` of processor time. ``found``: of each query its rows."""

    recall: float
    cost: float
    piece_ms: float
    p50_ms: float
    p99_ms: float
    found: tuple[Labels, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A graph over all rows of a ground."""

    image: Image
    seconds: float
    size_bytes: int


def drawn(image: Image, count: int) -> Labels:
    """Live rows, evenly spread over their keys: the same ones each time, at most ``count``."""
    live = np.flatnonzero(image.live)
    if len(live) <= count:
        return live
    return live[np.linspace(0, len(live) - 1, count).astype(np.int64)]


def held_out(image: Image, samples: int) -> Labels:
    """Rows to ask with, which are not in the graphs then: at most a tenth of all."""
    return drawn(image, max(1, min(samples, image.rows // _HELD_OUT_SHARE)))


def ground_of(image: Image, rows: Labels, queries: Vectors, k: int, stop: Stop) -> Ground:
    """``rows`` of ``image`` by themselves, and what is nearest to ``queries`` among them. Raises
    ``Enough``."""
    shape = (image.dimensions, image.distance)
    rows = image.book.in_order(rows)
    vectors = image.vectors(rows)
    alone = Image.of(shape, image.head, image.book.table(rows), (), lambda _: vectors)
    truth: list[Labels] = []
    for at in range(0, len(queries), _EXACT_AT_ONCE):
        if stop():
            raise Enough
        some = alone.search(queries[at : at + _EXACT_AT_ONCE], k, exact=True)
        truth += [near for near, _ in some]
    return Ground(alone, queries, tuple(truth), k)


def try_shape(ground: Ground, shape: Shape, folder: str, clock: Clock, stop: Stop) -> Tried:
    """Build a graph. Raises ``Enough``, and ``exhausted`` where the disk is full."""
    from lakehouse.vectord.adapters.hnsw import build_graph

    image = ground.image
    began = clock.monotonic()
    try:
        graph = build_graph(image.tail.vectors, image.distance, shape, folder, stop)
    except LakehouseError as error:
        if error.kind is ErrorKind.UNAVAILABLE and stop():
            raise Enough from error
        raise
    rows = np.arange(image.count)
    size = len(graph.content)
    structure = Structure("hnsw", "", len(rows), size)
    built = image.rebuilt([Part(structure, graph, rows, size)], ())
    return Tried(built, clock.monotonic() - began, size)


def measure(
    ground: Ground, image: Image, ef: int, least: float, how: tuple[Clock, Stop]
) -> Measured:
    """Each query by itself with ``ef``; one that has less recall than ``least`` only once. Raises
    ``Enough``."""
    clock, stop = how
    count = len(ground.queries)
    cpu, pieces, wall = np.full(count, np.inf), np.full(count, np.inf), []
    found: list[Labels] = []
    recall = 0.0
    for turn in range(PASSES):
        for at in range(count):
            if stop():
                raise Enough
            one = ground.queries[at : at + 1]
            wall_began, began = clock.monotonic(), thread_seconds()
            near = image.search(one, ground.k, ef)[0][0]
            cpu[at] = min(cpu[at], thread_seconds() - began)
            wall.append(clock.monotonic() - wall_began)
            began = thread_seconds()
            ground.compare_some(at)
            pieces[at] = min(pieces[at], thread_seconds() - began)
            if not turn:
                found.append(near)
        if not turn:
            recall = recall_of(found, ground.truth)
        if recall < least:
            break
    return Measured(
        recall,
        float(cpu.mean() / pieces.mean()),
        float(pieces.mean()) * 1000.0,
        float(np.percentile(wall, 50)) * 1000.0,
        float(np.percentile(wall, 99)) * 1000.0,
        tuple(found),
    )


def recall_of(found: Sequence[Labels], truth: Sequence[Labels]) -> float:
    """The part of what is true that was found, in [0, 1]."""
    right = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
    return right / max(1, sum(len(b) for b in truth))
