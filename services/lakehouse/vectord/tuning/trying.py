"""A run over the settings of a graph, in one thread, until it knows enough or the time is over.

Where there is no time to build many graphs of all rows, they are built of a sample. Of more rows
the same recall takes a larger ``ef``; so in the end a graph of all rows is built in the shape that
was the best, if the time that is left allows it, and searched from the ``ef`` of the sample up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from lakehouse.kit.clock import Clock
from lakehouse.vectord.image import Image
from lakehouse.vectord.ports import Labels, Vectors
from lakehouse.vectord.tuning.grid import NEAR, Grid, Shape, Standing, best_of, next_shape, weight
from lakehouse.vectord.tuning.measuring import (
    Enough,
    Ground,
    Measured,
    Stop,
    Tried,
    drawn,
    ground_of,
    held_out,
    measure,
    try_shape,
)
from lakehouse.vectord.tuning.metrics import Figures, figures, spelled

__all__ = ["Attempt", "Ended", "Job", "Tuner"]

_ROWS_MIN: Final = 2_000
_FEW_ROWS: Final = 10
_BUILDS_SHARE: Final = 0.4
_GRAPHS: Final = 6
_SLOWER: Final = 1.5
_REACHED: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What is asked of a run.

    Attributes:
        queries: to ask with, (queries, dimensions); None holds ``samples`` rows back for it.
        wanted: for each query what each key is worth that it should find.
        start: the shape that the index has now.
        rows_max: at most so many rows, 0 as many as the budget allows; ``bytes_max`` of them in any
            case.
        exact_rows_max: an index of no more rows has no graph.
    """

    image: Image
    grid: Grid
    start: Shape
    k: int
    recall: float
    every: bool
    rows_max: int
    bytes_max: int
    budget_seconds: float
    samples: int = 0
    queries: Vectors | None = None
    wanted: tuple[Mapping[str, float], ...] = ()
    exact_rows_max: int = 0

    @property
    def exact_only(self) -> bool:
        """Every vector is compared: there is nothing to tune."""
        return self.image.rows <= self.exact_rows_max


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One setting, measured. ``figures`` against the keys that should be found, if they are
    known. ``cpu_ms``: of one search, at the pace that the machine had as the run began."""

    shape: Shape
    ef: int
    measured: Measured
    rows: int
    queries: int
    sampled: bool
    build_seconds: float
    size_bytes: int
    cpu_ms: float
    figures: Figures | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """``ended``: all (every setting was tried), enough (no other can be much better) or time.
    ``chosen``: the place of the best attempt."""

    ended: str
    chosen: int | None
    reached: bool


@dataclass(slots=True)
class Tuner:
    """One run of ``job``; ``tell`` hears of each attempt, in the thread of the run."""

    job: Job
    tell: Callable[[Attempt], None]
    clock: Clock
    folder: str
    stopping: Stop
    attempts: list[Attempt] = field(default_factory=list)
    _known: dict[Shape, Standing] = field(default_factory=dict)
    _best: dict[Shape, int] = field(default_factory=dict)
    _until: float = 0.0
    _piece_ms: float = 0.0
    _settled: int | None = None

    def run(self) -> Ended:
        """Blocks. Raises what building a graph does."""
        job = self.job
        self._until = self.clock.monotonic() + job.budget_seconds
        ended = "enough"
        try:
            ground, rest = self._ground()
            sampled = ground.image.rows < len(rest)
            if job.exact_only:
                self._measured(Tried(ground.image, 0.0, 0), ground, sampled, ((0, 0), 0))
                return Ended("all", 0, True)
            while True:
                shape = next_shape(job.grid, job.start, self._known, every=job.every)
                if shape is None:
                    break
                self._sweep(ground, sampled, shape)
            if len(self.attempts) == job.grid.settings:
                ended = "all"
            if sampled and not job.rows_max:
                self._settle(ground, rest)
        except Enough:
            ended = "time"
        return self._ended(ended)

    def _stop(self) -> bool:
        return self.stopping() or self.clock.monotonic() >= self._until

    def _ground(self) -> tuple[Ground, Labels]:
        """Some rows, or all, and all that there are."""
        job, image = self.job, self.job.image
        asked = held_out(image, job.samples) if job.queries is None else np.empty(0, np.int64)
        queries = image.vectors(asked) if job.queries is None else job.queries
        rest = drawn(image, image.count)
        if len(rest) >= _FEW_ROWS:
            rest = np.setdiff1d(rest, asked, assume_unique=True)
        count = self._rows(rest)
        rows = rest[np.linspace(0, len(rest) - 1, count).astype(np.int64)]
        queries = np.ascontiguousarray(queries)
        return ground_of(image, rows, queries, job.k, self._stop), rest

    def _rows(self, rest: Labels) -> int:
        """How many rows can be tried on within the time and the memory there is."""
        job = self.job
        held = max(1, job.bytes_max // (4 * job.image.dimensions))
        most = min(len(rest), max(held, _ROWS_MIN))
        if job.rows_max:
            return min(most, max(job.rows_max, job.k))
        if most <= _ROWS_MIN or job.exact_only:
            return most
        # What some of them cost tells what more will.
        few = rest[np.linspace(0, len(rest) - 1, _ROWS_MIN // 2).astype(np.int64)]
        nothing = np.empty((0, job.image.dimensions), np.float32)
        tried = self._try(ground_of(job.image, few, nothing, job.k, self._stop), job.start)
        shapes = job.grid.shapes()
        graphs = len(shapes) if job.every else min(len(shapes), _GRAPHS)
        middle = sum(weight(shape) for shape in shapes) / len(shapes) / weight(job.start)
        seconds = tried.seconds * middle * graphs
        room = _BUILDS_SHARE * job.budget_seconds
        return rows_within(most, len(few), seconds, room)

    def _try(self, ground: Ground, shape: Shape) -> Tried:
        return try_shape(ground, shape, self.folder, self.clock, self._stop)

    def _sweep(self, ground: Ground, sampled: bool, shape: Shape) -> None:
        """Build a graph and search it with more and more candidates."""
        job = self.job
        tried = self._try(ground, shape)
        best = min((s.cost for s in self._known.values() if s.cost is not None), default=math.inf)
        standing = Standing(None, 0.0)
        for ef in job.grid.ef:
            attempt = self._measured(tried, ground, sampled, (shape, ef))
            found = attempt.measured
            standing = self._after(standing, attempt)
            if not job.every and (standing.cost is not None or found.cost > best * NEAR):
                break  # to look at more costs more
        self._known[shape] = standing

    def _settle(self, ground: Ground, rest: Labels) -> None:
        """Have the best of the sample on all rows, if there is time and memory for it."""
        job, best = self.job, self._ended("")
        if best.chosen is None or not best.reached:
            return
        chosen = self.attempts[best.chosen]
        needed = seconds_of(len(rest), ground.image.rows, chosen.build_seconds)
        if 4 * job.image.dimensions * len(rest) > job.bytes_max:
            return
        if self.clock.monotonic() + needed > self._until:
            return
        whole = ground_of(job.image, rest, ground.queries, job.k, self._stop)
        tried = self._try(whole, chosen.shape)
        for ef in job.grid.ef:
            if ef < chosen.ef:
                continue
            found = self._measured(tried, whole, False, (chosen.shape, ef)).measured
            self._settled = len(self.attempts) - 1
            if found.recall >= job.recall - _REACHED:
                return

    def _measured(
        self, tried: Tried, ground: Ground, sampled: bool, setting: tuple[Shape, int]
    ) -> Attempt:
        """One setting; told."""
        shape, ef = setting
        least = self.job.recall - _REACHED
        found = measure(ground, tried.image, ef, least, (self.clock, self._stop))
        self._piece_ms = self._piece_ms or found.piece_ms
        attempt = Attempt(
            shape,
            ef,
            found,
            ground.image.rows,
            len(ground.queries),
            sampled,
            tried.seconds,
            tried.size_bytes,
            found.cost * self._piece_ms,
            None if sampled else self._figures(ground, found),
        )
        self.attempts.append(attempt)
        self.tell(attempt)
        return attempt

    def _after(self, standing: Standing, attempt: Attempt) -> Standing:
        found, at = attempt.measured, len(self.attempts) - 1
        recall = max(standing.recall, found.recall)
        if found.recall < self.job.recall - _REACHED:
            if attempt.shape not in self._best or (
                standing.cost is None and found.recall > standing.recall
            ):
                self._best[attempt.shape] = at
            return Standing(standing.cost, recall)
        if standing.cost is None or found.cost < standing.cost:
            self._best[attempt.shape] = at
            return Standing(found.cost, recall)
        return Standing(standing.cost, recall)

    def _figures(self, ground: Ground, found: Measured) -> Figures | None:
        if not any(self.job.wanted):
            return None
        key = ground.image.book.key
        answers = [
            spelled([key(row)[0] for row in rows.tolist()], wanted)
            for rows, wanted in zip(found.found, self.job.wanted, strict=True)
        ]
        return figures(answers, self.job.wanted, self.job.k)

    def _ended(self, ended: str) -> Ended:
        """Also of a graph that was not searched to its end."""
        if self._settled is not None:
            recall = self.attempts[self._settled].measured.recall
            return Ended(ended, self._settled, recall >= self.job.recall - _REACHED)
        known = dict(self._known)
        for shape, at in self._best.items():
            measured = self.attempts[at].measured
            reached = measured.recall >= self.job.recall - _REACHED
            cost = measured.cost if reached else None
            known.setdefault(shape, Standing(cost, measured.recall))
        if not known:
            return Ended(ended, None, False)
        best = best_of(known)
        return Ended(ended, self._best[best], known[best].cost is not None)


def seconds_of(rows: int, few: int, seconds: float) -> float:
    """What a graph of ``rows`` takes where one of ``few`` takes ``seconds``: somewhat more than in
    proportion, for caches are small."""
    return seconds * (rows / few) * math.log(rows) / math.log(few) * _SLOWER


def rows_within(most: int, few: int, seconds: float, room: float) -> int:
    """How many of ``most`` rows graphs can be built of in ``room`` seconds, where those of ``few``
    take ``seconds``. At least ``_ROWS_MIN``."""
    rows = most
    while rows > _ROWS_MIN and seconds_of(rows, few, seconds) > room:
        rows = max(_ROWS_MIN, int(rows * 0.9))
    return rows
