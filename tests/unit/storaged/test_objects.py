"""The objects contract from inside: what it costs, what is repeated, what is nobody's failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lakehouse.contracts.objects import (
    Conditions,
    GetObjectRequest,
    ListObjectsRequest,
    ObjectRange,
    PutObjectRequest,
    StatObjectRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.health import BreakerState
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context, Principal, Scope
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ByteRange, ObjectStore, OpenedObject
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.storaged import objects as objects_module
from lakehouse.storaged.objects import Objects
from lakehouse.testing.stores import Fault, FaultStore, RecordingStore
from support_objects import CLOCK, IDS, NothingNamed

CTX = Context(ANONYMOUS_OPERATOR, "r1")
LARGE = b"0123456789" * 2_000_000


class OneBucket:
    """``Buckets`` of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get(self, name: str) -> ObjectStore:
        return self._store


def over(store: ObjectStore, clock: Any = CLOCK) -> Objects:
    buckets: Any = OneBucket(store)
    return Objects(buckets, NothingNamed(), clock)


async def whole(data: bytes, pieces: int = 3) -> AsyncIterator[bytes]:
    size = len(data) // pieces + 1
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def read(objects: Objects, **asked: Any) -> bytes:
    stream = await objects.get(CTX, GetObjectRequest("b", "k", **asked))
    return b"".join([chunk async for chunk in stream.chunks])


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore(IDS.ulid(), CLOCK)


async def test_what_each_call_costs(memory: MemoryStore) -> None:
    recording = RecordingStore(memory)
    objects = over(recording)
    etag = (await objects.put(CTX, PutObjectRequest("b", "k"), whole(b"0123456789"))).info.etag
    assert recording.counts == {"put": 1}
    once = {"get": 1}
    twice = {"get": 1, "head": 1}
    for asked, cost in (
        ({}, once),
        ({"range": ObjectRange(2, 5)}, once),
        ({"range": ObjectRange(2)}, once),
        ({"range": ObjectRange(last=3)}, twice),
        ({"conditions": Conditions(if_match=(etag,))}, twice),
        ({"conditions": Conditions(if_none_match=(etag,))}, {"head": 1}),
    ):
        recording.reset()
        await read(objects, **asked)
        assert recording.counts == cost, asked
    recording.reset()
    await objects.stat(CTX, StatObjectRequest("b", "k"))
    await objects.list(CTX, ListObjectsRequest("b", delimiter="/"))
    assert recording.counts == {"head": 1, "list": 1}


async def test_a_page_is_one_list_however_much_is_hidden(memory: MemoryStore) -> None:
    for number in range(3_000):
        await memory.put(f"_catalog/{number:04}", b"")
    await memory.put("a", b"")
    recording = RecordingStore(memory)
    objects = over(recording)
    reader = Context(Principal("r", (Scope.READ,)), "r1")
    first = await objects.list(reader, ListObjectsRequest("b"))
    assert (first.objects, len(recording.log)) == ((), 1)
    # What is left of it is not gone through page by page.
    second = await objects.list(reader, ListObjectsRequest("b", cursor=first.next))
    assert ([info.key for info in second.objects], second.next) == (["a"], "")
    assert len(recording.log) == 2


class FastClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


async def test_a_small_body_is_sent_again(memory: MemoryStore) -> None:
    faulty = FaultStore(memory, seed=1)
    faulty.inject("put", Fault.BEFORE)
    faulty.inject("put", Fault.AFTER)
    objects = over(RetryingStore(faulty, FastClock(), IDS))
    await objects.put(CTX, PutObjectRequest("b", "k"), whole(b"0123456789"))
    assert await read(objects) == b"0123456789"
    faulty.inject("put", Fault.AFTER)
    result = await objects.put(CTX, PutObjectRequest("b", "new", if_absent=True), whole(b"x"))
    assert result.replayed is False


class Replaced(ForwardingStore):
    """Somebody replaces the object right after it was looked at, ``times`` times."""

    def __init__(self, inner: ObjectStore, times: int) -> None:
        super().__init__(inner)
        self.times = times

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        if self.times:
            self.times -= 1
            await self.inner.put(key, b"%d" % self.times * 20)
        return await super().open(key, byte_range)


