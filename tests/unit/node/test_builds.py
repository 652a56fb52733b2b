"""Waits for builds end when their node does, and the builds have begun before."""

from __future__ import annotations

import asyncio
import math

import pytest

from lakehouse.contracts import vectors as c
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.node.builds import EndingBuilds
from unit.gateway.vector_fakes import FakeVectors, index

CTX = Context(ANONYMOUS_OPERATOR, "r")


class Builder(FakeVectors):
    """Builds last until ``done``."""

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()

    def _index(self, name: str) -> c.IndexResult:
        return c.IndexResult(index(), 812, building=not self.done.is_set())

    def asked(self, name: str) -> list[object]:
        return [request for called, _, request in self.calls if called == name]

    async def looked_at(self) -> None:
        """By one who waits."""
        async with asyncio.timeout(5):
            while len(self.asked("get_index")) < 2:
                await asyncio.sleep(0.005)


async def test_a_wait_ends_with_the_node() -> None:
    vectors = Builder()
    builds = EndingBuilds(vectors)
    asked = c.BuildRequest("i", new_version=True, profile="x", wait_seconds=600)
    waiting = asyncio.ensure_future(builds.build(CTX, asked))
    await vectors.looked_at()
    builds.end()
    result = await asyncio.wait_for(waiting, 5)
    assert result.building
    looked = len(vectors.calls)
    # Nor does anybody begin to wait any more, but what is asked for begins.
    again = await asyncio.wait_for(builds.build(CTX, asked), 5)
    assert again.building
    await asyncio.sleep(0.05)
    assert len(vectors.calls) == looked + 1


async def test_a_wait_asks_for_nothing_but_what_was_asked_for() -> None:
    vectors = Builder()
    builds = EndingBuilds(vectors)
    asked = c.BuildRequest("i", new_version=True, cut_over=False, wait_seconds=600)
    waiting = asyncio.ensure_future(builds.build(CTX, asked))
    await vectors.looked_at()
    vectors.done.set()
    assert not (await asyncio.wait_for(waiting, 5)).building
    assert vectors.asked("build") == [c.BuildRequest("i", new_version=True, cut_over=False)]
    # Done at once: nobody waits.
    vectors.calls.clear()
    assert not (await builds.build(CTX, c.BuildRequest("i", wait_seconds=600))).building
    assert len(vectors.calls) == 1


@pytest.mark.parametrize("seconds", [601.0, -1.0, math.nan, math.inf])
async def test_a_wait_that_is_refused_is_so_before_anything_is_done(seconds: float) -> None:
    vectors = Builder()
    await EndingBuilds(vectors).build(CTX, c.BuildRequest("i", wait_seconds=seconds))
    # As it came, for the one who refuses it.
    assert [repr(each) for each in vectors.asked("build")] == [
        repr(c.BuildRequest("i", wait_seconds=seconds))
    ]


async def test_a_wait_that_is_too_short_and_one_that_fails() -> None:
    vectors = Builder()
    builds = EndingBuilds(vectors)
    assert (await builds.build(CTX, c.BuildRequest("i", wait_seconds=0.001))).building
    for name in ("get_index", "build"):
        vectors.failing[name] = RuntimeError("x")
        with pytest.raises(RuntimeError):
            await builds.build(CTX, c.BuildRequest("i", wait_seconds=600))


async def test_all_else_goes_through() -> None:
    vectors = Builder()
    builds: c.VectorsService = EndingBuilds(vectors)
    await builds.search(CTX, c.SearchRequest("i", (c.VectorQuery("a"),)))
    await builds.get_index(CTX, c.IndexRequest("i"))
    assert [name for name, _, _ in vectors.calls] == ["search", "get_index"]
