"""Events, newest first: every filter, and pages while commits and folds come in between."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.contracts.journal import EventsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal import events as module
from lakehouse.ingestd.journal import objects, paging
from lakehouse.ingestd.journal.paging import Work
from lakehouse.kit.clock import to_datetime
from lakehouse.model.dataset import DatasetStatus
from lakehouse.model.events import JournalEvent
from unit.ingestd.journal_support import CTX, Desk, desk


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path / "desk") as made:
        yield made


async def told(at: Desk, request: EventsRequest, between: Any = None) -> list[JournalEvent]:
    """All pages, and ``between`` after each."""
    found: list[JournalEvent] = []
    for _ in range(1_000):
        result = await at.journal.events(CTX, request)
        assert len(result.events) <= request.limit
        found += result.events
        if not result.cursor:
            return found
        request = replace(request, cursor=result.cursor)
        if between is not None:
            await between()
    raise AssertionError("it goes on for ever")


def places(events: list[JournalEvent]) -> list[tuple[int, int, str]]:
    return [(one.version, one.ordinal, one.dataset_id) for one in events]


async def story(at: Desk) -> None:
    """1 create, 2 two inserts, 3 a phone, 4 another's name and phone, 5 bulk, 6 one is deleted."""
    at.catalog.create("people")
    await at.catalog.upsert("people", {"id": 7, "name": "Ann", "phone": "1"}, {"id": 8}, actor="a")
    await at.catalog.upsert(
        "people", {"id": 7, "name": "Ann", "phone": "2"}, actor="bob", reason="moved",
        workspace="crm", request_id="r-9", source="form",
    )  # fmt: skip
    await at.catalog.upsert("people", {"id": 8, "name": "Eve", "phone": "3"}, actor="a")
    at.catalog.bulk("people", 5)
    await at.catalog.delete("people", 7, actor="bob")


async def test_a_story_is_told_newest_first(at: Desk) -> None:
    await story(at)
    result = await at.journal.events(CTX, EventsRequest("people"))
    assert (result.version, result.cursor) == (6, "")
    assert [(e.version, e.ordinal, e.kind.value, e.entity, e.field) for e in result.events] == [
        (6, 2, "delete", "[7]", "phone"),
        (6, 1, "delete", "[7]", "name"),
        (6, 0, "delete", "[7]", "id"),
        (5, 0, "batch", "", ""),
        (4, 1, "update", "[8]", "phone"),
        (4, 0, "update", "[8]", "name"),
        (3, 0, "update", "[7]", "phone"),
        (2, 0, "insert", "", ""),
        (1, 0, "batch", "", ""),
    ]
    phone = result.events[6]
    assert (phone.old_json, phone.new_json, phone.actor, phone.reason) == (
        '"1"',
        '"2"',
        "bob",
        "moved",
    )
    assert (phone.base_version, phone.dataset, phone.at) == (
        2,
        "people",
        to_datetime(at.catalog.at_us(3)),
    )
    assert (result.events[7].rows, result.events[3].rows) == (2, 5)


def when(version: int) -> datetime:
    return to_datetime(1_790_000_000_000_000) + timedelta(seconds=version)


@pytest.mark.parametrize(("folded", "stats"), [(False, True), (True, False)])
@pytest.mark.parametrize(
    ("filters", "versions"),
    [
        ({"actor": "bob"}, [6, 6, 6, 3]),
        ({"field": "phone"}, [6, 4, 3]),
        ({"field": "phone", "kind": "update"}, [4, 3]),
        ({"kind": "insert"}, [2]),
        ({"kind": "batch"}, [5, 1]),
        ({"workspace": "crm"}, [3]),
        ({"request_id": "r-9"}, [3]),
        ({"entity_json": "7"}, [6, 6, 6, 3, 2]),
        ({"entity_json": "[8]", "after_version": 2}, [4, 4]),
        ({"entity_json": "9"}, []),
        ({"after_version": 4}, [6, 6, 6, 5]),
        ({"after_version": 1, "before_version": 3}, [3, 2]),
        ({"since": when(4), "until": when(6)}, [5, 4, 4]),
        ({"until": when(2)}, [1]),
        ({"actor": "nobody"}, []),
    ],
)
async def test_filters_are_joined_by_and(
    at: Desk, filters: dict[str, Any], versions: list[int], folded: bool, stats: bool
) -> None:
    at.catalog.with_stats = stats
    await story(at)
    if folded:
        await at.catalog.fold("people", 0, 3, entries=True)
    request = EventsRequest("people", **filters)
    assert [one.version for one in await told(at, request)] == versions
    assert [one.version for one in await told(at, replace(request, limit=1))] == versions


