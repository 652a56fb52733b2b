"""One suite over every object store and the wrappers that all data goes through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.local import LocalStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import LocalFiles, ObjectStore
from lakehouse.objectstore.probe import probe_store
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.s3 import S3Store
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.stores import FaultRates, FaultStore, LatencyStore, RecordingStore
from lakehouse.testing.suites.object_store import ObjectStoreSuite, Oracle
from support_s3 import S3Oracle, S3Place


class MemoryOracle:
    """There is no other way to look into a dictionary than to look into it."""

    def __init__(self, store: MemoryStore) -> None:
        self._objects = store._objects

    def read(self, key: str) -> bytes | None:
        entry = self._objects.get(key)
        return entry[0] if entry else None

    def keys(self) -> list[str]:
        return list(self._objects)


class FilesOracle:
    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> bytes | None:
        path = self._root / key
        return path.read_bytes() if path.is_file() else None

    def keys(self) -> list[str]:
        paths = (path for path in self._root.rglob("*") if path.is_file())
        keys = [path.relative_to(self._root).as_posix() for path in paths]
        assert not [key for key in keys if key.startswith(".tmp/")], "a temporary file was left"
        return keys


class TestMemory(ObjectStoreSuite):
    @pytest.fixture
    def memory(self) -> MemoryStore:
        return MemoryStore("suite", SystemClock())

    @pytest.fixture
    def store(self, memory: MemoryStore) -> ObjectStore:
        return memory

    @pytest.fixture
    def oracle(self, memory: MemoryStore) -> Oracle:
        return MemoryOracle(memory)


class FastClock(SystemClock):
    """Waits of no length: what is tried is the order of things."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)


class TestWrapped(TestMemory):
    """All wrappers at once, and a tenth of the requests failing: the retries hide it all."""

    @pytest.fixture
    def store(self, memory: MemoryStore) -> ObjectStore:
        clock = SystemClock()
        rates = FaultRates(before=0.05, after=0.04, truncated=0.01)
        faulty = FaultStore(LatencyStore(memory, clock), seed=11, rates=rates)
        metered = MeteredStore(RecordingStore(faulty))
        return ScopedStore(RetryingStore(metered, FastClock(), SeededIds(1)), ("",))

    @pytest.fixture
    def oracle(self, memory: MemoryStore) -> Oracle:
        return MemoryOracle(memory)


class TestLocal(ObjectStoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ObjectStore]:
        store = LocalStore(tmp_path / "new" / "root", SystemClock())
        assert isinstance(store, LocalFiles)
        yield store
        await store.close()

    @pytest.fixture
    def oracle(self, tmp_path: Path) -> Oracle:
        return FilesOracle(tmp_path / "new" / "root")


class TestMoto(ObjectStoreSuite):
    @pytest.fixture
    def place(self, moto_place: S3Place) -> S3Place:
        return moto_place

    @pytest.fixture
    async def store(self, place: S3Place) -> AsyncIterator[ObjectStore]:
        store = S3Store(place.settings())
        yield store
        await store.close()

    @pytest.fixture
    def oracle(self, place: S3Place) -> Iterator[Oracle]:
        oracle = S3Oracle(place)
        yield oracle
        assert oracle.uploads() == [], "parts of an upload were left"
        oracle.close()

    async def test_objects_of_others_are_no_keys_of_ours(
        self, store: ObjectStore, place: S3Place
    ) -> None:
        client = place.client()
        # A folder marker, as consoles make them, names that no key may have, another prefix.
        for name in ("a/", "a//b", "b\\c", "../x"):
            client.put_object(Bucket=place.bucket, Key=f"{place.prefix}/{name}", Body=b"x")
        client.put_object(Bucket=place.bucket, Key="elsewhere", Body=b"x")
        client.close()
        await store.put("z", b"x")
        assert [meta.key for meta in await store.list()] == ["z"]
        assert [meta.key for meta in await store.list(limit=1)] == ["z"]

    async def test_a_missing_bucket_is_told_apart(self, place: S3Place) -> None:
        nowhere = replace(place, bucket="conformance-nowhere")
        store = S3Store(nowhere.settings())
        assert not await store.bucket_exists()
        for call in (store.list, partial(store.get, "key"), partial(store.put, "key", b"x")):
            with pytest.raises(LakehouseError) as caught:
                await call()
            assert caught.value.kind is ErrorKind.NOT_FOUND
            assert caught.value.fields["what"] == "bucket"
        await store.close()

    async def test_a_bucket_is_made_once(self, place: S3Place) -> None:
        fresh = S3Store(replace(place, bucket=place.bucket + "-more").settings())
        assert await fresh.create_bucket()
        assert not await fresh.create_bucket()
        assert await fresh.bucket_exists()
        await fresh.put("key", b"x")
        await fresh.close()

    async def test_the_probe_passes_a_store_that_does_as_it_should(
        self, store: ObjectStore, oracle: Oracle
    ) -> None:
        clock = SystemClock()
        report = await probe_store(store, "s3", clock, SystemIds(clock))
        assert [check for check in report.checks if not check.passed] == []
        assert oracle.keys() == []


@pytest.mark.s3
class TestRadosgw(TestMoto):
    @pytest.fixture
    def place(self, real_place: S3Place) -> S3Place:
        return real_place

    async def test_wrong_credentials_are_forbidden(self, place: S3Place) -> None:
        store = S3Store(replace(place, secret_key="wrong").settings())
        for call in (store.list, partial(store.get, "key"), partial(store.put, "key", b"x")):
            with pytest.raises(LakehouseError) as caught:
                await call()
            assert caught.value.kind is ErrorKind.FORBIDDEN
            assert place.secret_key not in f"{caught.value} {caught.value.fields}"
        await store.close()
