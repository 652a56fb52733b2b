"""The local directory: nothing half-done shows, everything is synced, whenever it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.port import ByteRange


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# -- durability ---------------------------------------------------------------------------------


async def test_bytes_names_and_folders_are_synced_before_a_put_returns(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def noting(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        above = root.parent
        synced.append("FILE" if ".tmp/" in str(path) else path.relative_to(above).as_posix())
        real(fd)

    monkeypatch.setattr("os.fsync", noting)
    await store.put("a/b/c", b"x", if_absent=True)
    # The root's name, then the bytes, each new folder's name, and the object's.
    assert synced == [".", "FILE", "root", "root/a", "root/a/b"]
    synced.clear()
    await store.put("a/b/d", b"x")
    assert synced == ["FILE", "root/a/b"]
    synced.clear()
    # Folders that a delete removed are made, and synced, again.
    await store.delete(["a/b/c", "a/b/d"])
    await store.put("a/b/c", b"x")
    assert synced == ["FILE", "root", "root/a", "root/a/b"]
    synced.clear()
    # Another process cannot know that this one synced them.
    await LocalStore(root, SystemClock()).put("a/b/e", b"x")
    assert synced == ["FILE", "root", "root/a", "root/a/b"]


async def test_deleting_leaves_no_empty_folders(store: LocalStore, root: Path) -> None:
    await store.put("a/b/c/d", b"x")
    await store.put("a/e", b"x")
    await store.delete(["a/b/c/d"])
    assert files(root) == [".tmp", "a", "a/e"]


async def test_puts_and_deletes_that_race_for_folders_lose_nothing(store: LocalStore) -> None:
    async def keep(name: str) -> None:
        for number in range(40):
            await store.put(f"f/g/{name}{number}", b"x", if_absent=True)
            await store.delete([f"f/g/{name}{number}"])
        await store.put(f"f/g/{name}", b"kept", if_absent=True)

    await asyncio.gather(*(keep(name) for name in "abcdef"))
    assert [meta.key for meta in await store.list()] == [f"f/g/{name}" for name in "abcdef"]


@pytest.mark.parametrize("call", ["os.fsync", "os.link"])
async def test_a_full_disk_is_exhausted_and_leaves_nothing(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await store.put("a", b"x")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(LakehouseError) as caught:
        await store.put("b", b"x", if_absent=True)
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert caught.value.fields["errno"] == "ENOSPC"
    monkeypatch.undo()
    assert files(root) == [".tmp", "a"]


async def test_a_file_cut_short_while_read_is_corrupt(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", b"0123456789")
    monkeypatch.setattr("os.pread", lambda fd, size, at: b"0123"[at : at + size])
    for byte_range in (None, ByteRange(2, 8)):
        with pytest.raises(LakehouseError) as caught:
            await store.get("a", byte_range)
        assert caught.value.kind is ErrorKind.CORRUPT
    with pytest.raises(LakehouseError) as caught:
        async for _ in store.stream("a"):
            pass
    assert caught.value.kind is ErrorKind.CORRUPT


async def test_large_reads_and_writes_may_be_done_in_pieces(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pread, os.write
    monkeypatch.setattr("os.pread", lambda fd, size, at: read(fd, min(size, 7), at))
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, data[:5]))
    data = bytes(range(100))
    await store.put("a", data)
    assert await store.get("a") == data
    assert await store.get("a", ByteRange(3, 50)) == data[3:50]


async def test_a_taken_name_is_a_synced_name(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the same write finds its own name: that must not pass for durable."""
    await store.put("c/0", b"x")
    real, folder = os.fsync, str(root / "c")
    calls: list[int] = []

    def fsync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == folder:
            calls.append(len(calls))
            if len(calls) <= 2:
                raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr("os.fsync", fsync)
    kinds = []
    for _ in range(3):
        with pytest.raises(LakehouseError) as caught:
            await store.put("c/1", b"x", if_absent=True)
        kinds.append(caught.value.kind)
    assert kinds == [ErrorKind.UNAVAILABLE, ErrorKind.UNAVAILABLE, ErrorKind.ALREADY_EXISTS]
    assert len(calls) == 3


