"""Metering and scoping, and that wrappers have exactly the capabilities of what they wrap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore.arguments import PART_BYTES
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import (
    LocalFiles,
    ObjectStore,
    StreamingReads,
    StreamingWrites,
)
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.stores import Fault, FaultStore, LatencyStore, RecordingStore

CLOCK = SystemClock()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore("wrapped", CLOCK)


# -- metered ------------------------------------------------------------------------------------


async def test_requests_and_bytes_are_counted(memory: MemoryStore) -> None:
    store = MeteredStore(memory)
    await store.put("a", b"12345")
    await store.put("b", b"123", if_absent=True)
    await store.get("a")
    await store.head("a")
    await store.list(limit=1)
    async for _ in store.stream("b"):
        pass
    await store.delete(["a", "b"])
    footprint = store.footprint()
    assert footprint.requests == {"get": 2, "put": 2, "head": 1, "list": 1, "delete": 1}
    assert (footprint.bytes_read, footprint.bytes_written) == (8, 8)


async def test_failed_attempts_are_requests_too(memory: MemoryStore) -> None:
    faults = FaultStore(memory)
    store = MeteredStore(faults)
    for operation in ("get", "put", "head", "list", "delete"):
        faults.inject(operation, Fault.BEFORE)
    for call in (
        store.get("a"),
        store.put("a", b"12"),
        store.head("a"),
        store.list(),
        store.delete(["a"]),
    ):
        with pytest.raises(LakehouseError):
            await call
    assert set(store.footprint().requests.values()) == {1}
    assert store.footprint().bytes_read == 0


@pytest.mark.parametrize(
    ("size", "puts"),
    [(0, 1), (PART_BYTES, 1), (PART_BYTES + 1, 4), (3 * PART_BYTES, 5)],
)
async def test_a_streamed_write_counts_its_parts(memory: MemoryStore, size: int, puts: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * size

    store = MeteredStore(memory)
    await store.put_stream("a", chunks())
    assert store.footprint().requests["put"] == puts
    assert store.footprint().bytes_written == size


async def test_deletes_count_a_request_a_thousand_keys(memory: MemoryStore) -> None:
    store = MeteredStore(memory)
    await store.delete([f"k{number}" for number in range(1001)])
    await store.delete([])
    assert store.footprint().requests["delete"] == 2


async def test_the_last_trouble_is_kept_but_no_ordinary_answer(memory: MemoryStore) -> None:
    faults = FaultStore(memory)
    store = MeteredStore(faults)
    with pytest.raises(LakehouseError):
        await store.get("missing")
    assert store.last_error == ""
    faults.inject("get", Fault.BEFORE, ErrorKind.FORBIDDEN)
    with pytest.raises(LakehouseError):
        await store.get("missing")
    await store.put("a", b"x")
    assert store.last_error == "forbidden: injected fault"


async def test_a_footprint_is_a_copy(memory: MemoryStore) -> None:
    store = MeteredStore(memory)
    before = store.footprint()
    await store.put("a", b"x")
    assert before.requests["put"] == 0


# -- scoped -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("datasets/a", True),
        ("datasets/a/b", True),
        ("store.json", True),
        ("datasets", False),
        ("datasetsx/a", False),
        ("store.json/x", False),
        ("_catalog/c/1", False),
        ("a/datasets/b", False),
    ],
)
async def test_writes_are_held_to_their_prefixes(
    memory: MemoryStore, key: str, allowed: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    wire = RecordingStore(memory)
    store = ScopedStore(wire, ("datasets/", "store.json"))
    calls = (store.put(key, b"x"), store.put_stream(key, chunks()), store.delete([key]))
    for call in calls:
        if allowed:
            await call
            continue
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.kind is ErrorKind.FORBIDDEN
    assert bool(wire.log) is allowed


async def test_one_foreign_key_stops_the_whole_delete(memory: MemoryStore) -> None:
    await memory.put("mine/a", b"x")
    store = ScopedStore(memory, ("mine/",))
    with pytest.raises(LakehouseError):
        await store.delete(["mine/a", "other/b"])
    assert [meta.key for meta in await memory.list()] == ["mine/a"]


async def test_reads_go_everywhere(memory: MemoryStore) -> None:
    await memory.put("other/a", b"x")
    store = ScopedStore(memory, ())
    assert await store.get("other/a") == b"x"
    assert (await store.head("other/a")).size_bytes == 1
    assert len(await store.list()) == 1
    with pytest.raises(LakehouseError):
        await store.put("other/a", b"y")


# -- capabilities -------------------------------------------------------------------------------


def wrappers(inner: ObjectStore) -> list[ForwardingStore]:
    return [
        ForwardingStore(inner),
        MeteredStore(inner),
        RetryingStore(inner, CLOCK, SeededIds(0)),
        ScopedStore(inner, ()),
        RecordingStore(inner),
        FaultStore(inner),
        LatencyStore(inner, CLOCK),
        RetryingStore(MeteredStore(inner), CLOCK, SeededIds(0)),
    ]


def test_a_wrapper_can_what_the_store_can(memory: MemoryStore, tmp_path: Path) -> None:
    local = LocalStore(tmp_path, CLOCK)
    for wrapper in wrappers(local):
        assert isinstance(wrapper, ObjectStore)
        assert isinstance(wrapper, StreamingReads)
        assert isinstance(wrapper, StreamingWrites)
        assert isinstance(wrapper, LocalFiles)
        assert wrapper.local_path("a/b") == str(tmp_path / "a" / "b")
    for wrapper in wrappers(memory):
        assert not isinstance(wrapper, LocalFiles)


class Plain:
    """A store that streams neither way."""

    url = "plain://"


async def test_a_store_that_cannot_stream_says_so() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    store = ForwardingStore(Plain())  # type: ignore[arg-type]
    with pytest.raises(LakehouseError):
        store.stream("a")
    with pytest.raises(LakehouseError):
        await store.put_stream("a", chunks())
