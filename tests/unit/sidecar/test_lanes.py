"""Who is next at the model."""

from __future__ import annotations

import asyncio

import pytest

from lakehouse_sidecar.errors import Code, SidecarError
from lakehouse_sidecar.lanes import QUERIES_IN_A_ROW, Lane, Lanes


async def _turn(lanes: Lanes, lane: Lane, name: str, order: list[str]) -> None:
    async with lanes.permit(lane):
        order.append(name)
        await asyncio.sleep(0)


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_queries_overtake_indexing_but_not_each_other() -> None:
    lanes, order = Lanes(1, 10), list[str]()
    async with lanes.permit(Lane.INDEX):
        waiting = []
        for lane, name in ((Lane.INDEX, "i1"), (Lane.QUERY, "q1"), (Lane.INDEX, "i2")):
            waiting.append(asyncio.create_task(_turn(lanes, lane, name, order)))
        waiting.append(asyncio.create_task(_turn(lanes, Lane.QUERY, "q2", order)))
        await _settled()
        assert order == []
    await asyncio.gather(*waiting)
    assert order == ["q1", "q2", "i1", "i2"]


async def test_indexing_goes_on_under_queries_without_end() -> None:
    lanes, order = Lanes(1, 1000), list[str]()
    async with lanes.permit(Lane.QUERY):
        queries = [
            asyncio.create_task(_turn(lanes, Lane.QUERY, "q", order))
            for _ in range(3 * QUERIES_IN_A_ROW)
        ]
        indexing = [asyncio.create_task(_turn(lanes, Lane.INDEX, "i", order)) for _ in range(2)]
        await _settled()
    await asyncio.gather(*queries, *indexing)
    first, second = (place for place, name in enumerate(order) if name == "i")
    assert first == QUERIES_IN_A_ROW
    assert second == 2 * QUERIES_IN_A_ROW + 1


async def test_no_more_than_the_permits_are_given_out() -> None:
    lanes = Lanes(2, 100)
    working = most = 0

    async def work() -> None:
        nonlocal working, most
        async with lanes.permit(Lane.QUERY):
            working += 1
            most = max(most, working)
            await asyncio.sleep(0)
            working -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert most == 2


@pytest.mark.parametrize("moment", ["waiting", "its turn has come"])
async def test_who_leaves_the_queue_keeps_nobody_waiting(moment: str) -> None:
    lanes, order = Lanes(1, 10), list[str]()
    async with lanes.permit(Lane.QUERY):
        leaving = asyncio.create_task(_turn(lanes, Lane.QUERY, "left", order))
        staying = asyncio.create_task(_turn(lanes, Lane.QUERY, "stayed", order))
        await _settled()
        if moment == "waiting":
            leaving.cancel()
            await _settled()
    if moment != "waiting":
        # The permit is its own already, but it has not run since.
        leaving.cancel()
    await staying
    assert order == ["stayed"]
    async with asyncio.timeout(1), lanes.permit(Lane.INDEX):
        pass


async def test_a_full_lane_refuses_and_the_other_does_not() -> None:
    lanes = Lanes(1, 2)
    async with lanes.admitted(Lane.INDEX), lanes.admitted(Lane.INDEX):
        with pytest.raises(SidecarError) as refused:
            async with lanes.admitted(Lane.INDEX):
                pass
        assert refused.value.code is Code.EXHAUSTED
        async with lanes.admitted(Lane.QUERY):
            assert lanes.depth() == {"query": 1, "index": 2}
    assert lanes.depth() == {"query": 0, "index": 0}
