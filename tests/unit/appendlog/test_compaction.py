"""Compaction and retention: what they cost, what they leave, what they never touch."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from unittest import mock

import pytest

from lakehouse.appendlog.batch import Position, encode, make_body
from lakehouse.appendlog.compaction import Compactor
from lakehouse.appendlog.event import encode_event
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.appendlog.reading import Damage, LogReader, Window
from lakehouse.appendlog.settings import LogSettings
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.access import Access
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ByteRange, ObjectStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.stores import RecordingStore

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
PREFIX = "_errors/log"
LAYOUT = LogLayout(PREFIX)
SMALL = LogSettings(slots_kept=2, merge_fan=4, merged_batches_max=64)


@pytest.fixture
def bucket() -> MemoryStore:
    return MemoryStore("log", CLOCK)


async def _open(store: ObjectStore, settings: LogSettings = SMALL) -> AppendLog:
    return await open_log(store, PREFIX, "a", CLOCK, IDS, settings)


async def _filled(store: ObjectStore, count: int, settings: LogSettings = SMALL) -> AppendLog:
    log = await _open(store, settings)
    for i in range(count):
        await log.append([{"i": i}])
    return log


async def _all(log: AppendLog) -> list[object]:
    return [one.event["i"] async for one in log.scan()]


async def test_merged_batches_are_read_alike_and_slots_are_gone(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 30)
    before = [one async for one in log.scan()]
    planned = await log.compact(dry_run=True)
    assert [meta.key for meta in await bucket.list(LAYOUT.merged)] == []
    done = await log.compact()
    assert (done.merged, done.batches) == (planned.merged, planned.batches)
    assert [one async for one in log.scan()] == before
    assert [one async for one in log.scan(newest_first=True)] == before[::-1]
    slots = [LAYOUT.slot_number(meta.key) for meta in await bucket.list(LAYOUT.slots)]
    assert slots == [29, 28]
    again = await log.compact()
    assert (again.merged, again.bytes_written, again.slots_deleted) == ((), 0, 0)
    await log.close()


async def test_a_merged_object_is_its_batches_one_after_the_other(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 10)
    slots = [await bucket.get(LAYOUT.slot(n)) for n in range(8)]
    await log.compact()
    (one,) = await bucket.list(LAYOUT.merged)
    data = await bucket.get(one.key)
    assert data[data.index(b"\n") + 1 :] == b"".join(slots)
    await log.close()


async def test_bytes_grow_linearly() -> None:
    """Four times the batches: four times the bytes, but for one more tier."""
    written = []
    for count in (128, 512):
        store = MeteredStore(MemoryStore("log", CLOCK))
        log = await _open(store)
        for i in range(count):
            await log.append([{"i": i, "text": "x" * 200}])
            if i % 8 == 7:
                await log.compact()
        footprint = store.footprint()
        kept = sum(meta.size_bytes for meta in await store.list(LAYOUT.merged))
        written.append(footprint.bytes_written)
        tiers = math.ceil(math.log(SMALL.merged_batches_max, SMALL.merge_fan)) + 2
        assert footprint.bytes_written <= kept * tiers * 1.3
        assert await _all(log) == list(range(count))
        await log.close()
    assert written[1] <= written[0] * 4 * 1.5


async def test_two_compactors_at_once_are_harmless(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 60)
    other = await _open(bucket)
    reports = await asyncio.gather(
        log.compact(), other.compact(), log.compact(), return_exceptions=True
    )
    assert not [one for one in reports if isinstance(one, BaseException)]
    assert await _all(log) == list(range(60))
    await log.compact()
    keys = [LAYOUT.range_of(meta.key) for meta in await bucket.list(LAYOUT.merged)]
    assert sum(one.batches for one in keys) == len({n for one in keys for n in _numbers(one)})
    for each in (log, other):
        await each.close()


def _numbers(one: object) -> range:
    return range(one.first, one.last + 1)  # type: ignore[attr-defined]


class Sleeper(ForwardingStore):
    """Before the first read of a slot it sleeps through whatever ``meanwhile`` does."""

    def __init__(self, inner: ObjectStore, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__(inner)
        self._meanwhile: Callable[[], Awaitable[None]] | None = meanwhile

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().get(key, byte_range)


async def _sleep_through_a_compaction(
    use: Callable[[Access], Awaitable[None]],
) -> tuple[MemoryStore, AppendLog]:
    """``use`` a log of eight batches by a handle that, once everything is planned, sleeps while
    another process merges and deletes; then late PUTs, of other events, arrive in the slots."""
    bucket = MemoryStore("log", CLOCK)
    log = await _filled(bucket, 8)
    slots = [LAYOUT.slot(n) for n in range(6)]
    old = [await bucket.get(key) for key in slots]

    async def meanwhile() -> None:
        await log.compact()
        for n, (key, data) in enumerate(zip(slots, old, strict=True)):
            body = make_body("late", [encode_event({"i": "ghost"}, 0)])
            late = encode(body, Position(n - 1), "late", 0).data
            assert len(data) != len(late)
            with suppress(LakehouseError):
                await bucket.put(key, late, if_absent=True)

    await use(Access(Sleeper(bucket, meanwhile), LAYOUT, CLOCK, IDS, SMALL.chain()))
    return bucket, log


async def _compact(access: Access) -> None:
    await Compactor(access, LAYOUT, SMALL).compact(dry_run=False)


async def _read(access: Access) -> None:
    reader = LogReader(access, LAYOUT, SMALL, _no_damage)
    assert [one.event["i"] async for one in reader.scan(Window())] == list(range(8))


async def _is_haunted(bucket: MemoryStore) -> bool:
    merged = [await bucket.get(meta.key) for meta in await bucket.list(LAYOUT.merged)]
    assert merged
    return any(b"ghost" in data for data in merged)


async def test_what_a_late_writer_left_below_the_floor_is_neither_merged_nor_read() -> None:
    bucket, log = await _sleep_through_a_compaction(_compact)
    assert not await _is_haunted(bucket)
    # Slots at or below the floor are swept by whoever compacts next.
    assert [LAYOUT.slot_number(meta.key) for meta in await bucket.list(LAYOUT.slots)] == [7, 6]
    assert await _all(log) == list(range(8))
    await log.close()
    bucket, log = await _sleep_through_a_compaction(_read)
    assert await _all(log) == list(range(8))
    await log.close()


async def test_without_the_second_look_at_the_floor_it_would_be() -> None:
    with mock.patch.object(Compactor, "_above_floor", mock.AsyncMock(return_value=True)):
        bucket, log = await _sleep_through_a_compaction(_compact)
    assert await _is_haunted(bucket)
    await log.close()
    with (
        mock.patch.object(LogReader, "_floor", mock.AsyncMock(return_value=-1)),
        pytest.raises(AssertionError),
    ):
        await _sleep_through_a_compaction(_read)


def _no_damage(damage: Damage) -> None:
    raise AssertionError(damage)


async def test_readers_during_compaction_see_everything_once(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 80)

    async def read(backwards: bool) -> None:
        for _ in range(10):
            found = [one.event["i"] async for one in log.scan(newest_first=backwards)]
            assert sorted(found) == list(range(80))
            assert found == sorted(found, reverse=backwards)

    await asyncio.gather(read(False), read(True), log.compact(), log.compact())
    await log.close()


async def test_a_scan_that_has_begun_goes_on_over_a_compaction(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 80)
    found = []
    async for one in log.scan():
        found.append(one.event["i"])
        if len(found) in (3, 30):
            await log.compact()
    assert found == list(range(80))
    await log.close()


async def test_a_damaged_merged_object_loses_only_what_is_damaged(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 10)
    await log.compact()
    (one,) = await bucket.list(LAYOUT.merged)
    data = await bucket.get(one.key)
    await bucket.put(one.key, data.replace(b'"i":3', b'"i":9'))
    damages: list[Damage] = []
    found = [each.event["i"] async for each in log.scan(on_damage=damages.append)]
    assert found == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert {each.key for each in damages} == {one.key}
    await bucket.put(one.key, data.replace(b'"n":5', b'"n":7'))
    assert await _all(log) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    await log.close()


async def test_a_merged_object_that_was_written_damaged_is_written_again(
    bucket: MemoryStore,
) -> None:
    other = MemoryStore("other", CLOCK)
    log = await _filled(bucket, 10)
    for meta in await bucket.list():
        await other.put(meta.key, await bucket.get(meta.key))
    await log.compact()
    (one,) = await bucket.list(LAYOUT.merged)
    await other.put(one.key, b"half of it")
    copy = await _open(other)
    await copy.compact()
    assert await other.get(one.key) == await bucket.get(one.key)
    assert await _all(copy) == list(range(10))
    for each in (log, copy):
        await each.close()


async def test_a_damaged_wide_object_stops_nothing_and_its_parts_stay(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 7)
    await log.compact()
    narrow = {meta.key: await bucket.get(meta.key) for meta in await bucket.list(LAYOUT.merged)}
    for i in range(7, 40):
        await log.append([{"i": i}])
    await log.compact()
    wide = {meta.key: await bucket.get(meta.key) for meta in await bucket.list(LAYOUT.merged)}
    assert not narrow.keys() & wide.keys()
    # As a run leaves it that crashed before it deleted them; and then the wide ones rot.
    for key, data in narrow.items():
        await bucket.put(key, data)
    for key, data in wide.items():
        await bucket.put(key, data[:-2] + b"?" + data[-1:])
    again = await _open(bucket)
    report = await again.compact()
    assert set(report.damaged) >= {key for key in wide if _covers(key, narrow)}
    assert narrow.keys() <= {meta.key for meta in await bucket.list(LAYOUT.merged)}
    # What comes after compaction on a timetable comes all the same.
    await again.retain(datetime.now(UTC))


def _covers(key: str, narrow: dict[str, bytes]) -> bool:
    outer = LAYOUT.range_of(key)
    return any(outer.covers(LAYOUT.range_of(one)) for one in narrow)


async def test_retention_gives_up_what_was_written_before(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 40)
    times = [one.event["at"] async for one in log.scan()]
    await log.compact()
    done = await log.retain(datetime.fromisoformat(times[39]))
    assert done.through == 38
    assert await _all(log) == [39]
    assert [meta.key for meta in await bucket.list(LAYOUT.merged)] == []
    # The newest batch stays, so that nobody takes its number again.
    done = await log.retain(datetime.fromisoformat("2100-01-01T00:00:00Z"))
    assert done.through == 38
    await log.append([{"i": 40}])
    assert await _all(log) == [39, 40]
    await log.close()
    again = await _open(bucket)
    assert await _all(again) == [39, 40]
    await again.close()


async def test_retention_of_slots_alone(bucket: MemoryStore) -> None:
    log = await _filled(bucket, 20)
    times = [one.event["at"] async for one in log.scan()]
    done = await log.retain(datetime.fromisoformat(times[7]))
    assert done.through <= 7
    assert done.batches == done.slots_deleted == done.through + 1
    assert await _all(log) == list(range(done.through + 1, 20))
    assert (await log.compact()).batches > 0
    assert await _all(log) == list(range(done.through + 1, 20))
    await log.close()


async def test_a_log_of_nothing_can_be_compacted_and_retained(bucket: MemoryStore) -> None:
    log = await _open(bucket)
    assert (await log.compact()).floor == -1
    assert (await log.retain(datetime.fromisoformat("2100-01-01T00:00:00Z"))).through == -1
    assert await _all(log) == []
    await log.close()


async def test_compaction_that_cannot_reach_the_bucket_says_so(bucket: MemoryStore) -> None:
    settings = LogSettings(append_budget_seconds=0.05, backoff_seconds_max=0.01)
    log = await _filled(bucket, 3, settings)

    async def down(*_: object, **__: object) -> None:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "down")

    store = RecordingStore(bucket)
    store.list = down  # type: ignore[assignment]
    broken = await open_log(store, PREFIX, "b", CLOCK, IDS, settings)
    with pytest.raises(LakehouseError) as refused:
        await broken.compact()
    assert refused.value.kind is ErrorKind.UNAVAILABLE
    await broken.close()
    await log.close()
