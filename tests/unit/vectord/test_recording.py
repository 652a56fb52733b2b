"""Records of retrievals: noted without waiting, kept for certain, found again by any process."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from lakehouse.contracts import retrievals as r
from lakehouse.contracts import vectors as c
from lakehouse.contracts.tags import Tag
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.kit.ids import encode_ulid
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.retrieval import RecordClass, SearchMode, Stage, StageScore
from lakehouse.vectord.records import finding
from lakehouse.vectord.records import recorder as recording
from lakehouse.vectord.records.recorder import Recorder
from lakehouse.vectord.records.values import compose, read_event, record_of
from unit.vectord.records_support import (
    ANN,
    CLOCK,
    IDS,
    INDEX,
    Memory,
    figures,
    got,
    listed,
    memory,
    searched,
)

BOB = Context(Principal("bob", (Scope.READ,)), "request-2")
OBJECTS = "_retrievals/objects/"


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Memory]:
    async with memory(tmp_path / "spool") as made:
        yield made


async def refusal(call: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as refused:
        await call
    return refused.value


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not there():
            await asyncio.sleep(0.02)


def recorder_is_empty(recorder: Recorder) -> bool:
    return figures(recorder)["lakehouse_retrievals_waiting"] == {(): 0}


def spooled(folder: Path) -> list[Path]:
    return list(folder.rglob("*.jsonl"))


async def test_what_is_noted_is_found_at_once_and_in_the_log_within_a_second(
    place: Memory,
) -> None:
    recorder, service = place.process()
    await recorder.start()
    one = searched()
    recorder.note([one])
    here = await service.get(ANN, r.RetrievalRequest(one.id))
    assert (here.kept, here.retrieval.text, here.version) == ("memory", "red fox", 9)
    # A second for the log, and what a busy machine takes.
    await until(lambda: recorder_is_empty(recorder))
    _, elsewhere = place.process()
    there = await got(elsewhere, one.id)
    assert there == here.retrieval == compose(one)
    assert there.digest
    assert (await service.get(ANN, r.RetrievalRequest(one.id))).kept == "log"
    assert figures(recorder) == {
        "lakehouse_retrievals_recorded": {("noted",): 1, ("kept",): 0},
        "lakehouse_retrievals_dropped": {},
        "lakehouse_retrievals_waiting": {(): 0},
    }


async def test_a_record_says_all_of_the_search(place: Memory) -> None:
    recorder, service = place.process()
    one = searched(k=3, filter="year > 2", exact=True, ef=50, candidates=99, purpose="recall")
    await recorder.keep([one])
    found = await got(service, one.id)
    assert (found.actor, found.workspace, found.source, found.request_id) == (
        "ann",
        "lab",
        "test",
        "request-1",
    )
    assert (found.k, found.filter, found.exact, found.ef, found.candidates, found.purpose) == (
        3,
        "year > 2",
        True,
        50,
        99,
        "recall",
    )
    assert (found.vector, found.indexes, found.hits_total) == (b"\x00\x00\x80?", (INDEX,), 3)
    assert [hit.score for hit in found.hits] == [1 / 3, 1 / 4, 1 / 5]
    assert (found.embed_ms, found.search_ms, found.version) == (1.5, 2.5, 9)
    assert abs(found.at - to_datetime(one.at_us)) < timedelta(milliseconds=1)


def test_an_event_is_read_as_what_it_was_made_of() -> None:
    stages = (StageScore(Stage.TEXT, 2, 3.25), StageScore(Stage.FUSION, 1, 1 / 61))
    plain = searched(hits=5)
    for one in (
        plain,
        searched(hits=0),
        replace(
            plain,
            hits=c.Hits(tuple(replace(hit, stages=stages, index="b") for hit in plain.hits.hits)),
            result=replace(plain.result, degraded=True, degraded_reason="away"),
            as_of_version=7,
        ),
    ):
        line = orjson.dumps(record_of(one).event)
        assert read_event(orjson.loads(line)) == compose(one)


async def test_noting_takes_less_than_ten_microseconds_wherever_the_bucket_is(
    place: Memory,
) -> None:
    place.store.away = True
    recorder, _ = place.process()
    await recorder.start()
    searches = [[searched()] for _ in range(500)]
    taken = []
    for each in searches:
        began = CLOCK.monotonic()
        recorder.note(each)
        taken.append(CLOCK.monotonic() - began)
    assert statistics.median(taken) < 10e-6


async def test_what_the_queue_has_no_room_for_is_counted(place: Memory) -> None:
    recorder, service = place.process(queue_max=5)
    every = [searched() for _ in range(8)]
    recorder.note(every)
    assert recorder.dropped == 3
    assert (await listed(service)).dropped == 3
    assert len((await listed(service)).retrievals) == 5
    told = await refusal(got(service, every[-1].id))
    assert (told.kind, told.fields["dropped"]) == (ErrorKind.NOT_FOUND, 3)
    await recorder.close()
    recorder.note(every)
    assert recorder.dropped == 11
    told_of = figures(recorder)["lakehouse_retrievals_dropped"]
    assert (told_of[("queue_full",)], told_of[("closed",)]) == (3, 8)


async def test_a_bucket_that_is_away_costs_searches_nothing_and_durable_ones_their_record(
    place: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_BUDGET_SECONDS", 0.6)
    recorder, service = place.process()
    await recorder.start()
    place.store.away = True
    one = searched()
    recorder.note([one])
    assert (await service.get(ANN, r.RetrievalRequest(one.id))).kept == "memory"
    keeping = asyncio.create_task(refusal(recorder.keep([searched(record=RecordClass.DURABLE)])))
    await asyncio.sleep(0.3)
    assert figures(recorder)["lakehouse_retrievals_waiting"] == {(): 1}
    place.store.away = False
    place.store.writes_away = True
    told = await keeping
    assert told.kind in (ErrorKind.UNAVAILABLE, ErrorKind.UNKNOWN)
    place.store.writes_away = False
    await recorder.flush(5.0)
    _, elsewhere = place.process()
    assert (await got(elsewhere, one.id)).text == "red fox"
    assert recorder.dropped == 0


async def test_a_process_that_is_killed_leaves_what_it_noted_to_the_next_one(
    place: Memory,
) -> None:
    recorder, _ = place.process()
    await recorder.start()
    place.store.writes_away = True
    every = [searched(f"query {number}") for number in range(20)]
    recorder.note(every)
    # A quarter of a second from the search to the disk, and what a busy machine takes.
    await until(lambda: any(b"query 19" in one.read_bytes() for one in spooled(place.folder)))
    recorder.abandon()
    place.store.writes_away = False
    again, service = place.process()
    await again.start()
    assert (await got(service, every[3].id)).text == "query 3"
    await again.flush(5.0)
    _, elsewhere = place.process()
    found = (await listed(elsewhere)).retrievals
    assert [one.id for one in found] == [one.id for one in reversed(every)]


async def test_one_that_comes_twice_is_one(place: Memory) -> None:
    recorder, service = place.process()
    one = searched()
    recorder.note([one, one])
    await recorder.flush()
    await recorder.keep([one])
    assert [each.id for each in (await listed(service)).retrievals] == [one.id]


async def test_a_durable_one_is_in_the_log_when_it_is_answered(place: Memory) -> None:
    recorder, _ = place.process()
    both = [searched("one", record=RecordClass.DURABLE), searched("two")]
    await recorder.keep(both)
    recorder.abandon()
    _, elsewhere = place.process()
    assert [(await got(elsewhere, one.id)).text for one in both] == ["one", "two"]
    assert (await got(elsewhere, both[0].id)).record is RecordClass.DURABLE


@pytest.mark.parametrize(
    "known",
    ["", "x", "..", "not an id", "01M80J045BBD103D7TZ2V3Q9K", "8" * 26, "é" * 26, "0" * 10_000],
)
async def test_what_is_no_id_is_not_found(place: Memory, known: str) -> None:
    _, service = place.process()
    told = await refusal(got(service, known))
    assert told.kind is ErrorKind.NOT_FOUND
    assert "26" in str(told.fields["hint"])


async def test_why_an_id_is_not_found_is_said_as_far_as_it_is_known(place: Memory) -> None:
    _, service = place.process(retention_days=10.0)
    now_ms = CLOCK.now_us() // 1000
    days = 86_400_000
    for ago, words in (
        (-1 * days, "not yet"),
        (0, "on its way"),
        (days, "never remembered"),
        (11 * days, "kept for 10 days"),
    ):
        told = await refusal(got(service, encode_ulid(now_ms - ago, 7)))
        assert (told.kind, words in str(told.fields["hint"])) == (ErrorKind.NOT_FOUND, True), words


async def test_an_id_may_be_written_small(place: Memory) -> None:
    recorder, service = place.process()
    one = searched()
    recorder.note([one])
    assert (await got(service, f" {one.id.lower()} ")).id == one.id


async def test_many_hits_are_an_object_and_a_list_shows_the_first(place: Memory) -> None:
    recorder, service = place.process()
    large, durable = searched(hits=2_000), searched(hits=1_500, text="x" * 70_000)
    recorder.note([large])
    await recorder.keep([durable])
    assert len((await got(service, large.id)).hits) == 2_000
    await recorder.flush()
    assert len(await place.store.list(OBJECTS)) == 2
    _, elsewhere = place.process()
    for one, count in ((large, 2_000), (durable, 1_500)):
        found = await got(elsewhere, one.id)
        assert (len(found.hits), found.hits_total, found) == (count, count, compose(one))
    shown = {one.id: one for one in (await listed(elsewhere)).retrievals}
    assert (len(shown[large.id].hits), shown[large.id].hits_total) == (100, 2_000)
    assert shown[large.id].digest == compose(large).digest
    assert (len(shown[durable.id].text), shown[durable.id].hits_total) == (1_000, 1_500)


@pytest.mark.parametrize("harm", ["bytes", "gone", "cut"])
async def test_a_damaged_object_is_said_and_hides_nothing_else(place: Memory, harm: str) -> None:
    recorder, service = place.process()
    one, other = searched(hits=2_000), searched()
    await recorder.keep([one, other])
    (meta,) = await place.store.list(OBJECTS)
    data = await place.store.get(meta.key)
    await place.store.delete([meta.key])
    if harm == "bytes":
        await place.store.put(meta.key, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    if harm == "cut":
        await place.store.put(meta.key, data[: len(data) // 2])
    told = await refusal(got(service, one.id))
    assert (told.kind, told.fields["key"]) == (ErrorKind.CORRUPT, meta.key)
    assert (await got(service, other.id)).id == other.id
    assert {each.id for each in (await listed(service)).retrievals} == {one.id, other.id}


async def test_a_damaged_batch_is_told_of_and_hides_nothing_else(place: Memory) -> None:
    recorder, service = place.process()
    one, other = searched(), searched()
    await recorder.keep([one])
    await recorder.keep([other])
    slots = [meta.key for meta in await place.store.list("_retrievals/searches/c/")]
    first = max(slots)  # numbers of slots fall
    data = await place.store.get(first)
    await place.store.delete([first])
    await place.store.put(first, data.replace(b"red fox", b"rot fax"))
    page = await listed(service)
    assert ([each.id for each in page.retrievals], page.unreadable) == ([other.id], 1)
    told = await refusal(got(service, one.id))
    assert (told.kind, "backup" in str(told.fields["hint"])) == (ErrorKind.NOT_FOUND, True)


async def test_lists_are_filtered_and_paged_newest_first(place: Memory) -> None:
    recorder, service = place.process()
    every = []
    for number in range(30):
        one = searched(
            f"query {number}",
            ctx=BOB if number % 3 else ANN,
            mode=SearchMode.TEXT if number % 2 else SearchMode.VECTOR,
            purpose="rag" if number % 5 == 0 else "search",
        )
        if number == 7:
            one = replace(one, indexes=(INDEX, replace(INDEX, index="Notes")))
        every.append(one)
        recorder.note([one])
        if number % 10 == 9:
            await recorder.flush()
    told = [one.request.queries[0].text for one in reversed(every)]
    assert [one.text for one in (await listed(service)).retrievals] == told
    pages, cursor = [], ""
    while True:
        page = await listed(service, limit=7, cursor=cursor)
        pages += [one.text for one in page.retrievals]
        cursor = page.cursor
        if not cursor:
            break
    assert pages == told
    assert len((await listed(service, actor="ann")).retrievals) == 10
    assert len((await listed(service, mode="text")).retrievals) == 15
    assert len((await listed(service, purpose="rag", actor="bob")).retrievals) == 4
    assert [one.text for one in (await listed(service, index="notes")).retrievals] == ["query 7"]
    assert (await listed(service, index="none")).retrievals == ()
    middle = compose(every[15]).at
    assert len((await listed(service, since=middle)).retrievals) >= 15
    until = (await listed(service, until=middle)).retrievals
    assert all(one.at < middle for one in until)
    assert len(until) <= 15


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"mode": "sideways"}, "mode"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "eyJiZWZvcmUiOi0xfQ"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"since": to_datetime(0).replace(tzinfo=None)}, "since"),
    ],
)
async def test_a_list_that_cannot_be_is_refused(
    place: Memory, fields: dict[str, Any], word: str
) -> None:
    _, service = place.process()
    told = await refusal(listed(service, **fields))
    assert (told.kind, word in told.message) == (ErrorKind.INVALID, True)


async def test_a_page_ends_in_time_and_goes_on_from_there(
    place: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, service = place.process()
    await recorder.keep([searched(f"query {number}") for number in range(5)])
    monkeypatch.setattr(finding, "SCAN_SECONDS", -1.0)
    page = await listed(service)
    assert (page.retrievals, bool(page.cursor)) == ((), True)
    monkeypatch.undo()
    assert len((await listed(service, cursor=page.cursor)).retrievals) == 5


async def test_merged_batches_are_found_and_old_ones_are_given_up(place: Memory) -> None:
    recorder, service = place.process(retention_days=1e-9)
    old_ms = CLOCK.now_us() // 1000 - 3 * 86_400_000
    old = replace(searched(hits=2_000), id=encode_ulid(old_ms, 1))
    await recorder.keep([old])
    every = [searched(f"query {number}") for number in range(100)]
    for one in every:
        await recorder.keep([one])
    assert (await got(service, old.id)).hits_total == 2_000
    await recorder.place.pin(compose(every[0]))
    await recorder.tidy()
    left = (await listed(service, limit=1000)).retrievals
    # The newest batch always stays, and what lies in one object with it.
    assert 1 <= len(left) < 100
    assert left[0].id == every[-1].id
    assert (await refusal(got(service, old.id))).kind is ErrorKind.NOT_FOUND
    assert await place.store.list(OBJECTS) == []
    assert (await got(service, every[0].id)).text == "query 0"


@pytest.mark.parametrize("days", [0.0, 1e6, float("inf")])
async def test_compaction_loses_none(place: Memory, days: float) -> None:
    recorder, service = place.process(retention_days=days)
    every = [searched(f"query {number}") for number in range(100)]
    for one in every:
        await recorder.keep([one])
    await recorder.tidy()
    assert await place.store.list("_retrievals/searches/m/")
    _, elsewhere = place.process()
    assert len((await listed(elsewhere, limit=1000)).retrievals) == 100
    assert (await got(elsewhere, every[5].id)).text == "query 5"
    unknown = await refusal(got(service, encode_ulid(CLOCK.now_us() // 1000 - 60_000, 1)))
    assert "never remembered" in str(unknown.fields["hint"])
    assert (await got(service, every[99].id)).text == "query 99"


async def test_nothing_is_written_where_another_store_is(place: Memory) -> None:
    place.catalog.store_id = IDS.ulid()
    recorder, _ = place.process()
    recorder.note([searched()])
    told = await refusal(recorder.keep([searched()]))
    assert told.kind is ErrorKind.UNAVAILABLE
    assert "not the catalog's" in str(told.fields["cause"])
    await recorder.flush(0.2)
    assert await place.store.list("_retrievals/") == []


async def test_what_waits_says_why(place: Memory, caplog: pytest.LogCaptureFixture) -> None:
    recorder, _ = place.process()
    recorder.note([searched()])
    with caplog.at_level("INFO", logger=recording.__name__):
        await recorder.flush(0.0)
    told = [one for one in caplog.records if one.message == "retrievals wait to be written"]
    assert [one.__dict__["reason"] for one in told] == ["not done within 0 s"]


async def test_pins_are_told_by_their_tags(place: Memory) -> None:
    recorder, service = place.process()
    both = [searched(), searched()]
    await recorder.keep(both)
    name = f"retrieval-{both[0].id}-1"
    place.catalog.named = (Tag(name, 9, to_datetime(0)), Tag("other", 9, to_datetime(0)))
    found = await got(service, both[0].id)
    assert (found.pinned, found.tags) == (True, (name,))
    assert not (await got(service, both[1].id)).pinned
    assert [one.pinned for one in (await listed(service)).retrievals] == [False, True]


async def test_reading_needs_the_scope_and_pinning_another(place: Memory) -> None:
    recorder, service = place.process()
    one = searched()
    recorder.note([one])
    nobody = Context(Principal("nobody", ()), "request-3")
    for call in (
        service.get(nobody, r.RetrievalRequest(one.id)),
        service.list(nobody, r.ListRetrievalsRequest()),
        service.replay(nobody, r.RetrievalRequest(one.id)),
        service.explain(nobody, r.RetrievalRequest(one.id)),
        service.pin(BOB, r.PinRequest(one.id)),
    ):
        assert (await refusal(call)).kind is ErrorKind.FORBIDDEN


async def test_a_text_that_is_no_text_is_dropped_and_hides_no_other(place: Memory) -> None:
    recorder, service = place.process()
    one = searched()
    odd = replace(
        one, id=IDS.ulid(), request=replace(one.request, queries=(c.VectorQuery("\ud800"),))
    )
    recorder.note([odd, one])
    await recorder.flush()
    assert [each.id for each in (await listed(service)).retrievals] == [one.id]
    assert recorder.dropped == 1
