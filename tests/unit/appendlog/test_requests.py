"""The bill of a log: requests and bytes an operation, and how they grow."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lakehouse.appendlog.batch import Position, encode, make_body
from lakehouse.appendlog.event import encode_event
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.appendlog.settings import LogSettings
from lakehouse.kit.clock import SystemClock, to_datetime
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.stores import RecordingStore

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
PREFIX = "_errors/log"
LAYOUT = LogLayout(PREFIX)
START_US = 1_790_000_000_000_000
SECOND_US = 1_000_000


async def _filled(batches: int) -> MemoryStore:
    """A log of one event a batch, one batch a second, event ``i`` at second ``i``."""
    store, at = MemoryStore("log", CLOCK), Position()
    for number in range(batches):
        now_us = START_US + number * SECOND_US
        body = make_body(f"{number:026d}", [encode_event({"i": number}, now_us)])
        encoded = encode(body, at, "test", now_us)
        await store.put(LAYOUT.slot(number), encoded.data)
        at = Position.of(encoded.header)
    return store


async def _open(store: ObjectStore, settings: LogSettings = LogSettings()) -> AppendLog:  # noqa: B008
    return await open_log(store, PREFIX, "test", CLOCK, IDS, settings)


async def test_a_flush_is_one_put_and_one_list() -> None:
    store = RecordingStore(MemoryStore("log", CLOCK))
    log = await _open(store)
    await log.append([{"i": 0}])
    store.reset()
    await log.append([{"i": i} for i in range(1000)])
    assert store.counts == {"put": 1, "list": 1}
    store.reset()
    log.offer([{"i": 1}])
    await log.flush()
    assert store.counts == {"put": 1, "list": 1}
    store.reset()
    log.recent(100)
    assert store.counts == {}
    await log.close()


async def test_objects_and_bytes_follow_the_events() -> None:
    store = MeteredStore(MemoryStore("log", CLOCK))
    log = await _open(store)
    events = [{"at": "2026-01-01T00:00:00Z", "i": i, "text": "x" * 100} for i in range(10_000)]
    before = store.footprint()
    await log.append(events)
    after = store.footprint()
    size = sum(len(encode_event(event, 0).data) + 1 for event in events)
    assert after.requests["put"] - before.requests["put"] == -(-len(events) // 4096)
    assert after.bytes_written - before.bytes_written <= 1.1 * size
    await log.close()


@pytest.mark.parametrize("batches", [10, 3000])
async def test_opening_costs_the_same_however_long_the_log(batches: int) -> None:
    store = RecordingStore(await _filled(batches))
    log = await _open(store)
    assert store.counts == {"list": 1, "get": 4}
    assert [one.event["i"] for one in log.recent(2)] == [batches - 1, batches - 2]
    await log.close()


async def _search(log: AppendLog, store: RecordingStore, at: int) -> int:
    """Requests of a search for ten seconds in the middle."""
    store.reset()
    since = to_datetime(START_US + at * SECOND_US)
    found = [one.event["i"] async for one in log.scan(since, since + timedelta(seconds=10))]
    assert found == list(range(at, at + 10))
    return len(store.log)


async def test_a_search_by_time_costs_a_logarithm() -> None:
    costs = {}
    for batches in (250, 4000):
        store = RecordingStore(await _filled(batches))
        log = await _open(store)
        costs[batches] = max([await _search(log, store, at) for at in (0, 7, batches // 2)])
        await log.close()
    # 16 times as long: four more headers for each end.
    assert costs[4000] <= costs[250] + 10
    assert costs[4000] <= 60


async def test_a_search_in_merged_batches_reads_one_object() -> None:
    inner = await _filled(4000)
    store = RecordingStore(inner)
    log = await _open(store, LogSettings(merged_batches_max=256))
    await log.compact()
    ranges = [LAYOUT.range_of(meta.key) for meta in await inner.list(LAYOUT.merged)]
    assert len(ranges) > 10
    requests = await _search(log, store, 2010)
    assert requests <= 25
    whole = [key for operation, key in store.log if operation == "get" and "/m/" in key]
    # Headers of log2(objects) at each end, and at most two objects whole.
    assert len(whole) <= 14
    await log.close()


async def test_compaction_reads_and_writes_each_batch_once() -> None:
    inner = await _filled(1500)
    store = MeteredStore(inner)
    log = await _open(store)
    before = store.footprint()
    size = sum([len(await inner.get(LAYOUT.slot(n))) for n in range(1500)])
    report = await log.compact()
    after = store.footprint()
    assert report.batches == 1500 - 64
    assert after.bytes_written - before.bytes_written <= size * 1.05
    # Read once to merge, once more to verify what was written.
    assert after.bytes_read - before.bytes_read <= 2.1 * size
    assert after.requests["put"] - before.requests["put"] == len(report.merged) + 1
    await log.close()
