"""The memory contract, called directly and over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from contracts.world import READER, WRITER, Doorkeeper
from lakehouse.contracts import memory as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import SearchMode
from support_retrieval import Library, library
from unit.rpc.loopback import loopback

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TALK = (
    c.Turn("the harbour crane is out of order", "ann", "monday", NOON, ("crane",)),
    c.Turn("order a new rope for it", "bob", "monday", NOON + timedelta(minutes=1), ("crane",)),
    c.Turn("lunch was good", "ann", "tuesday", NOON + timedelta(days=1)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with library(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def memory(here: Library, transport: str) -> AsyncIterator[Any]:
    if transport == "direct":
        yield here.role.memory
        return
    async with loopback({"memory": here.role.memory}, Doorkeeper(None)) as there:
        yield there.client("Memory")


async def remembered(memory: Any, name: str, turns: tuple[c.Turn, ...] = TALK) -> Any:
    return await memory.remember(WRITER, c.RememberRequest(name, turns))


async def recalled(memory: Any, name: str, text: str, **fields: Any) -> list[str]:
    found = await memory.recall(READER, c.RecallRequest(name, text, **fields))
    return [one.hit.text for one in found.recalled]


async def test_the_same_turn_twice_is_one(memory: Any, transport: str) -> None:
    name = f"talk_{transport}"
    report = await remembered(memory, name)
    assert (report.remembered, report.duplicates, report.created) == (3, 0, True)
    again = await remembered(memory, name, (*TALK, TALK[0], c.Turn("new", "ann", "monday", NOON)))
    assert (again.remembered, again.duplicates, again.created) == (1, 4, False)
    assert again.ids[:3] == report.ids
    assert again.ids[3] == report.ids[0]
    told = await memory.catch_up(READER, c.CatchUpRequest(name))
    assert sorted(turn.text for turn in told.turns) == sorted([*(t.text for t in TALK), "new"])


async def test_turns_are_recalled_with_who_and_when(memory: Any, transport: str) -> None:
    name = f"recall_{transport}"
    await remembered(memory, name)
    found = await memory.recall(READER, c.RecallRequest(name, "the crane is out of order", k=1))
    (best,) = found.recalled
    assert (best.turn.text, best.turn.who, best.turn.session, best.turn.at, best.turn.tags) == (
        *(TALK[0].text, "ann", "monday", NOON, ("crane",)),
    )
    assert found.retrieval_id
    assert await recalled(memory, name, "order", who="bob") == [TALK[1].text]
    assert await recalled(memory, name, "order", session="tuesday") == [TALK[2].text]
    assert set(await recalled(memory, name, "order", tags=("crane",))) == {
        *(TALK[0].text, TALK[1].text)
    }
    assert await recalled(memory, name, "order", since=NOON + timedelta(hours=1)) == [TALK[2].text]
    assert set(await recalled(memory, name, "x", until=NOON + timedelta(hours=1), k=9)) >= {
        TALK[0].text
    }
    assert await recalled(memory, name, "crane", mode=SearchMode.TEXT) == [TALK[0].text]
    assert await recalled(memory, name, "crane", who="o'neil'; drop table x --") == []


async def test_turns_and_tables_together(memory: Any, transport: str) -> None:
    name = f"both_{transport}"
    await remembered(memory, name)
    request = c.RecallRequest(name, "a red fox and a harbour crane", k=8, also=("books",))
    found = await memory.recall(READER, request)
    by_index: dict[str, list[Any]] = {}
    for one in found.recalled:
        by_index.setdefault(one.hit.index, []).append(one)
    assert set(by_index) == {name, "books"}
    assert all(one.turn is None for one in by_index["books"])
    assert all(one.turn is not None for one in by_index[name])


async def test_catching_up_never_skips_or_repeats(memory: Any, transport: str) -> None:
    name = f"since_{transport}"
    await remembered(memory, name, TALK[:2])
    first = await memory.catch_up(READER, c.CatchUpRequest(name, limit=1))
    assert (len(first.turns), first.more) == (1, True)
    second = await memory.catch_up(READER, c.CatchUpRequest(name, cursor=first.cursor))
    assert {first.turns[0].text, second.turns[0].text} == {TALK[0].text, TALK[1].text}
    assert (len(second.turns), second.more) == (1, False)
    nothing = await memory.catch_up(READER, c.CatchUpRequest(name, cursor=second.cursor))
    assert (nothing.turns, nothing.more) == ((), False)
    # An earlier time, and came in later: it is news for who caught up before.
    late = c.Turn("by the way, happy new year", "bob", "january", NOON - timedelta(days=300))
    await remembered(memory, name, (late,))
    news = await memory.catch_up(READER, c.CatchUpRequest(name, cursor=nothing.cursor))
    assert [turn.text for turn in news.turns] == [late.text]
    assert news.turns[0].remembered_at is not None
    only = await memory.catch_up(READER, c.CatchUpRequest(name, who="bob", tags=("crane",)))
    assert [turn.text for turn in only.turns] == [TALK[1].text]
    ahead = datetime.now(UTC) + timedelta(days=1)
    assert not (await memory.catch_up(READER, c.CatchUpRequest(name, since=ahead))).turns


async def test_memories_are_listed(memory: Any, transport: str) -> None:
    name = f"listed_{transport}"
    await remembered(memory, name)
    found = await memory.memories(READER, c.MemoriesRequest())
    mine = next(one for one in found.memories if one.name == name)
    assert (mine.turns, mine.index) == (3, name)
    assert "books" not in [one.name for one in found.memories]


@pytest.mark.parametrize(
    ("turns", "kind"),
    [
        ((), ErrorKind.INVALID),
        ((c.Turn("  "),), ErrorKind.INVALID),
        ((c.Turn("x" * (c.TURN_BYTES_MAX + 1)),), ErrorKind.INVALID),
    ],
)
async def test_turns_that_are_none(memory: Any, turns: Any, kind: ErrorKind) -> None:
    with pytest.raises(LakehouseError) as caught:
        await remembered(memory, "nothing_of_it", turns)
    assert caught.value.kind is kind


async def test_refusals(memory: Any) -> None:
    with pytest.raises(LakehouseError) as caught:
        await remembered(memory, "books")
    assert caught.value.kind is ErrorKind.CONFLICT
    for ask in (
        memory.recall(READER, c.RecallRequest("never", "x")),
        memory.catch_up(READER, c.CatchUpRequest("never")),
    ):
        with pytest.raises(LakehouseError) as caught:
            await ask
        assert caught.value.kind is ErrorKind.NOT_FOUND
    with pytest.raises(LakehouseError) as caught:
        await memory.remember(READER, c.RememberRequest("forbidden", TALK))
    assert caught.value.kind is ErrorKind.FORBIDDEN
    with pytest.raises(LakehouseError) as caught:
        await memory.recall(READER, c.RecallRequest("never", "x", k=0))
    assert caught.value.kind in (ErrorKind.INVALID, ErrorKind.NOT_FOUND)
