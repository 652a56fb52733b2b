"""The journal's contract, direct and over gRPC."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from contracts.people import NOW, change, created, patched, refused
from contracts.world import READER, World, caller
from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.journal import (
    EventsRequest,
    EventsResult,
    FeedRequest,
    HistoryRequest,
    HistoryResult,
)
from lakehouse.contracts.rows import CompactRequest, RowChange
from lakehouse.errors import ErrorKind
from lakehouse.kit.clock import to_datetime
from lakehouse.model.events import EventKind
from lakehouse.model.identity import Scope

DESK = replace(caller(Scope.WRITE, workspace="desk", source="tests"), request_id="call-7")


async def told(journal: Any, **filters: Any) -> EventsResult:
    result: EventsResult = await journal.events(READER, EventsRequest("people", **filters))
    return result


async def story(here: World) -> list[int]:
    """Created, a phone changed, one row added, one deleted: the versions of it."""
    rows = here.near["rows"]
    versions = [await created(here)]
    body = {"key": 1, "set": {"phone": "555"}}
    report = await change(rows, body, RowChange.PATCH, DESK, reason="she called")
    versions.append(report.version)
    versions.append((await change(rows, [{"id": 4, "name": "Di"}, {"id": 5}])).version)
    versions.append((await change(rows, [2], RowChange.DELETE)).version)
    return versions


async def test_who_changed_that_phone_number(journal: Any, here: World) -> None:
    versions = await story(here)
    (event,) = (await told(journal, field="phone", kind="update")).events
    assert (event.old_json, event.new_json) == ('"+49 1"', '"555"')
    assert (event.entity, event.version, event.dataset) == ("[1]", versions[1], "people")
    assert (event.actor, event.workspace, event.source) == ("write", "desk", "tests")
    assert (event.reason, event.request_id) == ("she called", "call-7")
    assert event.kind is EventKind.UPDATE


async def test_every_kind_newest_first(journal: Any, here: World) -> None:
    versions = await story(here)
    result = await told(journal)
    kinds = [event.kind for event in result.events]
    assert kinds == [
        *([EventKind.DELETE] * 3),
        EventKind.INSERT,
        EventKind.UPDATE,
        *([EventKind.BATCH] * kinds.count(EventKind.BATCH)),
    ]
    places = [(event.version, event.ordinal) for event in result.events]
    assert places == sorted(places, reverse=True) or [v for v, _ in places] == sorted(
        (v for v, _ in places), reverse=True
    )
    gone = {event.field: event.old_json for event in result.events[:3]}
    assert gone == {"id": "2", "name": '"Bob"', "phone": '"+49 2"'}
    assert result.events[3].rows == 2
    assert result.version == versions[-1]


FILTERS: list[tuple[dict[str, Any], int]] = [
    ({"kind": "delete"}, 3),
    ({"entity_json": "[2]"}, 3),
    ({"entity_json": "2", "field": "name"}, 1),
    ({"workspace": "desk"}, 1),
    ({"request_id": "call-7"}, 1),
    ({"actor": "nobody"}, 0),
    ({"field": "nothing"}, 0),
]


@pytest.mark.parametrize(("filters", "count"), FILTERS)
async def test_filters(journal: Any, here: World, filters: dict[str, Any], count: int) -> None:
    await story(here)
    assert len((await told(journal, **filters)).events) == count


async def test_filters_by_time_and_version(journal: Any, here: World) -> None:
    versions = await story(here)
    only = await told(journal, after_version=versions[0], before_version=versions[1])
    assert [event.version for event in only.events] == [versions[1]]
    now = to_datetime(here.clock.now_us())
    hour = timedelta(hours=1)
    assert len((await told(journal, since=now - hour, until=now + hour)).events) >= 5
    assert (await told(journal, since=now + hour)).events == ()
    assert (await told(journal, until=now - hour)).events == ()


async def test_pages_are_the_whole(journal: Any, here: World) -> None:
    await story(here)
    whole = (await told(journal)).events
    seen: list[Any] = []
    cursor = ""
    while True:
        page = await told(journal, limit=2, cursor=cursor)
        assert len(page.events) <= 2
        seen += page.events
        cursor = page.cursor
        if not cursor:
            break
    assert tuple(seen) == whole


async def past(journal: Any, key: str, as_of: AsOf = NOW, **how: Any) -> HistoryResult:
    request = HistoryRequest("people", key, as_of, **how)
    result: HistoryResult = await journal.history(READER, request)
    return result


async def test_a_row_s_past(journal: Any, here: World) -> None:
    versions = await story(here)
    result = await past(journal, "1")
    (revision,) = result.revisions
    assert (revision.version, revision.kind, revision.actor) == (versions[1], "update", "write")
    (field,) = revision.fields
    assert (field.field, field.old_json, field.new_json) == ("phone", '"+49 1"', '"555"')
    assert json.loads(str(result.row_json))["phone"] == "555"
    assert (result.key_json, result.history_since) == ("[1]", versions[0])
    before = await past(journal, "1", AsOf(versions[0]))
    assert json.loads(str(before.row_json))["phone"] == "+49 1"
    gone = await past(journal, "2")
    assert (gone.row_json, [one.kind for one in gone.revisions]) == (None, ["delete"])
    assert len(gone.revisions[0].fields) == 3
    new = await past(journal, "4")
    assert [one.kind for one in new.revisions] == ["insert"]
    assert (await past(journal, "4", AsOf(versions[1]))).row_json is None


async def test_a_past_survives_compaction(journal: Any, here: World) -> None:
    versions = await story(here)
    rows = here.near["rows"]
    for number in range(3):
        await patched(rows, 1, phone=str(number))
    before = await past(journal, "1")
    events = (await told(journal)).events
    await rows.compact(DESK, CompactRequest("people", full=True))
    after = await past(journal, "1")
    assert after.revisions == before.revisions
    assert (await told(journal)).events == events
    then = await past(journal, "1", AsOf(versions[0]))
    assert json.loads(str(then.row_json))["phone"] == "+49 1"
    page = await past(journal, "1", limit=1)
    assert page.revisions == before.revisions[:1]
    rest = await past(journal, "1", limit=100, cursor=page.cursor)
    assert rest.revisions == before.revisions[1:]


async def test_the_feed_is_every_event_oldest_first(journal: Any, here: World) -> None:
    versions = await story(here)
    stream = await journal.feed(READER, FeedRequest("people", versions[0]))
    groups = [group async for group in stream.groups]
    assert stream.dataset == "people"
    assert [{event.version for event in group} for group in groups] == [{v} for v in versions[1:]]
    assert [len(group) for group in groups] == [1, 1, 3]
    newest = (await told(journal, after_version=versions[0])).events
    assert {(e.version, e.ordinal) for group in groups for e in group} == {
        (e.version, e.ordinal) for e in newest
    }


async def test_a_feed_that_follows_tells_what_comes(journal: Any, here: World) -> None:
    version = await created(here)
    stream = await journal.feed(READER, FeedRequest("people", version, follow=True))
    waiting = asyncio.ensure_future(anext(stream.groups))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    report = await patched(here.near["rows"], 1, phone="5")
    group = await asyncio.wait_for(waiting, 20)
    assert [(event.version, event.new_json) for event in group] == [(report.version, '"5"')]
    await stream.groups.aclose()


async def test_what_is_not_there_and_what_cannot_be_asked(journal: Any, here: World) -> None:
    await created(here)
    for call in (
        journal.events(READER, EventsRequest("nobody")),
        journal.history(READER, HistoryRequest("nobody", "1")),
        journal.feed(READER, FeedRequest("nobody")),
    ):
        await refused(call, ErrorKind.NOT_FOUND)
    for call in (
        told(journal, kind="nothing"),
        told(journal, cursor="nonsense"),
        told(journal, limit=0),
        told(journal, entity_json="[1,2]"),
        journal.events(READER, EventsRequest(entity_json="[1]")),
        past(journal, "x"),
        past(journal, "1", limit=0),
    ):
        await refused(call, ErrorKind.INVALID)


async def test_events_of_all_datasets(journal: Any, here: World) -> None:
    await story(here)
    await created(here, "plain", b"a\n1\n", key="")
    result = await journal.events(READER, EventsRequest())
    assert {event.dataset for event in result.events} == {"people", "plain"}
    (batch,) = [event for event in result.events if event.dataset == "plain"]
    assert (batch.kind, batch.rows, batch.entity) == (EventKind.BATCH, 1, "")
