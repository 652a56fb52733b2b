"""Objects that are opened: reads that go on after a failure, never with another object's bytes; and
large local files, whose early syncs must not hide an error of the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore import local_syncing
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ByteRange, OpenedObject
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.clocks import ManualClock, SeededIds
from lakehouse.testing.stores import Fault, FaultStore, RecordingStore

DATA = bytes(range(256)) * 100_000


class Halting(ForwardingStore):
    """Every read ends in a failure after ``pieces`` pieces; ``between`` runs before it."""

    def __init__(self, inner: MemoryStore, pieces: int = 1) -> None:
        super().__init__(inner)
        self.pieces = pieces
        self.between: bytes | None = None
        self.ranges: list[ByteRange | None] = []

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        self.ranges.append(byte_range)
        opened = await super().open(key, byte_range)
        return replace(opened, chunks=self._halting(key, opened.chunks))

    async def _halting(self, key: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        left = self.pieces
        async for chunk in chunks:
            if left == 0:
                if self.between is not None:
                    await self.inner.put(key, self.between)
                raise LakehouseError(ErrorKind.UNAVAILABLE, "the connection broke")
            left -= 1
            yield chunk


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore("opening", SystemClock())


class FastClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)


def retrying(inner: ForwardingStore) -> RetryingStore:
    return RetryingStore(inner, FastClock(), SeededIds(1))


async def test_a_read_that_breaks_goes_on_where_it_was(memory: MemoryStore) -> None:
    await memory.put("k", DATA)
    halting = Halting(memory)
    opened = await retrying(halting).open("k", ByteRange(7, len(DATA) - 9))
    assert b"".join([chunk async for chunk in opened.chunks]) == DATA[7:-9]
    starts = [asked.start for asked in halting.ranges if asked is not None]
    assert starts == sorted(set(starts))
    assert len(starts) > 2
    assert {asked.end for asked in halting.ranges if asked is not None} == {len(DATA) - 9}


async def test_a_read_does_not_go_on_with_another_object(memory: MemoryStore) -> None:
    await memory.put("k", DATA)
    halting = Halting(memory)
    halting.between = DATA[::-1]
    opened = await retrying(halting).open("k")
    with pytest.raises(LakehouseError) as caught:
        async for _ in opened.chunks:
            pass
    assert caught.value.kind is ErrorKind.CONFLICT


async def test_a_read_that_never_gets_on_is_given_up(memory: MemoryStore) -> None:
    await memory.put("k", DATA)
    clock = ManualClock()
    store = RetryingStore(Halting(memory, pieces=0), clock, SeededIds(1))
    opened = await store.open("k")

    async def read() -> None:
        async for _ in opened.chunks:
            pass

    reading = asyncio.ensure_future(read())
    while not reading.done():
        await asyncio.sleep(0)
        await clock.advance(60)
    with pytest.raises(LakehouseError) as caught:
        await reading
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_opening_and_browsing_are_tried_again(memory: MemoryStore) -> None:
    await memory.put("a/k", b"x")
    faulty = FaultStore(memory, seed=3)
    recording = RecordingStore(faulty)
    metered = MeteredStore(recording)
    store = retrying(metered)
    for operation in ("get", "list"):
        faulty.inject(operation, Fault.BEFORE)
    assert b"".join([c async for c in (await store.open("a/k")).chunks]) == b"x"
    assert (await store.browse(folders=True)).folders == ("a/",)
    assert recording.counts == {"get": 2, "list": 2}
    footprint = metered.footprint()
    assert (footprint.requests["get"], footprint.requests["list"]) == (2, 2)
    assert footprint.bytes_read == 1


async def parts(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 1_000


async def test_a_large_file_is_synced_while_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(local_syncing, "_EVERY_BYTES", 10_000)
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    store = LocalStore(tmp_path / "b", SystemClock())
    await store.put_stream("k", parts(100))
    assert (await store.head("k")).size_bytes == 100_000
    assert synced
    assert synced == sorted(synced)
    await store.close()


@pytest.mark.parametrize("count", [10, 100])
async def test_an_early_sync_that_fails_fails_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    failures = [OSError(5, "Input/output error")]

    def fdatasync(fd: int) -> None:
        # As the kernel does: an error is told once.
        if failures:
            raise failures.pop()

    monkeypatch.setattr(local_syncing, "_EVERY_BYTES", 10_000)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    store = LocalStore(tmp_path / "b", SystemClock())
    with pytest.raises(LakehouseError) as caught:
        await store.put_stream("k", parts(count))
    assert caught.value.fields["errno"] == "EIO"
    assert await store.list() == []
    assert list((tmp_path / "b" / ".tmp").iterdir()) == []
    await store.close()


async def test_a_cancelled_write_waits_for_its_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    begun, ended = asyncio.Event(), []

    def fdatasync(fd: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        os.fstat(fd)
        ended.append(fd)

    async def endless() -> AsyncIterator[bytes]:
        async for part in parts(20):
            yield part
        await asyncio.Event().wait()

    monkeypatch.setattr(local_syncing, "_EVERY_BYTES", 10_000)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    store = LocalStore(tmp_path / "b", SystemClock())
    writing = asyncio.ensure_future(store.put_stream("k", endless()))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert ended
    assert list((tmp_path / "b" / ".tmp").iterdir()) == []
    await store.close()


def descriptors_of(path: Path) -> int:
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{fd}") == str(path)
    return found


async def test_an_opened_file_holds_no_descriptor_once_it_is_let_go(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "b", SystemClock())
    await store.put("k", b"0123456789")
    unread = await store.open("k")
    read = await store.open("k", ByteRange(2, 5))
    assert [chunk async for chunk in read.chunks] == [b"234"]
    assert descriptors_of(tmp_path / "b" / "k") == 1
    del unread
    assert descriptors_of(tmp_path / "b" / "k") == 0
    await store.close()
