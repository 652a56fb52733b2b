"""The read cache: one fetch however many ask, nothing unverified, never above its bound."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.dataset import DataFile
from lakehouse.objectstore.folders import Claim
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ByteRange, ObjectStore
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.objectstore.rescue import KnownReads


class Stores:
    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def get(self, name: str) -> ObjectStore:
        return self.store


def reads(store: ObjectStore) -> KnownReads:
    return KnownReads(Stores(store), SystemClock(), SystemIds(SystemClock()))


async def put(store: ObjectStore, key: str, data: bytes) -> DataFile:
    await store.put(key, data)
    return DataFile(key, len(data), 1, hashlib.sha256(data).hexdigest())


@pytest.fixture
def store() -> MeteredStore:
    return MeteredStore(MemoryStore("cache", SystemClock()))


async def test_many_ask_once_is_fetched(tmp_path: Path, store: MeteredStore) -> None:
    file = await put(store, "a.parquet", b"x" * 100)
    cache = ReadCache(tmp_path, 1000, Stores(store), 4, reads(store))
    with cache.held([file]):
        paths = await asyncio.gather(*[cache.paths([file]) for _ in range(20)])
        assert len({path for one in paths for path in one.paths}) == 1
        assert Path(paths[0].paths[0]).read_bytes() == b"x" * 100
    assert store.footprint().requests["get"] == 1


async def test_a_wrong_byte_is_corrupt_and_named(tmp_path: Path, store: MeteredStore) -> None:
    file = await put(store, "a.parquet", b"right")
    await store.put("a.parquet", b"wrong")
    cache = ReadCache(tmp_path, 1000, Stores(store), 4, reads(store))
    for _ in range(2):
        with cache.held([file]), pytest.raises(LakehouseError) as caught:
            await cache.paths([file])
        assert caught.value.kind is ErrorKind.CORRUPT
        assert caught.value.fields["key"] == "a.parquet"
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_object_is_corrupt_and_named(tmp_path: Path, store: MeteredStore) -> None:
    file = DataFile("gone.parquet", 5, 1, "0" * 64)
    cache = ReadCache(tmp_path, 1000, Stores(store), 4, reads(store))
    with cache.held([file]), pytest.raises(LakehouseError) as caught:
        await cache.paths([file])
    assert (caught.value.kind, caught.value.fields["key"]) == (ErrorKind.CORRUPT, "gone.parquet")


async def test_the_least_recently_used_go_but_not_those_in_use(
    tmp_path: Path, store: MeteredStore
) -> None:
    files = [await put(store, f"{at}.parquet", bytes([at]) * 100) for at in range(5)]
    cache = ReadCache(tmp_path, 250, Stores(store), 4, reads(store))
    with cache.held(files[:1]):
        [first] = (await cache.paths(files[:1])).paths
        for file in files[1:]:
            with cache.held([file]):
                await cache.paths([file])
            assert cache.size_bytes <= 250
        assert Path(first).exists()
    with cache.held(files):
        await cache.paths(files)
        assert cache.size_bytes == 500
    assert cache.size_bytes <= 250
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == cache.size_bytes
    big = await put(store, "big.parquet", b"y" * 300)
    with cache.held([big]), pytest.raises(LakehouseError, match="larger than the read cache"):
        await cache.paths([big])


async def test_a_local_object_is_read_in_place_and_hashed_once(tmp_path: Path) -> None:
    local = LocalStore(tmp_path / "bucket", SystemClock())
    file = await put(local, "a.parquet", b"data")
    cache = ReadCache(tmp_path, 1000, Stores(local), 4, reads(local))
    assert await cache.paths_now([file]) == [None]
    [path] = (await cache.paths([file])).paths
    assert path == local.local_path("a.parquet")
    assert await cache.paths_now([file, file]) == [path, path]
    Path(path).chmod(0o600)
    Path(path).write_bytes(b"DATA")
    with pytest.raises(LakehouseError) as caught:
        await cache.paths([file])
    assert caught.value.kind is ErrorKind.CORRUPT


def test_scratch_folders_of_dead_processes_are_cleared_and_no_others(tmp_path: Path) -> None:
    living = Claim(str(tmp_path), "living")
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / ".lock").touch()
    (tmp_path / "dead" / "left.parquet").touch()
    (tmp_path / "foreign").mkdir()
    mine = Claim(str(tmp_path), "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "living", "mine"]
    living.release()
    mine.release()
    mine.release()
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


async def test_a_bucket_that_hangs_holds_no_place_of_another(tmp_path: Path) -> None:
    class Silent(MeteredStore):
        async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
            return await asyncio.Event().wait() and b""

    class Both:
        well = MeteredStore(MemoryStore("cache-well", SystemClock()))
        ill = Silent(MemoryStore("cache-ill", SystemClock()))

        def get(self, name: str) -> ObjectStore:
            return self.ill if name == "ill" else self.well

    file = await put(Both.well, "a.parquet", b"x" * 100)
    clock = SystemClock()
    cache = ReadCache(tmp_path, 10_000, Both(), 2, KnownReads(Both(), clock, SystemIds(clock)))
    stuck = [
        asyncio.ensure_future(cache.paths([DataFile(f"{n}", 1, 1, f"{n:064x}", "ill")]))
        for n in range(5)
    ]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        assert (await cache.paths([file])).paths
    for task in (*stuck, *cache._coming.values()):
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
