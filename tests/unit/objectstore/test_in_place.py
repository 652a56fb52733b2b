"""A folder whose disk answers nothing at all costs nobody else anything."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.dataset import DataFile
from lakehouse.objectstore import in_place
from lakehouse.objectstore import readcache as cache_module
from lakehouse.objectstore.buckets import Buckets, BucketSettings, ResilienceSettings
from lakehouse.objectstore.in_place import Beat, InPlace, SilentError
from lakehouse.objectstore.local_tree import LocalTree
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.objectstore.rescue import STREAM_ABOVE_BYTES, KnownReads, RescueSettings

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
PLACES = 3


class House:
    """``ill`` and ``well`` are folders, ``spare`` has copies. While ``hung``, every thread that
    touches a file of ``ill`` waits, as for a server that is gone."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.hung = False
        self.back = threading.Event()
        settings = [BucketSettings(name, (folder / name).as_uri()) for name in ("ill", "well")]
        settings.append(BucketSettings("spare", f"memory://{IDS.ulid()}"))
        bounds = ResilienceSettings(attempt_seconds=0.2)
        self.buckets = Buckets(settings, CLOCK, IDS, resilience=bounds)
        for name in ("read", "open_object"):
            patch.setattr(LocalTree, name, self.waiting(getattr(LocalTree, name)))
        for name in ("hash_file", "_identity"):
            patch.setattr(cache_module, name, self.waiting(getattr(cache_module, name)))
        patch.setattr(in_place, "_SILENCE_SECONDS", 0.2)
        self.caches: list[ReadCache] = []

    def waiting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(where: Any, *args: Any) -> Any:
            path = where.root if isinstance(where, LocalTree) else where
            if self.hung and str(path).startswith(str(self.folder / "ill")):
                assert threading.current_thread() is not threading.main_thread()
                assert self.back.wait(30)
            return real(where, *args)

        return call

    def cache(self, rescue: str = "") -> ReadCache:
        known = KnownReads(self.buckets, CLOCK, IDS, RescueSettings(rescue, patience_seconds=0.2))
        cache = ReadCache(self.folder, 1 << 30, self.buckets, PLACES, known)
        self.caches.append(cache)
        return cache

    async def put(self, bucket: str, key: str, data: bytes) -> DataFile:
        await self.buckets.raw(bucket).put(key, data)
        await self.buckets.raw("spare").put(f"rescue/{bucket}/{key}", data)
        return DataFile(key, len(data), 1, hashlib.sha256(data).hexdigest(), bucket=bucket)


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    made = House(tmp_path, monkeypatch)
    yield made
    made.back.set()
    for cache in made.caches:
        cache.close()
    await made.buckets.close()


async def test_a_folder_that_hangs_holds_up_nobody_else(house: House) -> None:
    well = await house.put("well", "a.parquet", b"well")
    ill = [await house.put("ill", f"{n}.parquet", b"ill %d" % n) for n in range(20)]
    cache = house.cache()
    # What is known already is looked at again, which must not stop the process either.
    await cache.paths(ill[:2])
    house.hung = True
    asked = [asyncio.ensure_future(cache.paths([file])) for file in ill]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        assert (await cache.paths([well])).paths
        await run_blocking(int)
        # Each is told, and of what.
        told = await asyncio.gather(*asked, return_exceptions=True)
    for error in told:
        assert isinstance(error, LakehouseError)
        assert error.kind in (ErrorKind.TIMEOUT, ErrorKind.UNAVAILABLE)
        assert error.fields["bucket"] == "ill"
    assert ErrorKind.TIMEOUT in {error.kind for error in told if isinstance(error, LakehouseError)}
    house.back.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await cache.paths(ill)).paths
                break
            except LakehouseError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("size", [4, STREAM_ABOVE_BYTES + 1])
async def test_a_copy_answers_for_a_folder_that_hangs(house: House, size: int) -> None:
    files = [await house.put("ill", f"{n}.parquet", b"%d" % n * size) for n in range(2)]
    cache = house.cache("spare")
    await cache.paths(files[:1])
    house.hung = True
    async with asyncio.timeout(10):
        local = await cache.paths(files)
    assert local.served_from == ("rescue/ill",)
    assert [Path(path).stat().st_size for path in local.paths] == [size, size]


async def test_slow_is_not_silent_and_lost_threads_are_not_asked_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_place, "_SILENCE_SECONDS", 0.1)
    threads, back, begun = InPlace(2), threading.Event(), []

    def slow(beat: Beat) -> str:
        for _ in range(8):
            back.wait(0.05)
            beat()
        return "done"

    def hung(beat: Beat) -> None:
        begun.append(beat)
        back.wait(30)

    try:
        assert await threads.run(slow) == "done"
        for _ in range(4):
            with pytest.raises(SilentError):
                await threads.run(hung)
        assert len(begun) == 2
        back.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await threads.run(slow) == "done"
                    break
                except SilentError:
                    await asyncio.sleep(0.01)
    finally:
        back.set()
        threads.close()
