"""Statistics beside files: read when they may help, verified, done without where they cannot be."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.dataset import (
    Card,
    ColumnStats,
    DataFile,
    Dataset,
    DatasetStatus,
    stats_key,
)
from lakehouse.model.schema import Column, Schema
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ObjectStore
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.objectstore.rescue import KnownReads
from lakehouse.queryd import statistics
from lakehouse.queryd.scan import relation
from lakehouse.queryd.statistics import Statistics
from lakehouse.table.stats import Term
from lakehouse.table.statsfile import encode_stats

SCHEMA = Schema(1, (Column(1, "id", "int64"), Column(2, "name", "string")))
AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Place:
    """One bucket, and a cache over it."""

    store: MeteredStore
    cache: ReadCache

    def get(self, name: str) -> ObjectStore:
        assert name == "client_eu"
        return self.store

    def gets(self) -> int:
        return self.store.footprint().requests.get("get", 0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    clock = SystemClock()
    made = Place(MeteredStore(MemoryStore("statistics", clock)), None)  # type: ignore[arg-type]
    known = KnownReads(made, clock, SystemIds(clock))
    made.cache = ReadCache(tmp_path, 1 << 20, made, 4, known)
    return made


async def file_at(place: Place, number: int) -> DataFile:
    """A file whose ids go from ``10 * number`` to nine more."""
    low, high = str(10 * number), str(10 * number + 9)
    data = encode_stats((ColumnStats(1, 0, low, high), ColumnStats(2, 0, "a", "z")))
    key = f"datasets/S/D/f{number}.parquet"
    await place.store.put(stats_key(key), data)
    sha256 = hashlib.sha256(data).hexdigest()
    return DataFile(key, 100, 10, "0" * 64, "client_eu", stats_sha256=sha256)


def snapshot(*files: DataFile, bucket: str = "client_eu") -> DatasetSnapshot:
    head = ("D", "people", "fp1:0", SCHEMA, DatasetStatus.LIVE, Card(), AT, AT, 1)
    dataset = Dataset(*head, len(files), 1, None, bucket=bucket)
    return DatasetSnapshot(dataset, files, (SCHEMA,))


def kept(found: DatasetSnapshot, value: int) -> list[str]:
    term = Term(1, "=", (str(value),), "int64")
    return [file.key for file in relation(found).prune((term,))]


async def test_files_are_left_out_by_what_stands_beside_them(place: Place) -> None:
    files = [await file_at(place, number) for number in range(4)]
    wanted = snapshot(*files)
    assert Statistics.wanted(wanted)
    assert len(kept(wanted, 25)) == 4
    found, whole = await Statistics(place.cache).filled(wanted)
    assert whole
    assert kept(found, 25) == [files[2].key]
    assert kept(found, 99) == []


async def test_each_is_read_once(place: Place) -> None:
    files = [await file_at(place, number) for number in range(4)]
    known = Statistics(place.cache)
    await asyncio.gather(*[known.filled(snapshot(*files)) for _ in range(5)])
    assert place.gets() == 4
    await known.filled(snapshot(*files, await file_at(place, 4)))
    assert place.gets() == 5


@pytest.mark.parametrize("damage", ["missing", "flipped", "other"])
async def test_one_that_cannot_be_read_spares_nothing_and_hides_nothing(
    place: Place, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = [await file_at(place, number) for number in range(3)]
    key = stats_key(files[1].key)
    if damage == "missing":
        await place.store.delete([key])
    elif damage == "flipped":
        await place.store.put(key, (await place.store.get(key))[:-1] + b"!")
    else:
        data = b"not what it should be"
        files[1] = replace(files[1], stats_sha256=hashlib.sha256(data).hexdigest())
        await place.store.put(key, data)
    with caplog.at_level(logging.WARNING):
        found, whole = await Statistics(place.cache).filled(snapshot(*files))
    assert not whole
    assert kept(found, 5) == [files[0].key, files[1].key]
    assert [record.levelname for record in caplog.records if "statistics" in record.message]


async def test_a_bucket_that_hangs_holds_no_query_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*given: Any) -> bytes:
        await asyncio.sleep(60)
        raise LakehouseError(ErrorKind.TIMEOUT, "never")

    files = [await file_at(place, number) for number in range(3)]
    monkeypatch.setattr(place.store, "get", hang)
    monkeypatch.setattr(statistics, "SECONDS_MAX", 0.05)
    found, whole = await Statistics(place.cache).filled(snapshot(*files))
    assert not whole
    assert len(kept(found, 5)) == 3


async def test_nothing_is_asked_where_nothing_can_come_of_it(place: Place) -> None:
    one, two = await file_at(place, 1), await file_at(place, 2)
    assert not Statistics.wanted(snapshot(one))
    assert not Statistics.wanted(snapshot(one, two, bucket="primary"))
    bare = [replace(file, stats_sha256="") for file in (one, two)]
    found, whole = await Statistics(place.cache).filled(snapshot(*bare))
    assert whole
    assert found.files == tuple(bare)
    assert place.gets() == 0
