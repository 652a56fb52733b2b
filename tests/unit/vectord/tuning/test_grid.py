"""Which settings are tried: of landscapes that are known the best, or one nearly as good."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from lakehouse.contracts.trials import AutotuneRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Profile
from lakehouse.vectord.tuning.grid import Grid, Shape, Standing, best_of, grid_of, next_shape

GRID = Grid((4, 8, 12, 16, 24, 32, 48), (40, 80, 120, 160, 240, 320), (16, 32, 64))

Landscape = Callable[[Shape], Standing]


def climbed(landscape: Landscape, start: Shape, *, every: bool = False) -> dict[Shape, Standing]:
    known: dict[Shape, Standing] = {}
    while (shape := next_shape(GRID, start, known, every=every)) is not None:
        assert shape not in known
        known[shape] = landscape(shape)
    return known


def bowl(middle: Shape, tilt: float) -> Landscape:
    """One valley, at ``middle``."""

    def cost(shape: Shape) -> Standing:
        m, ef = GRID.m.index(shape[0]), GRID.ef_construction.index(shape[1])
        at = GRID.m.index(middle[0]), GRID.ef_construction.index(middle[1])
        return Standing(1.0 + tilt * (abs(m - at[0]) + abs(ef - at[1])), 1.0)

    return cost


@pytest.mark.parametrize("tilt", [0.01, 0.05, 0.3])
def test_a_valley_is_found_from_every_start(tilt: float) -> None:
    for middle in GRID.shapes()[::4]:
        for start in ((4, 40), (48, 320), (16, 120)):
            known = climbed(bowl(middle, tilt), start)
            cost = known[best_of(known)].cost
            assert cost is not None
            assert cost <= 1.02


def test_few_graphs_are_built_of_many() -> None:
    known = climbed(bowl((16, 120), 0.3), (12, 120))
    assert len(known) <= 10 < len(GRID.shapes())


def test_noise_costs_less_than_a_tenth() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(50):
        valley = bowl(chance.choice(GRID.shapes()), chance.uniform(0.02, 0.4))
        noise = {shape: chance.uniform(0.98, 1.02) for shape in GRID.shapes()}

        def seen(shape: Shape, of: Landscape = valley, by: dict[Shape, float] = noise) -> Standing:
            return Standing((of(shape).cost or 0.0) * by[shape], 1.0)

        best = best_of(climbed(seen, chance.choice(GRID.shapes())))
        assert (valley(best).cost or 0.0) <= 1.1


def test_where_no_graph_reaches_the_recall_the_way_is_up() -> None:
    def poor(shape: Shape) -> Standing:
        return Standing(None, 0.5 + shape[0] / 200.0 + shape[1] / 2_000.0)

    known = climbed(poor, (4, 40))
    assert best_of(known) == (48, 320)


def test_the_first_that_reaches_it_is_better_than_all_that_do_not() -> None:
    known = {(4, 40): Standing(None, 0.98), (8, 40): Standing(5.0, 0.99)}
    assert best_of(known) == (8, 40)


def test_of_those_as_fast_as_each_other_the_cheapest_to_build_is_taken() -> None:
    known = {
        (48, 320): Standing(1.0, 1.0),
        (8, 40): Standing(1.019, 1.0),
        (4, 40): Standing(1.1, 1),
    }
    assert best_of(known) == (8, 40)


def test_exhaustive_leaves_nothing_out() -> None:
    assert len(climbed(bowl((4, 40), 0.5), (16, 120), every=True)) == len(GRID.shapes())


def test_values_that_are_not_given_fit_the_index() -> None:
    grid = grid_of(AutotuneRequest("i", k=10), Profile("p", hnsw_m=20), 4_000)
    assert 20 in grid.m
    assert grid.m == tuple(sorted(set(grid.m)))
    assert min(grid.ef) >= 10
    assert max(grid.ef) <= 400
    assert grid_of(AutotuneRequest("i", k=10), Profile("p"), 20).ef == (16,)


@pytest.mark.parametrize(
    "fields",
    [
        {"m": (1,)},
        {"m": (16, 10**6)},
        {"m": (-(10**30),)},
        {"ef_construction": (0,)},
        {"ef": (0,)},
        {"ef": (10**6,)},
        {"m": tuple(range(2, 60))},
        {"m": tuple(range(2, 32)), "ef_construction": tuple(range(8, 38)), "ef": (1, 2, 3)},
    ],
)
def test_a_grid_that_cannot_be_is_refused(fields: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(LakehouseError) as refused:
        grid_of(AutotuneRequest("i", **fields), Profile("p"), 1000)  # type: ignore[arg-type]
    assert refused.value.kind is ErrorKind.INVALID
    assert "hint" in refused.value.fields or "values" in refused.value.fields
