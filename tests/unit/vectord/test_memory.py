"""Memory over real roles: remembered once, found by meaning and by words, caught up with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from lakehouse.contracts import memory as c
from lakehouse.contracts import vectors as v
from lakehouse.contracts.catalog import PageRequest, RenameRequest
from lakehouse.contracts.memory import Turn
from lakehouse.contracts.retrievals import RetrievalRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import RecordClass, SearchMode
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
    async with store.vectors(follow=True, follow_seconds=5.0) as made:
        yield made


async def remembered(
    service: Service, memory: str, *turns: Turn, ctx: Context = ADA
) -> c.RememberReport:
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


async def everything(vectors: Vectors, memory: str, **how: object) -> list[Turn]:
    """Caught up with from the beginning, page by page."""
    found: list[Turn] = []
    cursor, more = "", True
    while more:
        request = replace(c.CatchUpRequest(memory, limit=7, cursor=cursor), **how)  # type: ignore[arg-type]
        page = await vectors.memory.catch_up(READER, request)
        found += page.turns
        cursor, more = page.cursor, page.more
    return found


async def test_the_same_turn_is_one_in_a_call_and_across_calls(service: Service) -> None:
    first, second = Turn("once", "ada", "s", TEN), Turn("twice", "ada", "s", TEN, ("a",))
    report = await remembered(service, "once", first, second, first)
    assert (report.remembered, report.duplicates) == (2, 1)
    assert report.ids[0] == report.ids[2] != report.ids[1]
    before = await everything(service[0], "once")
    others = [replace(first, tags=("b",)), Turn("once", "bob", "s", TEN), replace(first, at=None)]
    again = await remembered(service, "once", *others, first)
    assert (again.remembered, again.duplicates, again.created) == (2, 2, False)
    none = await remembered(service, "once", first, second)
    assert (none.remembered, none.version) == (0, again.version)
    after = await everything(service[0], "once")
    assert after[:2] == before
    assert len(after) == 4
    assert after[3].at == after[3].remembered_at


class _Behind(SystemClock):
    """An hour behind, as the clock of another machine may be."""

    def now_us(self) -> int:
        return super().now_us() - 3_600_000_000


@asynccontextmanager
async def another(store: Shelf) -> AsyncIterator[Vectors]:
    parts = store.parts(HashingEmbedder())
    parts.clock = _Behind()
    vectors = Vectors(parts)
    try:
        yield vectors
    finally:
        await vectors.close()


async def test_who_catches_up_while_others_write_misses_none_and_is_told_none_twice(
    service: Service, store: Shelf
) -> None:
    await remembered(service, "busy", Turn("the first"))
    told: list[Turn] = []
    writing = True

    async def write(vectors: Vectors, who: str) -> None:
        for at in range(3):
            turns = (
                Turn(f"{who} says {at}", who),
                Turn("said by all", at=TEN),
                Turn(f"{who}-{at}"),
            )
            await vectors.memory.remember(ADA, c.RememberRequest("busy", turns))

    async def read() -> None:
        cursor = ""
        last = False
        while not last:
            last = not writing
            page = await service[0].memory.catch_up(
                READER, c.CatchUpRequest("busy", limit=4, cursor=cursor)
            )
            told.extend(page.turns)
            await asyncio.sleep(0.02)
            last, cursor = last and not page.more, page.cursor

    async with another(store) as other, asyncio.TaskGroup() as group:
        group.create_task(read())
        await asyncio.gather(write(service[0], "ada"), write(other, "bob"), write(other, "eve"))
        writing = False
    assert len(told) == 1 + 3 * 3 * 2 + 1
    assert len({turn.id for turn in told}) == len(told)
    times = [turn.remembered_at for turn in told]
    assert times == sorted(set(times), key=str)
    assert told == await everything(service[0], "busy")


async def test_thousands_of_turns_are_one_commit(service: Service, store: Shelf) -> None:
    many = [
        Turn(f"turn {at} of many", "x", "s", TEN + timedelta(seconds=at)) for at in range(4_000)
    ]
    parts = store.parts(HashingEmbedder())
    vectors = Vectors(parts)
    try:
        report = await vectors.memory.remember(ADA, c.RememberRequest("many", tuple(many)))
        again = await vectors.memory.remember(ADA, c.RememberRequest("many", tuple(many)))
        page = await vectors.memory.catch_up(READER, c.CatchUpRequest("many", limit=1000))
    finally:
        await vectors.close()
    assert (report.remembered, again.remembered, again.duplicates) == (4_000, 0, 4_000)
    entries = (await store.catalog.versions(READER, PageRequest("many"))).versions
    assert [entry.version for entry in entries if entry.rows_added] == [report.version]
    assert [turn.text for turn in page.turns] == [turn.text for turn in many[:1000]]
    assert page.more


NASTY = "x'; drop table talk; --"


async def test_filters_are_values_whatever_is_in_them(service: Service) -> None:
    turns = (
        Turn("we talk of storage here", 'o"neil\\', NASTY, TEN, ("it's", "a")),
        Turn("we talk of storage there", "' or 1=1", NASTY, TEN + timedelta(days=1), ("it's",)),
        Turn("we talk of storage nowhere", "plain", "s\n\u202e", None, ("%", "$1")),
    )
    await remembered(service, "quotes", *turns)

    async def found(**how: object) -> list[int]:
        asked = c.RecallRequest("quotes", "talk of storage")
        heard = await texts(service, replace(asked, **how))  # type: ignore[arg-type]
        every = [turn.text for turn in turns]
        recalled = sorted(every.index(text) for text in heard)
        if "until" not in how and "since" not in how:
            caught = await everything(service[0], "quotes", **how)
            assert [every.index(turn.text) for turn in caught] == recalled
        return recalled

    assert await found() == [0, 1, 2]
    assert await found(session=NASTY) == [0, 1]
    assert await found(session=NASTY, who="' or 1=1") == [1]
    assert await found(who='o"neil\\') == [0]
    assert await found(tags=("it's",)) == [0, 1]
    assert await found(tags=("it's", "a")) == [0]
    assert await found(tags=("$1",)) == [2]
    assert await found(session="s\n\u202e") == [2]
    assert await found(session="' or '1'='1") == []
    assert await found(since=TEN + timedelta(microseconds=1)) == [1, 2]
    assert await found(since=TEN, until=TEN + timedelta(days=1)) == [0]
    assert await found(until=datetime(1, 1, 1, tzinfo=UTC)) == []


async def refused(doing: object) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await doing  # type: ignore[misc]
    return caught.value


async def test_names_that_are_no_memory(service: Service, store: Shelf) -> None:
    memory = service[0].memory
    await store.put("plain", [{"id": "1", "text": "a"}])
    await service[0].create_index(ADA, v.CreateIndexRequest("taken", "plain", ("text",)))
    for name in ("plain", "PLAIN", "taken"):
        error = await refused(remembered(service, name, Turn("a")))
        assert error.kind is ErrorKind.CONFLICT
    for doing in (
        memory.recall(READER, c.RecallRequest("plain", "a")),
        memory.catch_up(READER, c.CatchUpRequest("plain")),
    ):
        assert (await refused(doing)).kind is ErrorKind.CONFLICT
    for asking in (
        memory.recall(READER, c.RecallRequest("nobody", "a")),
        memory.catch_up(READER, c.CatchUpRequest("nobody")),
    ):
        missing = await refused(asking)
        assert (missing.kind, missing.fields["memory"]) == (ErrorKind.NOT_FOUND, "nobody")
        assert missing.message == "there is no memory of this name"
    unmade = memory.remember(ADA, c.RememberRequest("new", (Turn("a"),), "no such profile"))
    assert (await refused(unmade)).kind is ErrorKind.NOT_FOUND
    assert (await refused(remembered(service, "talk", Turn("a"), ctx=READER))).kind is (
        ErrorKind.FORBIDDEN
    )


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (Turn(" \n"), "a turn has no text"),
        (Turn("\ud800"), "a turn's text is no Unicode text"),
        (Turn("x" * (c.TURN_BYTES_MAX + 1)), "a turn's text is too long"),
        (Turn("a", at=datetime(2026, 1, 1)), "at does not say its zone"),
        (Turn("a", at=datetime.fromisoformat("0001-01-01T00:00:00+14:00")), "at is out of range"),
        (Turn("a", tags=("",)), "tags are too many, too long or empty"),
        (Turn("a", who="\udc00"), "who is too long or no text"),
        (Turn("a", session="a\0b"), "session is too long or no text"),
        (Turn("a", tags=("a\0b",)), "a tag is no text"),
    ],
)
async def test_what_is_no_turn_is_named_by_its_place(
    service: Service, turn: Turn, says: str
) -> None:
    error = await refused(remembered(service, "talk", Turn("fine"), turn))
    assert (error.kind, error.message, error.fields["turn"]) == (ErrorKind.INVALID, says, 2)
    assert all(one.text != "fine" for one in await everything(service[0], "talk"))


async def test_pages_cursors_and_limits(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = service[0].memory
    monkeypatch.setattr("lakehouse.vectord.memory.catching._PAGE_BYTES", 100)
    await remembered(service, "pages", *[Turn(f"{at}" + "x" * 18) for at in range(6)])
    page = await memory.catch_up(READER, c.CatchUpRequest("pages", limit=1000))
    assert (len(page.turns), page.more) == (5, True)
    assert len(await everything(service[0], "pages")) == 6
    await remembered(service, "pages", Turn("y" * 1000), Turn("z"))
    assert len(await everything(service[0], "pages")) == 8
    since = page.turns[4].remembered_at
    assert since is not None
    later = await memory.catch_up(READER, c.CatchUpRequest("pages", since=since, limit=1))
    assert list(later.turns) == [page.turns[4]]
    far = await memory.catch_up(READER, c.CatchUpRequest("pages", since=since + timedelta(days=9)))
    assert far.turns == ()
    for cursor in ("x", "W10=", "WzEsMl0=", "Wy0xLCJhIl0=", "WzFlNTAwLCAiYSJd"):
        error = await refused(memory.catch_up(READER, c.CatchUpRequest("pages", cursor=cursor)))
        assert error.message == "the cursor is not one of ours"
    for limit in (0, 1001):
        request = c.CatchUpRequest("pages", limit=limit)
        assert (await refused(memory.catch_up(READER, request))).kind is ErrorKind.INVALID
    for text, k in ((" ", 1), ("a", 0), ("x" * (v.TEXT_BYTES_MAX + 1), 1)):
        request_ = c.RecallRequest("pages", text, k)
        assert (await refused(memory.recall(READER, request_))).kind is ErrorKind.INVALID


async def test_turns_and_rows_of_a_table_are_recalled_together(
    service: Service, store: Shelf
) -> None:
    await store.put("costs", [{"id": 1, "text": "storage costs ten a month"}])
    await service[0].create_index(ADA, v.CreateIndexRequest("costs", "costs", ("text",)))
    await service[0].build(ADA, v.BuildRequest("costs", wait_seconds=30))
    await remembered(service, "both", Turn("one team owns all storage"), Turn("lunch"))
    request = c.RecallRequest("both", "storage", k=2, also=("costs",))
    found = await service[0].memory.recall(READER, request)
    assert {(one.hit.index, one.turn.text if one.turn else "") for one in found.recalled} == {
        ("both", "one team owns all storage"),
        ("costs", ""),
    }


async def test_a_call_that_is_repeated_has_one_effect_and_one_answer(
    service: Service, store: Shelf
) -> None:
    keyed = replace(ADA, idempotency_key="key-1")
    turns = (Turn("said before", at=TEN), Turn("said now", at=TEN))
    await remembered(service, "keyed", turns[0])
    first = await remembered(service, "keyed", *turns, ctx=keyed)
    assert (first.remembered, first.duplicates) == (1, 1)
    assert await remembered(service, "keyed", *turns, ctx=keyed) == first
    await store.delete("keyed", first.ids[1])
    assert await remembered(service, "keyed", *turns, ctx=keyed) == first
    assert [turn.text for turn in await everything(service[0], "keyed")] == ["said before"]
    error = await refused(remembered(service, "keyed", Turn("another"), ctx=keyed))
    assert error.http_status == 422
    new = replace(ADA, idempotency_key="key-2")
    both = await asyncio.gather(*[remembered(service, "fresh", *turns, ctx=new) for _ in "ab"])
    assert both[0] == both[1]
    assert (both[0].created, both[0].remembered) == (True, 2)


async def test_without_an_embedder_turns_are_remembered_and_found_by_their_words(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = HashingEmbedder()
    embedder.fail()
    async with store.vectors(
        embedder, follow=True, follow_seconds=0.05, fresh_seconds=0.1
    ) as service:
        memory = service[0].memory
        turns = (Turn("Café talk of herring", "ada"), Turn("talk of cod", "bob"), Turn("silence"))
        report = await remembered(service, "down", *turns)
        assert (report.remembered, report.created) == (3, True)
        asked = c.RecallRequest("down", "CAFE herring talk")
        for mode in (SearchMode.HYBRID, SearchMode.TEXT):
            found = await memory.recall(READER, replace(asked, mode=mode))
            assert [one.turn.text if one.turn else "" for one in found.recalled] == [
                "Café talk of herring",
                "talk of cod",
            ]
            assert (found.degraded, found.behind, found.retrieval_id) == (True, True, "")
        by_bob = await memory.recall(READER, replace(asked, who="bob"))
        assert [one.hit.text for one in by_bob.recalled] == ["talk of cod"]
        error = await refused(memory.recall(READER, replace(asked, mode=SearchMode.VECTOR)))
        assert error.kind is ErrorKind.UNAVAILABLE
        embedder.recover()
        service[0].memory._spaces._again.clear()
        async with asyncio.timeout(20):
            while (await memory.recall(READER, asked)).degraded:  # there is no index yet
                await asyncio.sleep(0.02)
        await service[0].build(ADA, v.BuildRequest("down", wait_seconds=30))
        found = await memory.recall(READER, asked)
        assert (found.degraded, found.behind, len(found.recalled)) == (False, False, 3)
        embedder.fail()
        await remembered(service, "down", Turn("herring again"))
        found = await memory.recall(READER, replace(asked, k=2))
        assert (found.degraded, found.behind) == (True, True)
        heard = {one.turn.text for one in found.recalled if one.turn}
        assert heard == {"Café talk of herring", "herring again"}
        again = await service[0].retrievals.replay(READER, RetrievalRequest(found.retrieval_id))
        shown = [(one.hit.key, one.hit.score, one.hit.text) for one in found.recalled]
        assert [(hit.key, hit.score, hit.text) for hit in again.hits] == shown
        assert again.same
        monkeypatch.setattr("lakehouse.vectord.memory.recalling._WAITING_MAX", 2)
        await remembered(service, "down", *[Turn(f"a pike {at}") for at in range(5)])
        old = await memory.recall(READER, replace(asked, text="Herring AGAIN 'of", k=1))
        assert [one.hit.text for one in old.recalled] == ["herring again"]
        embedder.recover()


async def test_a_turn_that_was_deleted_is_recalled_no_more(service: Service, store: Shelf) -> None:
    report = await remembered(service, "forget", Turn("a secret of ada"), Turn("a secret of bob"))
    assert await texts(service, c.RecallRequest("forget", "secret", k=1))
    await store.delete("forget", report.ids[0])
    assert await texts(service, c.RecallRequest("forget", "secret")) == ["a secret of bob"]


@pytest.mark.parametrize("mode", list(SearchMode))
async def test_what_is_remembered_of_a_recall_is_what_was_answered(
    store: Shelf, mode: SearchMode
) -> None:
    """The index still has a turn that was deleted, for nobody follows."""
    name = f"let_go_{mode.value}"
    turns = (Turn("a secret of ada"), Turn("a secret of bob"), Turn("a secret of eve"))
    async with store.vectors(follow=True) as service:
        gone = (await remembered(service, name, *turns)).ids[0]
        assert await texts(service, c.RecallRequest(name, "secret", mode=SearchMode.VECTOR))
    async with store.vectors(fresh_seconds=0.05) as (vectors, *_):
        await store.delete(name, gone)
        told = c.RecallRequest(name, "a secret of ada", mode=mode, record=RecordClass.DURABLE)
        found = await vectors.memory.recall(READER, told)
        known = RetrievalRequest(found.retrieval_id)
        record = (await vectors.retrievals.get(READER, known)).retrieval
        assert found.behind
        assert [hit.key for hit in record.hits] == [one.hit.key for one in found.recalled]
        assert len(record.hits) == record.hits_total == 2
        assert (await vectors.retrievals.replay(READER, known)).same


async def test_a_memory_goes_by_its_new_name(service: Service, store: Shelf) -> None:
    await remembered(service, "old", Turn("what was said of old"))
    await store.catalog.rename(ADA, RenameRequest("old", "newer"))
    report = await remembered(service, "newer", Turn("what is said anew"), Turn("silence"))
    assert (report.memory, report.created) == ("newer", False)
    heard = await texts(service, c.RecallRequest("NEWER", "said", k=2))
    assert sorted(heard) == ["what is said anew", "what was said of old"]
    listed = await service[0].memory.memories(READER, c.MemoriesRequest())
    assert {one.name: one.index for one in listed.memories}["newer"] == "old"
    error = await refused(remembered(service, "old", Turn("a")))
    assert (error.kind, error.fields["index"]) == (ErrorKind.CONFLICT, "old")


async def test_a_model_that_is_not_there_loses_no_turn(store: Shelf) -> None:
    async with store.vectors(HashingEmbedder(models=("other",))) as service:
        report = await remembered(service, "modelless", Turn("kept all the same"))
        assert report.remembered == 1
        assert await texts(service, c.RecallRequest("modelless", "kept")) == ["kept all the same"]
        request = c.RecallRequest("modelless", "kept", mode=SearchMode.VECTOR)
        error = await refused(service[0].memory.recall(READER, request))
        assert "has no such model" in str(error.fields["cause"])
