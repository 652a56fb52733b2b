"""The moments at which a log could lose, double or hide an event, one test each."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from unittest import mock

import pytest

from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.appendlog.reading import Damage
from lakehouse.appendlog.settings import LogSettings, SpoolBounds
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ByteRange, ObjectMeta, ObjectStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.stores import Fault, FaultStore, RecordingStore

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
PREFIX = "_errors/log"
LAYOUT = LogLayout(PREFIX)
SMALL = LogSettings(
    slots_kept=2,
    merge_fan=4,
    merged_batches_max=64,
    append_budget_seconds=0.3,
    backoff_seconds=0.005,
    backoff_seconds_max=0.05,
    flush_seconds=0.1,
)


def spooling(folder: Path) -> LogSettings:
    return LogSettings(
        spool_folder=str(folder / "spool"),
        flush_seconds=0.1,
        append_budget_seconds=0.3,
        backoff_seconds=0.005,
        backoff_seconds_max=0.05,
    )


class Switch(ForwardingStore):
    """A bucket that can be switched off: then nothing is done and nothing answers."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.off = False

    def _check(self) -> None:
        if self.off:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "switched off")

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        self._check()
        return await super().get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self._check()
        return await super().put(key, data, if_absent=if_absent)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        self._check()
        return await super().list(prefix, start_after=start_after, limit=limit)


@pytest.fixture
def bucket() -> MemoryStore:
    return MemoryStore("log", CLOCK)


async def _open(store: ObjectStore, settings: LogSettings = SMALL, name: str = "a") -> AppendLog:
    return await open_log(store, PREFIX, name, CLOCK, IDS, settings)


async def _all(log: AppendLog) -> list[object]:
    return [one.event["i"] async for one in log.scan()]


async def _until(condition: object, seconds: float = 5.0) -> None:
    end = CLOCK.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert CLOCK.monotonic() < end, "it did not come to it"
        await asyncio.sleep(0.005)


async def test_offered_events_survive_kill(bucket: MemoryStore, tmp_path: Path) -> None:
    store = Switch(bucket)
    log = await _open(store, spooling(tmp_path))
    store.off = True
    assert log.offer([{"i": i} for i in range(10)]) == 10
    await _until(lambda: log.status().spooled == 10)
    log.abandon()
    store.off = False
    again = await _open(store, spooling(tmp_path), "b")
    assert again.status().recovered == 10
    assert len(again.recent(100)) == 10
    await again.flush()
    assert await _all(again) == list(range(10))
    await again.close()


async def test_two_writers_on_one_log_lose_nothing(bucket: MemoryStore) -> None:
    logs = [await _open(bucket, name=name) for name in "ab"]
    places: dict[int, int] = {}

    async def write(log: AppendLog, first: int) -> None:
        for i in range(first, first + 30):
            places[i] = (await log.append([{"i": i}])).first_seq

    await asyncio.gather(write(logs[0], 0), write(logs[1], 100))
    found = [one async for one in logs[0].scan()]
    assert {one.event["i"]: one.seq for one in found} == places
    assert len(set(places.values())) == 60
    for log in logs:
        await log.close()


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.DELAYED])
async def test_a_put_whose_reply_is_lost_is_settled(bucket: MemoryStore, fault: Fault) -> None:
    store = FaultStore(bucket)
    log = await _open(store)
    store.inject("put", fault)
    store.inject("put", fault)
    done = await log.append([{"i": 1}])
    await store.settle()
    await log.append([{"i": 2}])
    found = [one async for one in log.scan()]
    assert [one.event["i"] for one in found] == [1, 2]
    assert found[0].seq == done.first_seq
    await log.close()


