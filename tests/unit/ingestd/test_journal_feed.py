"""The feed: each version whole and once, oldest first, also killed and resumed, also followed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.contracts.journal import EventsRequest, FeedRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal import feed, watching
from lakehouse.model.events import JournalEvent
from unit.ingestd.journal_support import CTX, Desk, desk

Group = tuple[JournalEvent, ...]


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path / "desk") as made:
        yield made


async def told(at: Desk, after: int = 0) -> list[Group]:
    stream = await at.journal.feed(CTX, FeedRequest("people", after))
    return [group async for group in stream.groups]


def places(groups: list[Group]) -> list[tuple[int, int]]:
    return [(one.version, one.ordinal) for group in groups for one in group]


async def everything(at: Desk) -> list[tuple[int, int]]:
    result = await at.journal.events(CTX, EventsRequest("people", limit=10_000))
    return sorted((one.version, one.ordinal) for one in result.events)


async def fill(at: Desk, chance: random.Random, count: int) -> None:
    for _ in range(count):
        choice = chance.random()
        held = at.catalog.held["people"]
        if choice < 0.7:
            rows = [{"id": one, "name": f"{chance.random()}"} for one in chance.sample(range(6), 2)]
            await at.catalog.upsert("people", *rows)
        elif choice < 0.85:
            at.catalog.bulk("people")
        elif held.files:
            first = chance.randrange(len(held.files))
            await at.catalog.fold("people", first, first + 4, entries=chance.random() < 0.3)


async def test_commit_by_commit_oldest_first(at: Desk) -> None:
    at.catalog.create("people")
    await at.catalog.upsert("people", {"id": 1, "name": "a"}, {"id": 2})
    await at.catalog.upsert("people", {"id": 1, "name": "b", "phone": "1"}, {"id": 2, "name": "c"})
    groups = await told(at)
    assert [[(e.version, e.kind.value, e.entity) for e in group] for group in groups] == [
        [(1, "batch", "")],
        [(2, "insert", "")],
        [(3, "update", "[1]"), (3, "update", "[1]"), (3, "update", "[2]")],
    ]
    assert await told(at, 2) == groups[2:]
    assert await told(at, 3) == []
    assert await told(at, 99) == []


@pytest.mark.parametrize("seed", range(6))
async def test_killed_and_resumed_at_the_last_version_it_loses_and_repeats_nothing(
    at: Desk, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setattr(feed, "_EVENTS", chance.choice([6, 9, 10_000]))
    at.catalog.with_stats = chance.random() < 0.7
    at.catalog.page = chance.choice([1, 3, 1000])
    at.catalog.create("people")
    await fill(at, chance, 12)

    more = [1] * 15  # or it would come faster than it is told

    async def turn() -> None:
        if more and chance.random() < 0.2:
            await fill(at, chance, more.pop())

    at.catalog.turn = turn
    found: list[Group] = []
    after = 0
    while True:
        stream = await at.journal.feed(CTX, FeedRequest("people", after))
        ended = True
        async with aclosing(stream.groups) as groups:  # type: ignore[type-var]
            async for group in groups:
                found.append(group)
                after = group[-1].version
                if chance.random() < 0.3:
                    ended = False
                    break
                await turn()
        if ended and after == at.catalog.held["people"].dataset.version:
            break
    at.catalog.turn = None
    got = places(found)
    assert got == sorted(set(got))
    assert got == await everything(at)
    assert all(len({one.version for one in group}) == 1 for group in found)
    versions = [group[0].version for group in found]
    assert versions == sorted(set(versions))  # each told whole, in one group


async def test_a_commit_of_many_events_comes_in_parts(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_EVENTS", 10)
    at.catalog.create("people")
    await at.catalog.upsert("people", *({"id": one} for one in range(35)))
    await at.catalog.upsert("people", *({"id": one, "name": "x"} for one in range(35)))
    await at.catalog.upsert("people", {"id": 1, "name": "y"})
    groups = await told(at)
    assert places(groups) == await everything(at)
    assert [(group[0].version, len(group)) for group in groups] == [
        (1, 1),
        (2, 1),
        (3, 10),
        (3, 10),
        (3, 10),
        (3, 5),
        (4, 1),
    ]


async def test_without_follow_it_ends_at_the_version_of_its_start(at: Desk) -> None:
    at.catalog.create("people")
    await at.catalog.upsert("people", {"id": 1})
    stream = await at.journal.feed(CTX, FeedRequest("people"))
    await at.catalog.upsert("people", {"id": 2})
    assert [group[0].version async for group in stream.groups] == [1, 2]


async def test_followed_it_tells_what_comes_until_it_is_closed(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(watching, "PAUSE_SECONDS_MAX", 0.02)
    at.catalog.create("people")
    at.catalog.create("others")
    got: list[list[int]] = [[], [], []]

    async def follow(mine: list[int]) -> None:
        stream = await at.journal.feed(CTX, FeedRequest("people", 1, follow=True))
        async with aclosing(stream.groups) as groups:  # type: ignore[type-var]
            async for group in groups:
                mine.append(group[0].version)
                if len(mine) == 4:
                    return

    readers = [asyncio.create_task(follow(mine)) for mine in got]
    for number in range(4):
        await asyncio.sleep(0.05)
        await at.catalog.upsert("people", {"id": number})
        await at.catalog.upsert("others", {"id": number})
    await asyncio.wait_for(asyncio.gather(*readers), 20)
    assert got == [[3, 5, 7, 9]] * 3
    asked = at.catalog.status_calls
    await asyncio.sleep(0.1)
    assert at.catalog.status_calls == asked  # nobody follows any more


async def test_all_that_wait_share_one_look_at_the_catalog(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(watching, "_COST", 0.0)
    at.catalog.create("people")
    streams = [await at.journal.feed(CTX, FeedRequest("people", 1, True)) for _ in range(20)]
    waiting = [asyncio.create_task(anext(one.groups)) for one in streams]
    await asyncio.sleep(0.5)
    assert 1 <= at.catalog.status_calls <= 11
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)


async def test_a_deadline_ends_the_waiting(at: Desk) -> None:
    at.catalog.create("people")
    ctx = replace(CTX, deadline=at.parts.clock.monotonic() + 0.05)
    stream = await at.journal.feed(ctx, FeedRequest("people", 1, follow=True))
    with pytest.raises(LakehouseError) as caught:
        await asyncio.wait_for(anext(stream.groups), 20)
    assert caught.value.kind is ErrorKind.TIMEOUT


async def test_a_feed_never_goes_on_with_another_dataset(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PAUSE_SECONDS", 0.01)
    at.catalog.create("people")
    stream = await at.journal.feed(CTX, FeedRequest("people", follow=True))
    assert (await anext(stream.groups))[0].version == 1
    at.catalog.create("people")
    with pytest.raises(LakehouseError) as caught:
        await asyncio.wait_for(anext(stream.groups), 20)
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (FeedRequest("none"), ErrorKind.NOT_FOUND),
        (FeedRequest("people", -1), ErrorKind.INVALID),
    ],
)
async def test_what_makes_no_sense_is_said(at: Desk, request_: FeedRequest, kind: Any) -> None:
    at.catalog.create("people")
    with pytest.raises(LakehouseError) as caught:
        await at.journal.feed(CTX, request_)
    assert caught.value.kind is kind
