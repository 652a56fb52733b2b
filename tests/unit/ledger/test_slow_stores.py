"""A write that hangs does not stop the ledger; keys are forgotten by age and number."""

from __future__ import annotations

import asyncio

import pytest

from lakehouse.kit.clock import SystemClock
from lakehouse.ledger import floor
from lakehouse.ledger.keys import Key, Keys, dump_segment, load_segment
from lakehouse.ledger.ledger import OpenOptions, WriterInfo, open_ledger
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ObjectMeta
from lakehouse.testing.clocks import ManualClock, SeededIds
from lakehouse.testing.simulation.machine import WorldMachine, add_token


class HangingStore(MemoryStore):
    """Each put in ``hang`` waits for ever, each list in ``lists_hang``; ``puts`` counts."""

    hang = 0
    puts = 0
    lists_hang = 0

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        if self.lists_hang:
            self.lists_hang -= 1
            await asyncio.Event().wait()
        return await super().list(prefix, start_after=start_after, limit=limit)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self.puts += 1
        if self.hang:
            self.hang -= 1
            await asyncio.Event().wait()
        return await super().put(key, data, if_absent=if_absent)


async def test_a_slow_put_is_sent_again_beside_the_first() -> None:
    clock = ManualClock()
    store = HangingStore("hanging", clock)
    options = OpenOptions(settings=LedgerSettings(hedge_seconds_min=0.25))
    writer = WriterInfo("a")
    ledger = await open_ledger(store, WorldMachine(), writer, clock, SeededIds(), options)
    for number in range(20):
        await ledger.commit(add_token(f"t{number}"))
    store.hang, store.puts = 1, 0
    task = asyncio.ensure_future(ledger.commit(add_token("slow")))
    await asyncio.sleep(0.05)
    await clock.advance(0.2)
    assert store.puts == 1
    await clock.advance(0.1)
    done = await asyncio.wait_for(task, 5)
    assert (done.seq, store.puts) == (21, 2)
    closing = asyncio.ensure_future(ledger.close())
    await asyncio.sleep(0.05)
    await clock.advance(1)
    await closing


async def test_a_look_at_the_floor_that_hangs_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "PATIENCE_SECONDS", (0.02, 0.02, 2.0))
    store = HangingStore("hanging-lists", SystemClock())
    writer, ids = WriterInfo("a"), SeededIds()
    ledger = await open_ledger(store, WorldMachine(), writer, SystemClock(), ids)
    store.lists_hang, store.puts = 2, 0
    done = await asyncio.wait_for(ledger.commit(add_token("slow")), 5)
    assert (done.seq, store.puts, store.lists_hang) == (1, 1, 0)
    await ledger.close()


def _key(number: int, ts_us: int) -> Key:
    return Key(f"k{number}", "b", number, number, ts_us)


def test_keys_are_forgotten_by_number() -> None:
    keys = Keys(keys_max=100, seconds=1e9)
    for number in range(1000):
        keys.add(_key(number, number))
    assert 75 <= len(keys) <= 100
    assert keys.find("k999", 1000) is not None
    assert keys.find("k0", 1000) is None


def test_keys_are_forgotten_by_age() -> None:
    keys = Keys(keys_max=100, seconds=10)
    keys.add(_key(1, 0))
    assert keys.find("k1", 9_999_999) is not None
    assert keys.find("k1", 10_000_000) is None
    for number in range(2, 60):
        keys.add(_key(number, 20_000_000 if number > 30 else 0))
    # The first segment of 25 is old as a whole; the second has young keys and stays.
    assert len(keys) == 59 - 25


def test_a_key_used_again_after_a_day_keeps_its_newer_commit() -> None:
    keys = Keys(keys_max=8, seconds=1e9)
    keys.add(_key(1, 0))
    keys.add(Key("k1", "b", 50, 50, 5))
    for number in range(2, 6):
        keys.add(_key(number, 6))
    found = keys.find("k1", 7)
    assert found is not None
    assert found.seq == 50


def test_segments_survive_a_checkpoint() -> None:
    keys = Keys(keys_max=40, seconds=1e9)
    for number in range(25):
        keys.add(_key(number, number))
    parts = [dump_segment(number, segment) for number, segment in keys.snapshot().items()]
    again = Keys(keys_max=40, seconds=1e9)
    again.restore(dict(load_segment(part.name, part.table) for part in parts))
    assert {number: tuple(found) for number, found in again.snapshot().items()} == {
        number: tuple(found) for number, found in keys.snapshot().items()
    }
    assert again.find("k24", 25) == _key(24, 24)
