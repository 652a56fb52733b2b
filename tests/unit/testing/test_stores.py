"""The tools of other tests: faults as asked for, time as told, ids that repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.clocks import ManualClock, SeededIds
from lakehouse.testing.stores import (
    Fault,
    FaultRates,
    FaultStore,
    LatencyStore,
    RecordingStore,
)


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore("testing", SystemClock())


async def fails(awaitable: object) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


async def test_before_nothing_is_done_after_it_is(memory: MemoryStore) -> None:
    store = FaultStore(memory)
    store.inject("put", Fault.BEFORE, ErrorKind.TIMEOUT)
    assert (await fails(store.put("a", b"x"))).kind is ErrorKind.TIMEOUT
    assert await memory.list() == []
    store.inject("put", Fault.AFTER)
    assert (await fails(store.put("a", b"x"))).kind is ErrorKind.UNAVAILABLE
    assert len(await memory.list()) == 1
    store.inject("delete", Fault.AFTER)
    await fails(store.delete(["a"]))
    assert await memory.list() == []
    assert store.injected == {"before": 1, "after": 2}


async def test_delayed_effects_come_when_settled_in_order(memory: MemoryStore) -> None:
    store = FaultStore(memory)
    for body in (b"1", b"2", b"3"):
        store.inject("put", Fault.DELAYED)
        await fails(store.put("a", body, if_absent=body == b"3"))
    assert await memory.list() == []
    assert await store.settle(1) == 1
    assert await memory.get("a") == b"1"
    assert await store.settle() == 2
    assert await memory.get("a") == b"2"  # the late conditional put lost
    assert await store.settle() == 0


async def test_truncation_is_of_reads(memory: MemoryStore) -> None:
    await memory.put("a", b"12345678")
    store = FaultStore(memory)
    store.inject("get", Fault.TRUNCATED)
    error = await fails(store.get("a"))
    assert (error.kind, error.fields["truncated"]) == (ErrorKind.CORRUPT, True)
    store.inject("get", Fault.TRUNCATED)
    stream = store.stream("a")
    assert await anext(stream) == b"1234"
    assert (await fails(anext(stream))).kind is ErrorKind.CORRUPT


async def test_the_same_seed_gives_the_same_faults(memory: MemoryStore) -> None:
    rates = FaultRates(before=0.2, after=0.2, delayed=0.1, truncated=0.1)

    async def run(seed: int) -> list[str]:
        store = FaultStore(memory, seed, rates)
        outcomes = []
        for number in range(200):
            try:
                await store.put("a", b"%d" % number)
                outcomes.append("done")
            except LakehouseError as error:
                outcomes.append(f"{error.kind} {error.fields['fault']}")
        return outcomes

    first = await run(7)
    assert first == await run(7)
    assert first != await run(8)
    assert 60 < first.count("done") < 140
    assert {outcome.split()[-1] for outcome in first} == {"done", "before", "after", "delayed"}


async def test_any_operation_may_be_meant(memory: MemoryStore) -> None:
    store = FaultStore(memory)
    store.inject("*", Fault.BEFORE)
    await fails(store.list())
    await store.list()


async def test_latency_is_of_the_clock(memory: MemoryStore) -> None:
    clock = ManualClock()
    store = LatencyStore(memory, clock, put_seconds=0.005, get_seconds=0.001)
    put = asyncio.ensure_future(store.put("a", b"x"))
    await clock.advance(0.0049)
    assert not put.done()
    await clock.advance(0.0002)
    assert (await put).size_bytes == 1
    calls = [store.get("a"), store.head("a"), store.list(), store.delete(["a"])]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await clock.advance(0.001)
    assert [task.done() for task in tasks] == [True, True, True, False]
    await clock.advance(0.005)
    await tasks[3]


async def test_recordings(memory: MemoryStore) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    store = RecordingStore(memory)
    await store.put("a", b"x")
    await fails(store.get("missing"))
    await store.put_stream("b", chunks())
    await store.list("p/")
    await store.delete(["a", "b"])
    assert store.log == [
        ("put", "a"),
        ("get", "missing"),
        ("put", "b"),
        ("list", "p/"),
        ("delete", "a"),
        ("delete", "b"),
    ]
    assert store.counts == {"put": 2, "get": 1, "list": 1, "delete": 2}
    store.reset()
    assert store.counts == {}


async def test_sleepers_wake_in_order_at_their_own_time() -> None:
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            await clock.sleep(seconds)
            woken.append((name, clock.monotonic()))

    tasks = [
        asyncio.ensure_future(sleeper("long", 3)),
        asyncio.ensure_future(sleeper("short", 1, times=3)),
        asyncio.ensure_future(sleeper("none", 0)),
    ]
    started = clock.now_us()
    await clock.advance(0.5)
    assert woken == [("none", 0.0)]
    assert clock.sleepers == 2
    await clock.advance(2)
    assert woken[1:] == [("short", 1.0), ("short", 2.0)]
    await clock.advance(10)
    assert woken[3:] == [("long", 3.0), ("short", 3.0)]
    assert (clock.monotonic(), clock.now_us() - started) == (12.5, 12_500_000)
    await asyncio.gather(*tasks)


async def test_a_cancelled_sleeper_is_passed_over() -> None:
    clock = ManualClock()
    task = asyncio.ensure_future(clock.sleep(1))
    await clock.advance(0)
    task.cancel()
    await clock.advance(2)
    assert task.cancelled()
    assert clock.sleepers == 0


def test_the_wall_may_jump_alone() -> None:
    clock = ManualClock(now_us=1_000_000)
    clock.jump(-0.5)
    assert (clock.now_us(), clock.monotonic()) == (500_000, 0.0)


def test_seeded_ids_repeat() -> None:
    first, second, other = SeededIds(1), SeededIds(1), SeededIds(2)
    made = [first.ulid() for _ in range(20)]
    assert made == sorted(set(made))
    assert made == [second.ulid() for _ in range(20)]
    assert first.token(8) == second.token(8) != other.token(8)
    assert first.uniform() == second.uniform()
    assert {len(one) for one in made} == {26}
