"""Memory over real roles: remembered once, found by meaning and by words, caught up with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from lakehouse.contracts import memory as c
from lakehouse.contracts.memory import Turn
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

Service = tuple[Vectors, Profiles, HashingEmbedder]
TEN = datetime(2026, 2, 15, 10, 0, tzinfo=UTC)
TALK = (
    Turn("one team owns all shared storage", "steve", "s1", TEN, ("governance", "storage")),
    Turn("what about backups to the attic", "leonardo", "s1", TEN + timedelta(minutes=1)),
    Turn("rook copies files every night", "steve", "s1", TEN + timedelta(minutes=2), ("backup",)),
    Turn("lunch is at noon", "leonardo", "s2", TEN + timedelta(hours=2)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(store: Shelf) -> AsyncIterator[Service]:
    async with store.vectors(follow=True, follow_seconds=0.05) as made:
        yield made


async def remembered(
    service: Service, memory: str, *turns: Turn, ctx: object = ADA
) -> c.RememberReport:
    assert isinstance(ctx, type(ADA))
    return await service[0].memory.remember(ctx, c.RememberRequest(memory, turns))


async def texts(service: Service, request: c.RecallRequest) -> list[str]:
    found = await service[0].memory.recall(READER, request)
    return [one.turn.text if one.turn else one.hit.text for one in found.recalled]


async def test_what_is_remembered_is_recalled_at_once_and_caught_up_with(service: Service) -> None:
    memory = service[0].memory
    report = await remembered(service, "talk", *TALK)
    assert (report.remembered, report.duplicates, report.created) == (4, 0, True)
    found = await memory.recall(READER, c.RecallRequest("talk", "who copies files at night"))
    best = found.recalled[0]
    assert best.turn is not None
    assert replace(best.turn, remembered_at=None) == replace(TALK[2], id=report.ids[2])
    assert not found.degraded
    told = await memory.catch_up(READER, c.CatchUpRequest("talk", limit=3))
    assert [turn.text for turn in told.turns] == [turn.text for turn in TALK[:3]]
    assert told.more
    rest = await memory.catch_up(READER, c.CatchUpRequest("talk", cursor=told.cursor))
    assert [turn.id for turn in rest.turns] == [report.ids[3]]
    assert not rest.more
    none = await memory.catch_up(READER, c.CatchUpRequest("talk", cursor=rest.cursor))
    assert (none.turns, none.cursor) == ((), rest.cursor)
    listed = await memory.memories(READER, c.MemoriesRequest())
    assert [(one.name, one.turns, one.index) for one in listed.memories] == [("talk", 4, "talk")]