async def test_an_open_outcome_is_unknown_and_the_rest_a_definite_no(bucket: MemoryStore) -> None:
    store = Switch(bucket)
    log = await _open(store)
    await log.append([{"i": 0}])
    store.off = True
    first = asyncio.ensure_future(log.append([{"i": 1}]))
    await asyncio.sleep(0.02)
    second = asyncio.ensure_future(log.append([{"i": 2}]))
    with pytest.raises(LakehouseError) as unknown:
        await first
    assert unknown.value.kind is ErrorKind.UNKNOWN
    with pytest.raises(LakehouseError) as refused:
        await second
    assert refused.value.kind is ErrorKind.UNAVAILABLE
    with pytest.raises(LakehouseError) as busy:
        await log.append([{"i": 3}])
    assert busy.value.kind is ErrorKind.UNAVAILABLE
    assert log.status().settling
    assert log.status().unavailable_since is not None
    store.off = False
    await _until(lambda: not log.status().settling)
    await log.append([{"i": 4}])
    assert await _all(log) == [0, 1, 4]
    assert log.status().unavailable_since is None
    await log.close()


async def test_a_refusal_is_told_and_leaves_nothing(bucket: MemoryStore) -> None:
    store = FaultStore(bucket)
    log = await _open(store)
    store.inject("put", Fault.BEFORE, ErrorKind.FORBIDDEN)
    with pytest.raises(LakehouseError) as refused:
        await log.append([{"i": 1}])
    assert refused.value.kind is ErrorKind.FORBIDDEN
    await log.append([{"i": 2}])
    assert await _all(log) == [2]
    await log.close()


async def test_a_flush_that_is_retried_is_stored_once(bucket: MemoryStore, tmp_path: Path) -> None:
    store = FaultStore(bucket)
    log = await _open(store, spooling(tmp_path))
    store.inject("put", Fault.AFTER)
    store.inject("list", Fault.BEFORE)
    log.offer([{"i": 1, "id": "one"}])
    await log.flush()
    # The same again, by a process that forwards and had no answer.
    assert log.offer([{"i": 1, "id": "one"}]) == 1
    await log.flush()
    assert log.status().repeated == 1
    assert await _all(log) == [1]
    await log.close()
    again = await _open(store, spooling(tmp_path))
    assert again.offer([{"i": 1, "id": "one"}]) == 1
    await again.flush()
    assert again.status().repeated == 1
    assert await _all(again) == [1]
    await again.close()