async def test_files_that_cannot_have_an_event_are_not_opened(at: Desk) -> None:
    at.catalog.create("people")
    for number in range(20):
        await at.catalog.upsert("people", {"id": number, "name": "n"}, {"id": 100 + number})
        await at.catalog.upsert("people", {"id": number, "name": f"m{number}"})
    opened = watch(at)
    await told(at, EventsRequest("people", entity_json="13", kind="update"))
    assert len(opened) == 1
    opened.clear()
    await told(at, EventsRequest("people", since=when(30), until=when(31)))
    assert len(opened) == 1
    opened.clear()
    await at.journal.events(CTX, EventsRequest("people", limit=2))
    assert len(opened) <= 7
    opened.clear()
    await at.journal.events(CTX, EventsRequest("people", limit=2))
    assert opened == []  # decoded once


def watch(at: Desk) -> list[str]:
    """Keys of the objects that are opened from now on."""
    opened: list[str] = []
    real = at.reader.local

    async def local(files: Any) -> list[str]:
        opened.extend(file.key for file in files)
        return await real(files)

    at.reader.local = local
    return opened


@pytest.mark.parametrize("seed", range(6))
async def test_every_event_is_told_once_while_commits_and_folds_come_in_between(
    at: Desk, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    at.catalog.page = chance.choice([1, 3, 1000])
    at.catalog.with_stats = chance.random() < 0.7
    names = ["people"] if seed % 2 else ["people", "orders", "goods"]
    for name in names:
        at.catalog.create(name)

    async def act() -> None:
        name = chance.choice(names)
        held = at.catalog.held[name]
        choice = chance.random()
        if choice < 0.6 or not held.files:
            ids = chance.sample(range(6), chance.randint(1, 2))
            rows = [{"id": one, "name": f"{chance.random()}", "phone": None} for one in ids]
            await at.catalog.upsert(name, *rows)
        elif choice < 0.7:
            at.catalog.bulk(name)
        elif choice < 0.8 and held.rows.num_rows:
            await at.catalog.delete(name, held.rows["id"][0].as_py())
        else:
            first = chance.randrange(len(held.files))
            last = min(len(held.files), first + chance.randint(1, 5))
            await at.catalog.fold(name, first, last, entries=chance.random() < 0.3)

    more = [1] * 30  # or it would come faster than it is told

    async def now_and_then() -> None:
        if more and chance.random() < 0.15:
            more.pop()
            await act()

    for _ in range(16):
        await act()
    dataset = names[0] if len(names) == 1 else ""
    whole = EventsRequest(dataset, limit=10_000)
    before = places(await told(at, whole))
    at.catalog.turn = now_and_then
    request = EventsRequest(dataset, limit=chance.choice([2, 7, 20]))
    if chance.random() < 0.5:
        # So little work a page that many a page ends early.
        monkeypatch.setattr(paging, "_FILES_MAX", 2)
        monkeypatch.setattr(module, "_DATASETS_MAX", 1)
        monkeypatch.setattr(Work, "__init__", lambda self, files=1: setattr(self, "files", files))
    got = places(await told(at, request, now_and_then))
    at.catalog.turn = None
    assert got == sorted(set(got), reverse=True)
    assert set(before) <= set(got)
    new = {one for one in got if one not in set(before)}
    assert all(version > before[0][0] for version, _, _ in new)
    # And the same again of what is there now, by one page and by many.
    assert places(await told(at, replace(request, limit=25))) == places(await told(at, whole))


async def test_a_large_object_is_read_by_row_groups_that_may_matter(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.catalog.create("people")
    await at.catalog.upsert("people", *({"id": one} for one in range(3000)))
    await at.catalog.upsert("people", *({"id": one, "name": "x"} for one in range(3000)))
    await at.catalog.upsert("people", {"id": 9, "name": "y"})
    await at.catalog.fold("people", 0, 3)
    whole = await told(at, EventsRequest("people", limit=10_000))
    monkeypatch.setattr(objects, "WHOLE_BYTES_MAX", 1000)
    parts = at.parts
    at.journal._objects = objects.EventObjects(parts.buckets, parts.reader, parts.jobs)
    assert await told(at, EventsRequest("people", limit=700)) == whole
    assert len(whole) == 3003
    found = await told(at, EventsRequest("people", entity_json="9"))
    assert [(one.version, one.kind.value) for one in found] == [
        (4, "update"),
        (3, "update"),
        (2, "insert"),
    ]
    assert at.journal._objects._kept == {}


async def test_what_is_kept_in_memory_has_a_bound(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "KEPT_BYTES_MAX", 20_000)
    at.catalog.create("people")
    for number in range(50):
        await at.catalog.upsert("people", {"id": number, "name": "x" * 100})
    assert len(await told(at, EventsRequest("people"))) == 51
    assert 0 < at.journal._objects._kept_bytes <= 20_000


async def test_a_dropped_dataset_still_answers_by_its_name(at: Desk) -> None:
    await story(at)
    held = at.catalog.held["people"]
    held.dataset = replace(held.dataset, status=DatasetStatus.DROPPED)
    assert len(await told(at, EventsRequest("people"))) == 9
    assert len(await told(at, EventsRequest())) == 9


async def test_a_dataset_that_is_renamed_meanwhile_is_told_all_the_same(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await story(at)
    real = at.catalog.journal

    async def journal(ctx: Any, request: Any) -> Any:
        held = at.catalog.held.pop("people", None)
        if held is not None:
            held.dataset = replace(held.dataset, name="folk")
            at.catalog.held["folk"] = held
        return await real(ctx, request)

    monkeypatch.setattr(at.catalog, "journal", journal)
    found = await told(at, EventsRequest())
    assert [len(found), found[0].dataset] == [9, "folk"]


async def test_a_bucket_that_is_not_known_hides_no_event(at: Desk) -> None:
    await story(at)
    held = at.catalog.held["people"]
    held.files[1] = replace(held.files[1], bucket="elsewhere", sha256="0" * 64)
    for request in (EventsRequest("people"), EventsRequest()):
        with pytest.raises(LakehouseError) as caught:
            await told(at, request)
        assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_wrong_bytes_are_refused_by_name(at: Desk) -> None:
    await story(at)
    file = at.catalog.held["people"].files[1]
    data = await at.parts.buckets.get("primary").get(file.key)
    broken = bytes(data)[:-9] + b"?" + bytes(data)[-8:]
    await at.parts.buckets.get("primary").put(file.key, broken)
    with pytest.raises(LakehouseError) as caught:
        await told(at, EventsRequest("people"))
    assert (caught.value.kind, caught.value.fields["key"]) == (ErrorKind.CORRUPT, file.key)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (EventsRequest("none"), ErrorKind.NOT_FOUND),
        (EventsRequest("people", limit=0), ErrorKind.INVALID),
        (EventsRequest("people", limit=10_001), ErrorKind.INVALID),
        (EventsRequest("people", kind="odd"), ErrorKind.INVALID),
        (EventsRequest(entity_json="7"), ErrorKind.INVALID),
        (EventsRequest("people", entity_json="no number"), ErrorKind.INVALID),
        (EventsRequest("people", entity_json="[1, 2]"), ErrorKind.INVALID),
        (EventsRequest("bulky", entity_json="1"), ErrorKind.INVALID),
        (EventsRequest("people", cursor="odd"), ErrorKind.INVALID),
        (EventsRequest("people", cursor="WzFd"), ErrorKind.INVALID),
        (EventsRequest("people", cursor="Wzk5OTk5OTk5OTk5OTk5OTk5OTksMSwiIl0"), ErrorKind.INVALID),
        (EventsRequest("people", since=datetime(2026, 1, 1)), ErrorKind.INVALID),
    ],
)
async def test_what_makes_no_sense_is_said(
    at: Desk, request_: EventsRequest, kind: ErrorKind
) -> None:
    at.catalog.create("people")
    at.catalog.create("bulky", key=())
    with pytest.raises(LakehouseError) as caught:
        await at.journal.events(CTX, request_)
    assert caught.value.kind is kind
