"""Which settings of a graph are tried, and in what order. Pure.

Graphs cost minutes and searches milliseconds, so a graph is searched with every ``ef`` from the
smallest up until the recall is reached, and not every graph is built: from the setting that the
index has now the neighbours of all that are nearly as fast as the fastest are tried, until none is
left. What lies beyond a ridge that is ``NEAR`` times as slow on all sides is not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lakehouse.contracts.trials import AutotuneRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Profile

__all__ = ["NEAR", "SAME", "Grid", "Shape", "Standing", "best_of", "grid_of", "next_shape"]

Shape = tuple[int, int]
"""M and ef_construction."""

NEAR: Final = 1.1
SAME: Final = 1.02
"""Costs that nobody can tell apart: then the graph that is cheaper to build is taken."""

_M: Final = (8, 16, 32)
_EF_CONSTRUCTION: Final = (100, 200, 400)
_EF: Final = (16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
_RANGES: Final = {"m": (2, 128), "ef_construction": (8, 4_000), "ef": (1, 100_000)}
_VALUES_MAX: Final = 32
_SETTINGS_MAX: Final = 2_000
_COMPARED_ROWS: Final = 10


@dataclass(frozen=True, slots=True)
class Grid:
    """Values to try, each rising."""

    m: tuple[int, ...]
    ef_construction: tuple[int, ...]
    ef: tuple[int, ...]

    def shapes(self) -> list[Shape]:
        """All graphs, the cheapest to build first."""
        return sorted(((m, ef) for m in self.m for ef in self.ef_construction), key=weight)

    def neighbours(self, shape: Shape) -> list[Shape]:
        """One step along either axis, the cheapest first."""
        m, ef = self.m.index(shape[0]), self.ef_construction.index(shape[1])
        found = [
            (self.m[m + across], self.ef_construction[ef + up])
            for across, up in ((-1, 0), (1, 0), (0, -1), (0, 1))
            if 0 <= m + across < len(self.m) and 0 <= ef + up < len(self.ef_construction)
        ]
        return sorted(found, key=weight)

    @property
    def settings(self) -> int:
        return len(self.m) * len(self.ef_construction) * len(self.ef)


def weight(shape: Shape) -> float:
    """About what a graph costs to build, in no unit."""
    return shape[1] * (0.5 + shape[0] / 32.0)


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of a graph: ``cost`` of a search with the smallest ``ef`` that reached the recall,
    or None where none did and ``recall`` is the best it had."""

    cost: float | None
    recall: float


def grid_of(request: AutotuneRequest, profile: Profile, rows: int) -> Grid:
    """Of what was asked for, or one around what the index has now. Raises ``invalid`` for a value
    that no graph can have.

    Args:
        rows: in the graph: looking at more than a tenth of them costs more than comparing all.
    """
    given = {name: getattr(request, name) for name in _RANGES}
    for name, values in given.items():
        _check(name, values)
    look = [ef for ef in _EF if request.k <= ef <= rows // _COMPARED_ROWS]
    m = given["m"] or (*_M, profile.hnsw_m)
    construction = given["ef_construction"] or (*_EF_CONSTRUCTION, profile.ef_construction)
    ef = given["ef"] or look or (max(request.k, _EF[0]),)
    grid = Grid(*(tuple(sorted(set(values))) for values in (m, construction, ef)))
    if grid.settings > _SETTINGS_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            "so many settings are too many for one run",
            settings=grid.settings,
            maximum=_SETTINGS_MAX,
            hint="name fewer values of m, ef_construction or ef",
        )
    return grid


def _check(name: str, values: Sequence[int]) -> None:
    least, most = _RANGES[name]
    if len(values) > _VALUES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, f"at most {_VALUES_MAX} values of {name}", values=len(values)
        )
    for value in values:
        if not least <= value <= most:
            raise LakehouseError(
                ErrorKind.INVALID,
                f"a value of {name} is out of range",
                field=name,
                value=value if abs(value) < 1 << 53 else str(value)[:40],
                minimum=least,
                maximum=most,
                hint="leave the values out to try what fits the index",
            )


def next_shape(
    grid: Grid, start: Shape, known: Mapping[Shape, Standing], *, every: bool
) -> Shape | None:
    """The graph to build next; None where no other is worth it.

    Args:
        start: what the index has now; the nearest to it is tried first.
        every: leave none out.
    """
    rest = [shape for shape in grid.shapes() if shape not in known]
    if every:
        return rest[0] if rest else None
    if not known:
        return min(rest, key=lambda shape: _distance(grid, shape, start), default=None)
    best = best_of(known)
    for shape in sorted(known, key=lambda one: _order(known[one])):
        if not _nearly(known[shape], known[best]):
            break
        for beside in grid.neighbours(shape):
            if beside not in known:
                return beside
    return None


def best_of(known: Mapping[Shape, Standing]) -> Shape:
    """The fastest that reached the recall; of those as fast as it the cheapest to build. Where none
    did, the one with the best recall."""
    first = min(known, key=lambda shape: (_order(known[shape]), weight(shape)))
    cost = known[first].cost
    if cost is None:
        return first
    same = [
        shape
        for shape, standing in known.items()
        if standing.cost is not None and standing.cost <= cost * SAME
    ]
    return min(same, key=weight)


def _order(standing: Standing) -> tuple[bool, float]:
    if standing.cost is None:
        return True, -standing.recall
    return False, standing.cost


def _nearly(one: Standing, best: Standing) -> bool:
    """Whether what lies beside ``one`` may be better than the best."""
    if best.cost is None:
        # None is good enough: on from the best of them.
        return one.cost is None and one.recall >= best.recall
    return one.cost is not None and one.cost <= best.cost * NEAR


def _distance(grid: Grid, shape: Shape, start: Shape) -> tuple[int, float]:
    steps = 0
    for values, at, wanted in zip((grid.m, grid.ef_construction), shape, start, strict=True):
        nearest = min(values, key=lambda value: abs(value - wanted))
        steps += abs(values.index(at) - values.index(nearest))
    return steps, weight(shape)