async def test_killed_between_put_and_spool_it_is_stored_once(
    bucket: MemoryStore, tmp_path: Path
) -> None:
    """The batch is in the log, and nobody told the spool."""
    store = Switch(bucket)
    log = await _open(store, spooling(tmp_path))

    async def put_then_die(key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        await bucket.put(key, data, if_absent=if_absent)
        log.abandon()
        await asyncio.Event().wait()
        raise AssertionError

    store.put = put_then_die  # type: ignore[method-assign]
    log.offer([{"i": 1}])
    await _until(lambda: len(bucket._keys) == 1)
    again = await _open(bucket, spooling(tmp_path), "b")
    assert again.status().recovered == 1
    await again.append([{"i": 2}])
    await again.flush()
    assert again.status().pending == 0
    batches = await bucket.list(LAYOUT.slots)
    assert await _all(again) == [1, 2]
    assert len(batches) == 2
    await again.close()


async def test_sigterm_flushes_first(bucket: MemoryStore, tmp_path: Path) -> None:
    log = await _open(bucket, spooling(tmp_path))
    log.offer([{"i": 1}])
    waiting = asyncio.ensure_future(log.append([{"i": 2}]))
    await asyncio.sleep(0)
    await log.close()
    assert (await waiting).first_seq
    assert log.offer([{"i": 3}]) == 0
    assert log.status().dropped == {"closed": 1}
    with pytest.raises(LakehouseError) as closed:
        await log.append([{"i": 4}])
    assert closed.value.kind is ErrorKind.UNAVAILABLE
    again = await _open(bucket, spooling(tmp_path))
    assert sorted(await _all(again), key=str) == [1, 2]
    assert again.status().recovered == 0
    await again.close()


async def test_sigterm_while_the_bucket_is_down_keeps_the_spool(
    bucket: MemoryStore, tmp_path: Path
) -> None:
    store = Switch(bucket)
    log = await _open(store, spooling(tmp_path))
    store.off = True
    log.offer([{"i": 1}])
    began = CLOCK.monotonic()
    await log.close(0.3)
    assert CLOCK.monotonic() - began < 1.5
    again = await _open(bucket, spooling(tmp_path))
    await again.flush()
    assert await _all(again) == [1]
    await again.close()


async def test_a_bucket_that_is_down_at_start_stops_nothing(
    bucket: MemoryStore, tmp_path: Path
) -> None:
    before = await _open(bucket)
    await before.append([{"i": 0}])
    await before.close()
    store = Switch(bucket)
    store.off = True
    log = await _open(store, spooling(tmp_path))
    assert log.status().unavailable_since is not None
    assert log.offer([{"i": 1}]) == 1
    assert [one.event["i"] for one in log.recent(10)] == [1]
    assert [one.event["i"] for one in await log.waiting()] == [1]
    store.off = False
    await _until(lambda: log.status().unavailable_since is None and not log.status().pending)
    assert await _all(log) == [0, 1]
    assert [one.event["i"] for one in log.recent(10)] == [1, 0]
    await log.close()


async def test_the_ring_is_filled_again_at_start_with_few_requests(bucket: MemoryStore) -> None:
    log = await _open(bucket)
    for i in range(40):
        await log.append([{"i": i}])
    await log.compact()
    await log.close()
    store = RecordingStore(bucket)
    again = await _open(store)
    # Slots that compaction took are not read for the ring.
    assert [one.event["i"] for one in again.recent(2)] == [39, 38]
    assert store.counts["list"] == 1
    assert store.counts["get"] <= SMALL.ring_batches
    await again.close()


async def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    store = Switch(MemoryStore("log", CLOCK))
    settings = LogSettings(
        spool_folder=str(tmp_path),
        spool=SpoolBounds(events_max=10),
        unspooled_events_max=50,
        flush_seconds=0.1,
        append_budget_seconds=0.2,
    )
    log = await _open(store, settings)
    store.off = True
    assert log.offer([{"i": i} for i in range(60)]) == 50
    await _until(lambda: log.status().dropped_total == 50)
    assert log.status().dropped == {"memory_full": 10, "spool_full": 40}
    store.off = False
    await log.flush()
    assert await _all(log) == list(range(10))
    await log.close()


async def test_an_outage_is_spooled_fsynced_and_sent_in_few_batches(
    bucket: MemoryStore, tmp_path: Path
) -> None:
    store = Switch(bucket)
    log = await _open(store, spooling(tmp_path))
    store.off = True
    with mock.patch("os.fsync", wraps=os.fsync) as fsync:
        for i in range(30):
            log.offer([{"i": i}])
            await asyncio.sleep(0.02)
        await _until(lambda: log.status().spooled == 30)
        # The first segment before it was sent; what came after it, too, though it was not sent.
        assert fsync.call_count > 4
    assert log.status().unavailable_since is not None
    store.off = False
    began = CLOCK.monotonic()
    await _until(lambda: not log.status().pending)
    assert CLOCK.monotonic() - began < 5.0
    assert await _all(log) == list(range(30))
    assert len(await bucket.list(LAYOUT.slots)) <= 4
    await log.close()


async def test_a_durable_append_behind_a_flush_that_fails_is_told(
    bucket: MemoryStore, tmp_path: Path
) -> None:
    store = Switch(bucket)
    store.off = True
    log = await _open(store, spooling(tmp_path))
    log.offer([{"i": 1}])
    await _until(lambda: log._slot.locked())
    began = CLOCK.monotonic()
    with pytest.raises(LakehouseError) as refused:
        await log.append([{"i": 2}])
    assert refused.value.kind is ErrorKind.UNAVAILABLE
    assert CLOCK.monotonic() - began < 1.0
    await log.close(0)


async def test_settings_that_cannot_work_are_refused(bucket: MemoryStore) -> None:
    for settings in (LogSettings(batch_events_max=65_536), LogSettings(merge_fan=1)):
        with pytest.raises(LakehouseError) as refused:
            await _open(bucket, settings)
        assert refused.value.kind is ErrorKind.INVALID


async def test_one_bad_line_costs_one_event(bucket: MemoryStore) -> None:
    log = await _open(bucket)
    await log.append([{"i": i, "text": "abc"} for i in range(5)])
    await log.append([{"i": 5}])
    key = LAYOUT.slot(0)
    data = await bucket.get(key)
    # A flip inside a value: still JSON, and a wrong row if it were believed.
    await bucket.put(key, data.replace(b'"i":2,"text":"abc"', b'"i":2,"text":"abd"'))
    damages: list[Damage] = []
    found = [one async for one in log.scan(on_damage=damages.append)]
    assert [one.event["i"] for one in found] == [0, 1, 3, 4, 5]
    assert [(one.key, one.n, one.lines) for one in damages] == [(key, 0, 1)]
    assert log.status().damaged == 1
    await log.close()


@pytest.mark.parametrize("damage", ["header", "torn", "empty", "foreign", "lost break"])
async def test_one_bad_batch_hides_no_other(bucket: MemoryStore, damage: str) -> None:
    log = await _open(bucket)
    for i in range(3):
        await log.append([{"i": 10 * i}, {"i": 10 * i + 1}])
    key = LAYOUT.slot(1)
    data = await bucket.get(key)
    damaged, left = {
        "header": (data.replace(b'"n":1', b'"n":7'), []),
        "torn": (data[:-5], [10]),
        "empty": (b"", []),
        "foreign": (b"<html>not a batch</html>", []),
        "lost break": (data.replace(b"}\n{", b"} {", 2).replace(b"} {", b"}\n{", 1), []),
    }[damage]
    await bucket.put(key, damaged)
    damages: list[Damage] = []
    found = [one.event["i"] async for one in log.scan(on_damage=damages.append)]
    assert found == [0, 1, *left, 20, 21]
    assert {one.key for one in damages} == {key}
    backwards = [one.event["i"] async for one in log.scan(newest_first=True)]
    assert backwards == found[::-1]
    await log.close()
    # Nor does it stop a writer, newest though it may be, or a compactor.
    again = await _open(bucket)
    for i in range(30, 40):
        await again.append([{"i": i}])
    report = await again.compact()
    assert report.damaged == (key,)
    assert await _all(again) == [*found, *range(30, 40)]
    await again.close()


async def test_the_newest_batch_is_damaged_and_the_log_goes_on(bucket: MemoryStore) -> None:
    log = await _open(bucket)
    await log.append([{"i": 0}])
    await log.append([{"i": 1}])
    await log.close()
    await bucket.put(LAYOUT.slot(1), b"\x00" * 100)
    again = await _open(bucket)
    await again.append([{"i": 2}])
    assert await _all(again) == [0, 2]
    await again.close()


async def test_batches_that_vanished_are_named(bucket: MemoryStore) -> None:
    log = await _open(bucket)
    for i in range(20):
        await log.append([{"i": i}])
    await log.compact()
    merged = [meta.key for meta in await bucket.list(LAYOUT.merged)]
    await bucket.delete(merged[:1])
    gone = LAYOUT.range_of(merged[0])
    damages: list[Damage] = []
    found = [one.event["i"] async for one in log.scan(on_damage=damages.append)]
    assert found == list(range(gone.last + 1, 20))
    assert [(one.n, "missing" in one.reason) for one in damages] == [(0, True)]
    await log.close()
    await bucket.delete([meta.key for meta in await bucket.list(LAYOUT.slots)])
    with pytest.raises(LakehouseError) as refused:
        await _open(bucket)
    assert refused.value.kind is ErrorKind.CORRUPT


async def test_a_newer_format_is_refused_not_skipped(bucket: MemoryStore) -> None:
    log = await _open(bucket)
    await log.append([{"i": 0}])
    from lakehouse.appendlog.batch import seal_header

    await bucket.put(LAYOUT.slot(1), seal_header({"format": 2, "n": 1}))
    with pytest.raises(LakehouseError) as refused:
        await _all(log)
    assert refused.value.kind is ErrorKind.CONFLICT
    await log.close()
