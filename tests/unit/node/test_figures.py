"""What a process says of itself: its build, its loop, and whatever its parts say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from lakehouse import __version__
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.figures import Distribution, Figure, Kind, Readout, alone
from lakehouse.node.telemetry import NodeFigures

DEPTH = Figure("lakehouse_depth", Kind.GAUGE, "how deep it is")


class Part:
    def figures(self) -> Iterator[Readout]:
        yield alone(DEPTH, 7)


def read(figures: NodeFigures) -> dict[str, object]:
    return {figure.name: dict(values) for figure, values in figures.figures()}


def test_parts_without_figures_are_passed_over() -> None:
    figures = NodeFigures(("gateway", "queryd"))
    figures.add(object(), Part(), None)
    found = read(figures)
    assert found["lakehouse_depth"] == {(): 7}
    build = found["lakehouse_build_info"]
    assert isinstance(build, dict)
    ((version, _, roles), value) = next(iter(build.items()))
    assert (version, roles, value) == (__version__, "gateway,queryd", 1.0)


async def test_a_loop_that_is_held_up_shows_it() -> None:
    figures = NodeFigures(())
    watching = asyncio.create_task(figures.watch_loop(SystemClock()))
    await asyncio.sleep(0.3)
    time.sleep(0.6)
    await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    lag = read(figures)["lakehouse_loop_lag_seconds"]
    assert isinstance(lag, dict)
    taken = lag[()]
    assert isinstance(taken, Distribution)
    assert taken.count == 1
    assert taken.total > 0.25