# -- crashes ------------------------------------------------------------------------------------

KILLED = """
import asyncio, os, signal, sys
from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore.local import LocalStore

root, name, if_absent = sys.argv[1], sys.argv[2], sys.argv[3] == "1"
real = getattr(os, name)

def last(*args, **kwargs):
    if name != "fsync" or os.path.basename(os.readlink(f"/proc/self/fd/{args[0]}")) != "root":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

asyncio.run(LocalStore(root, SystemClock()).put("before", b"x"))
setattr(os, name, last)
asyncio.run(LocalStore(root, SystemClock()).put("folder/key", b"half" * 1000, if_absent=if_absent))
"""


@pytest.mark.parametrize(
    ("name", "if_absent"), [("write", 1), ("fsync", 1), ("link", 1), ("rename", 0)]
)
async def test_killed_before_the_name_is_given_nothing_shows(
    root: Path, name: str, if_absent: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root), name, str(if_absent)],
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    store = LocalStore(root, SystemClock())
    assert [meta.key for meta in await store.list()] == ["before"]
    with pytest.raises(LakehouseError) as caught:
        await store.get("folder/key")
    assert caught.value.kind is ErrorKind.NOT_FOUND
    left = os.listdir(root / ".tmp")
    assert len(left) == 1
    # The name is free, the left-over in nobody's way, and gone a day later.
    await store.put("folder/key", b"whole", if_absent=True)
    os.utime(root / ".tmp" / left[0], (1, 1))
    later = LocalStore(root, SystemClock())
    await later.put("other", b"x")
    assert os.listdir(root / ".tmp") == []
    await store.close()
    await later.close()


async def test_a_left_over_of_the_same_process_id_is_stepped_over(
    store: LocalStore, root: Path
) -> None:
    (root / ".tmp").mkdir(parents=True)
    for count in (1, 2):
        (root / ".tmp" / f"{os.getpid()}-{count}").write_bytes(b"older")
    await store.put("a", b"mine", if_absent=True)
    assert await store.get("a") == b"mine"
    assert len(os.listdir(root / ".tmp")) == 2


async def test_a_cancelled_writer_waits_for_its_thread(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the thread would go on writing into a descriptor that others may have by then."""
    begun, release = threading.Event(), threading.Event()
    real = os.write

    def slow(fd: int, data: bytes) -> int:
        begun.set()
        assert release.wait(10)
        return real(fd, data)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 100

    root.mkdir()
    await store.list()  # from here on the root is held open
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("os.write", slow)
    task = asyncio.ensure_future(store.put_stream("a", chunks()))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(root) == [".tmp"]
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_cancelled_open_loses_no_descriptor(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", b"x")
    before = len(os.listdir("/proc/self/fd"))
    begun = threading.Event()
    real: Callable[..., int] = os.open

    def slow(*args: object, **kwargs: object) -> int:
        begun.set()
        time.sleep(0.02)
        return real(*args, **kwargs)

    monkeypatch.setattr("os.open", slow)
    for start in (lambda: anext(store.stream("a")), lambda: _send(store)):
        begun.clear()
        task = asyncio.ensure_future(start())
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(10):
        while len(os.listdir("/proc/self/fd")) != before:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("call", ["open", "pread"])
async def test_a_read_that_is_given_up_does_not_wait_for_a_disk_that_hangs(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await store.put("a", b"x")
    before = len(os.listdir("/proc/self/fd"))
    begun, release = threading.Event(), threading.Event()
    real: Callable[..., object] = getattr(os, call)

    def hung(*args: object, **kwargs: object) -> object:
        begun.set()
        assert release.wait(20)
        return real(*args, **kwargs)

    monkeypatch.setattr(f"os.{call}", hung)
    try:
        async with asyncio.timeout(10):
            task = asyncio.ensure_future(anext(store.stream("a")))
            assert await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        release.set()
    async with asyncio.timeout(10):
        while len(os.listdir("/proc/self/fd")) != before:
            await asyncio.sleep(0.005)


async def _send(store: LocalStore) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    await store.put_stream("b", chunks())
