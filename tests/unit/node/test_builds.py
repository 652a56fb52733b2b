"""Waits for builds end when their node does, and the builds have begun before."""

from __future__ import annotations

import asyncio

import pytest

from lakehouse.contracts import vectors as c
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.node.builds import EndingBuilds
from unit.gateway.vector_fakes import FakeVectors, index

CTX = Context(ANONYMOUS_OPERATOR, "r")


class Builder(FakeVectors):
    """Builds last until ``done``; ``given_up`` counts waits that were."""

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()
        self.given_up = 0

    async def build(self, ctx: Context, request: c.BuildRequest) -> c.IndexResult:
        self.saw("build", ctx, request)
        if request.wait_seconds:
            try:
                await asyncio.wait_for(self.done.wait(), request.wait_seconds)
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            except TimeoutError:
                pass
        return c.IndexResult(index(), 812, building=not self.done.is_set())


async def test_a_wait_ends_with_the_node() -> None:
    vectors = Builder()
    builds = EndingBuilds(vectors)
    asked = c.BuildRequest("i", new_version=True, profile="x", wait_seconds=600)
    waiting = asyncio.ensure_future(builds.build(CTX, asked))
    while len(vectors.calls) < 2:
        await asyncio.sleep(0)
    builds.end()
    result = await asyncio.wait_for(waiting, 5)
    assert result.building
    assert vectors.given_up == 1
    assert [request for _, _, request in vectors.calls] == [
        c.BuildRequest("i", new_version=True, profile="x"),
        c.BuildRequest("i", wait_seconds=600),
    ]
    # Nor does anybody begin to wait any more, but what is asked for begins.
    again = await asyncio.wait_for(builds.build(CTX, asked), 5)
    assert again.building


async def test_a_build_that_is_done_is_told() -> None:
    vectors = Builder()
    builds = EndingBuilds(vectors)
    waiting = asyncio.ensure_future(builds.build(CTX, c.BuildRequest("i", wait_seconds=600)))
    while len(vectors.calls) < 2:
        await asyncio.sleep(0)
    vectors.done.set()
    assert not (await asyncio.wait_for(waiting, 5)).building
    # Done at once: nobody waits.
    vectors.calls.clear()
    assert not (await builds.build(CTX, c.BuildRequest("i", wait_seconds=600))).building
    assert len(vectors.calls) == 1


async def test_a_wait_that_is_too_short_and_one_that_fails() -> None:
    vectors = Builder()
    builds = EndingBuilds(vectors)
    assert (await builds.build(CTX, c.BuildRequest("i", wait_seconds=0.01))).building
    vectors.failing["build"] = RuntimeError("x")
    with pytest.raises(RuntimeError):
        await builds.build(CTX, c.BuildRequest("i", wait_seconds=600))


async def test_all_else_goes_through() -> None:
    vectors = Builder()
    builds: c.VectorsService = EndingBuilds(vectors)
    await builds.search(CTX, c.SearchRequest("i", (c.VectorQuery("a"),)))
    await builds.get_index(CTX, c.IndexRequest("i"))
    assert [name for name, _, _ in vectors.calls] == ["search", "get_index"]