async def test_an_object_replaced_between_two_looks_is_looked_at_again(
    memory: MemoryStore,
) -> None:
    await memory.put("k", b"0123456789")
    objects = over(Replaced(memory, 2))
    assert await read(objects, range=ObjectRange(last=3)) == b"000"
    with pytest.raises(LakehouseError) as caught:
        await read(over(Replaced(memory, 99)), range=ObjectRange(last=3))
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_deadline_ends_what_does_not_come(memory: MemoryStore) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.06)
        yield b"y"

    class Silent(ForwardingStore):
        async def head(self, key: str) -> Any:
            await asyncio.Event().wait()

    objects = over(Silent(memory))
    late = Context(ANONYMOUS_OPERATOR, "r1", deadline=CLOCK.monotonic() + 0.05)
    with pytest.raises(LakehouseError) as caught:
        await objects.put(late, PutObjectRequest("b", "k"), never())
    assert caught.value.kind is ErrorKind.TIMEOUT
    late = Context(ANONYMOUS_OPERATOR, "r1", deadline=CLOCK.monotonic() + 0.05)
    with pytest.raises(LakehouseError) as caught:
        await objects.stat(late, StatObjectRequest("b", "k"))
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert await memory.list() == []


@pytest.mark.parametrize("if_absent", [False, True])
async def test_many_large_bodies_at_once_are_refused_and_small_ones_are_not(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, if_absent: bool
) -> None:
    monkeypatch.setattr(objects_module, "_LARGE_AT_ONCE", 2)
    objects, gate = over(memory), asyncio.Event()
    begun = 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal begun
        for _ in range(8):
            yield LARGE[: 2 << 20]
        begun += 1
        await gate.wait()

    def putting(key: str, body: AsyncIterator[bytes]) -> Any:
        return objects.put(CTX, PutObjectRequest("b", key, if_absent), body)

    running = [asyncio.ensure_future(putting(f"{n}", slow())) for n in range(2)]
    while begun < 2:
        await asyncio.sleep(0.001)
    with pytest.raises(LakehouseError) as caught:
        await putting("third", whole(LARGE))
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert caught.value.fields["retry_after_seconds"]
    await putting("small", whole(b"x"))
    gate.set()
    await asyncio.gather(*running)
    await putting("third", whole(LARGE))
    assert [meta.key for meta in await memory.list()] == ["0", "1", "small", "third"]


async def test_many_bodies_that_do_not_end_are_refused_from_their_first_bytes(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "_WAITING_BYTES_MAX", 16 << 20)
    objects, gate = over(memory), asyncio.Event()

    async def slow(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size
        await gate.wait()

    def putting(key: str, body: AsyncIterator[bytes]) -> Any:
        return objects.put(CTX, PutObjectRequest("b", key), body)

    running = [asyncio.ensure_future(putting(f"{n}", slow(3 << 20))) for n in range(5)]
    await asyncio.sleep(0.05)
    for size in (2 << 20, 12 << 20):
        with pytest.raises(LakehouseError) as caught:
            await putting("refused", slow(size))
        assert caught.value.kind is ErrorKind.EXHAUSTED
        assert caught.value.fields["retry_after_seconds"]
    await putting("small", whole(b"x" * (1 << 19)))
    running.pop().cancel()
    await asyncio.sleep(0.01)
    # A large one has a place of its own as soon as it is known to be one.
    large = asyncio.ensure_future(putting("large", over_time(b"x" * (1 << 20), 40)))
    gate.set()
    await asyncio.gather(*running, large)
    await putting("whole", whole(b"x" * (15 << 20)))
    names = [meta.key for meta in await memory.list()]
    assert names == ["0", "1", "2", "3", "large", "small", "whole"]


async def over_time(chunk: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        await asyncio.sleep(0.001)
        yield chunk


class Remembered:
    def __init__(self) -> None:
        self.attempts: list[FailedAttempt] = []

    def failed(self, attempt: FailedAttempt) -> None:
        self.attempts.append(attempt)


async def test_what_a_caller_does_wrong_is_no_failure_of_the_bucket(tmp_path: Path) -> None:
    sink = Remembered()
    settings = [BucketSettings("b", tmp_path.as_uri())]
    buckets = Buckets(settings, CLOCK, IDS, failures=sink)
    objects = Objects(buckets, NothingNamed(), CLOCK)

    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise LakehouseError(ErrorKind.INVALID, "the client went away")

    async def stuck(seen: asyncio.Event) -> AsyncIterator[bytes]:
        yield LARGE
        seen.set()
        await asyncio.Event().wait()

    for body in (whole(b"small"), whole(LARGE), broken()):
        with pytest.raises(LakehouseError):
            await objects.put(CTX, PutObjectRequest("b", "k", sha256="0" * 64), body)
    seen = asyncio.Event()
    putting = asyncio.ensure_future(objects.put(CTX, PutObjectRequest("b", "k"), stuck(seen)))
    await seen.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    with pytest.raises(LakehouseError):
        await objects.get(CTX, GetObjectRequest("b", "k"))
    await objects.put(CTX, PutObjectRequest("b", "k"), whole(LARGE))
    unread = await objects.get(CTX, GetObjectRequest("b", "k"))
    del unread
    assert sink.attempts == []
    assert buckets.health("b").breaker is BreakerState.CLOSED
    assert not list((tmp_path / ".tmp").iterdir())
    await buckets.close()
