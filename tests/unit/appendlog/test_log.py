"""What goes into a log comes out of it: both classes, on memory and on a local folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse.appendlog.log import DEFAULT_SETTINGS, AppendLog, open_log
from lakehouse.appendlog.settings import LogSettings
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.stores import RecordingStore

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
PREFIX = "_errors/bucket_errors"


@pytest.fixture(params=["memory", "local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    local = request.param == "local"
    made: ObjectStore = (
        LocalStore(tmp_path / "bucket", CLOCK) if local else MemoryStore("log", CLOCK)
    )
    yield made
    await made.close()


async def _open(store: ObjectStore, settings: LogSettings = DEFAULT_SETTINGS) -> AppendLog:
    return await open_log(store, PREFIX, "test", CLOCK, IDS, settings)


async def _all(log: AppendLog) -> list[int]:
    return [one.event["i"] async for one in log.scan()]


async def test_what_is_appended_is_read_in_order(store: ObjectStore) -> None:
    log = await _open(store)
    first = await log.append([{"i": 0}, {"i": 1}])
    second = await log.append([{"i": 2}])
    assert first.first_seq < first.last_seq < second.first_seq
    found = [one async for one in log.scan()]
    assert [one.event["i"] for one in found] == [0, 1, 2]
    assert [one.seq for one in found] == [first.first_seq, first.last_seq, second.last_seq]
    assert await _all(log) == [0, 1, 2]
    await log.close()
    again = await _open(store)
    assert await _all(again) == [0, 1, 2]
    assert [one.event["i"] for one in again.recent(10)] == [2, 1, 0]
    await again.close()


async def test_what_is_offered_is_flushed_within_a_second(store: ObjectStore) -> None:
    log = await _open(store)
    assert log.offer([{"i": 0}, {"i": 1}]) == 2
    assert [one.event["i"] for one in log.recent(10)] == [1, 0]
    began = CLOCK.monotonic()
    while log.status().pending:
        await asyncio.sleep(0.01)
    assert CLOCK.monotonic() - began < 1.0
    assert await _all(log) == [0, 1]
    log.offer([{"i": 2}])
    await log.flush()
    assert await _all(log) == [0, 1, 2]
    assert log.status().dropped_total == 0
    await log.close()


async def test_callers_share_a_batch(store: ObjectStore) -> None:
    recorded = RecordingStore(store)
    log = await _open(recorded)
    await log.append([{"i": -1}])
    recorded.reset()
    await asyncio.gather(*(log.append([{"i": i}]) for i in range(100)))
    assert recorded.counts["put"] <= 2
    assert sorted(await _all(log)) == list(range(-1, 100))
    await log.close()


async def test_a_large_call_spreads_over_batches(store: ObjectStore) -> None:
    log = await _open(store, LogSettings(batch_events_max=10))
    done = await log.append([{"i": i} for i in range(25)])
    found = [one async for one in log.scan()]
    assert [one.event["i"] for one in found] == list(range(25))
    assert (found[0].seq, found[-1].seq) == (done.first_seq, done.last_seq)
    await log.close()


async def test_a_range_of_time_and_of_numbers(store: ObjectStore) -> None:
    log = await _open(store)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for i in range(20):
        await log.append([{"i": i, "at": start + timedelta(minutes=i)}])

    async def between(first: int, last: int, **window: object) -> list[int]:
        times = (start + timedelta(minutes=first), start + timedelta(minutes=last))
        return [one.event["i"] async for one in log.scan(*times, **window)]  # type: ignore[arg-type]

    assert await between(5, 8) == [5, 6, 7]
    assert await between(5, 8, newest_first=True) == [7, 6, 5]
    seqs = [one.seq async for one in log.scan()]
    after = [one.event["i"] async for one in log.scan(after_seq=seqs[16])]
    assert after == [17, 18, 19]
    before = [one.event["i"] async for one in log.scan(before_seq=seqs[2], newest_first=True)]
    assert before == [1, 0]
    await log.close()


@pytest.mark.parametrize(
    "event", [[1], {"at": "yesterday"}, {"id": 7}, {"x": object()}, {"i": 1 << 70}]
)
async def test_what_is_no_event(event: object) -> None:
    log = await _open(MemoryStore("log", CLOCK))
    with pytest.raises(LakehouseError) as caught:
        await log.append([event])  # type: ignore[list-item]
    assert caught.value.kind is ErrorKind.INVALID
    assert log.offer([event]) == 0  # type: ignore[list-item]
    assert log.status().dropped == {"invalid": 1}
    await log.close()


async def test_without_a_ring_what_comes_twice_is_once_all_the_same(store: ObjectStore) -> None:
    log = await _open(store, LogSettings(ring_events=0))
    assert log.offer([{"id": "a", "i": 0}, {"id": "a", "i": 0}, {"id": "b", "i": 1}, {"i": 2}]) == 4
    await log.flush()
    assert (await _all(log), log.recent(10), log.status().repeated) == ([0, 1, 2], [], 1)
    assert log.offer([{"id": "b", "i": 1}]) == 1
    assert log.status().repeated == 2
    await log.close()
