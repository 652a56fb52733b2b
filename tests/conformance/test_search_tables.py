"""Lance tables in buckets of every kind: what comes back is what was put, or is refused; and what
is in the bucket opens with Lance as anybody installs it."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.vectors import Distance, Profile, Structure
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.testing.suites.search_index import clustered, unit
from lakehouse.vectord import folders
from lakehouse.vectord.adapters.lance import LanceIndex
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.settings import VectorSettings
from lakehouse.vectord.tables import Tables
from support_s3 import S3Place

ROWS, DIMENSIONS = 2_500, 16
LABELS = ("entity", "chunk")
FOLDER = "_vectors/S/V/01ABC"


@dataclass
class _Parts:
    settings: VectorSettings
    buckets: Buckets
    ids: SystemIds
    jobs: ThreadPoolExecutor


@dataclass
class _Version:
    dimensions: int
    profile: Profile


VERSION: Any = _Version(DIMENSIONS, Profile("p"))


@dataclass
class Bench:
    """A table with its vectors, and a bucket to keep it in."""

    tables: Tables
    buckets: Buckets
    vectors: Vectors
    cache: Path

    async def build(self, stop: Callable[[], bool] = lambda: False) -> LanceIndex:
        labels = pa.table(
            {
                "entity": [f"[{at}]" for at in range(len(self.vectors))],
                "chunk": pa.array([0] * len(self.vectors), pa.int64()),
            }
        )
        return await self.tables.build(self.vectors, labels, Distance.COSINE, stop)

    async def saved(self) -> Structure:
        return await self.tables.save(FOLDER, "b", await self.build(), seq=7)

    async def load(self, structure: Structure) -> tuple[LanceIndex, pa.Table]:
        return await self.tables.load(VERSION, structure, LABELS)

    def left(self) -> list[str]:
        """What is in the folder for copies."""
        folder = self.cache / "lance"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def made(settings: BucketSettings, cache: Path) -> Bench:
    clock = SystemClock()
    ids = SystemIds(clock)
    buckets = Buckets([replace(settings, name="b")], clock, ids)
    parts: Any = _Parts(VectorSettings(str(cache)), buckets, ids, ThreadPoolExecutor(2))
    vectors = unit(clustered(np.random.default_rng(1), ROWS, DIMENSIONS))
    return Bench(Tables(parts, ThreadPoolExecutor(1)), buckets, vectors, cache)


async def ended(bench: Bench) -> None:
    bench.tables.builders.shutdown()
    bench.tables.parts.jobs.shutdown()
    await bench.buckets.close()
    gc.collect()  # errors that were looked at hold their frames
    assert bench.left() == []


@pytest.fixture(params=["memory", "file", "s3"])
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, moto_place: S3Place
) -> AsyncIterator[Bench]:
    settings = {
        "memory": BucketSettings("b", f"memory://{tmp_path.name}-tables"),
        "file": BucketSettings("b", f"file://{tmp_path}/bucket"),
        "s3": moto_place.settings(),
    }[request.param]
    bench = await made(settings, tmp_path / "cache")
    yield bench
    await ended(bench)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await made(BucketSettings("b", f"file://{tmp_path}/bucket"), tmp_path / "cache")
    yield bench
    await ended(bench)


@pytest.mark.parametrize("piece", [8 << 20, 5_000])
async def test_what_was_saved_is_loaded(
    bench: Bench, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is put and read in pieces."""
    monkeypatch.setattr(folders, "_CHUNK", piece)
    structure = await bench.saved()
    assert structure.key == f"{FOLDER}.lance/"
    assert (structure.kind, structure.rows, structure.seq) == ("lance", ROWS, 7)
    index, labels = await bench.load(structure)
    assert labels.column_names == list(LABELS)
    assert labels.column("entity").to_pylist() == [f"[{at}]" for at in range(ROWS)]
    labels_found, far = index.search(bench.vectors[:50], 1, 0)
    assert labels_found[:, 0].tolist() == list(range(50))
    assert np.allclose(far, 0.0, atol=1e-6)
    # The copy is searched: nothing in the bucket is needed any more.
    store = bench.buckets.get("b")
    await store.delete([meta.key for meta in await store.list("_vectors/")])
    assert index.search(bench.vectors[-1:], 1, 0)[0].tolist() == [[ROWS - 1]]
    with pytest.raises(LakehouseError) as caught:
        await bench.load(structure)
    assert caught.value.kind is ErrorKind.NOT_FOUND


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


async def test_damage_of_any_file_is_refused(local: Bench) -> None:
    structure = await local.saved()
    store = local.buckets.get("b")
    keys = [meta.key for meta in await store.list(structure.key)]
    assert len(keys) >= 5
    for key in keys:
        data = await store.get(key)
        damages = [flipped(data, len(data) // 2), flipped(data, 0), data[:-1], b"", data + b"x"]
        for damage in damages:
            await store.put(key, damage)
            with pytest.raises(LakehouseError) as caught:
                await local.load(structure)
            assert caught.value.kind is ErrorKind.CORRUPT
        await store.delete([key])
        with pytest.raises(LakehouseError) as caught:
            await local.load(structure)
        assert caught.value.kind is ErrorKind.NOT_FOUND
        await store.put(key, data)
    for wrong in (
        replace(structure, lance_version=99),
        replace(structure, sha256="0" * 64),
        replace(structure, size_bytes=1),
    ):
        with pytest.raises(LakehouseError) as caught:
            await local.load(wrong)
        assert caught.value.kind is ErrorKind.CORRUPT
    assert local.left() == []
    index, _ = await local.load(structure)
    assert index.rows == ROWS


async def test_a_table_of_another_shape_is_refused(local: Bench) -> None:
    structure = await local.saved()
    with pytest.raises(LakehouseError) as caught:
        await local.tables.load(_Version(8, Profile("p")), structure, LABELS)  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.CORRUPT
    with pytest.raises(LakehouseError) as caught:
        await local.tables.load(VERSION, structure, ("nothing",))
    assert caught.value.kind is ErrorKind.CORRUPT


async def test_the_version_that_was_pinned_is_searched(local: Bench) -> None:
    """Whoever writes to the table makes a version of their own."""
    import lance

    index = await local.build()
    lance.dataset(str(index.folder)).delete("true")
    assert lance.dataset(str(index.folder)).count_rows() == 0
    structure = await local.tables.save(FOLDER, "b", index, seq=0)
    again, labels = await local.load(structure)
    assert (again.rows, labels.num_rows) == (ROWS, ROWS)
    found, _ = again.search(local.vectors[7:8], 3, 0)
    assert found[0, 0] == 7


def nearest_by_stock(folder: str, query: Vectors, options: dict[str, str]) -> list[dict[str, Any]]:
    """As anybody would, who has Lance and the folder's name."""
    import lancedb

    parent, name = folder.rstrip("/").rsplit("/", 1)
    table = lancedb.connect(parent, storage_options=options).open_table(name.removesuffix(".lance"))
    assert table.count_rows() == ROWS
    found: list[dict[str, Any]] = (
        table.search(query).distance_type("dot").nprobes(100).refine_factor(4).limit(3).to_list()
    )
    return found


@pytest.mark.parametrize("place", ["file", "s3"])
async def test_stock_lancedb_opens_what_is_in_the_bucket(
    place: str, tmp_path: Path, moto_place: S3Place
) -> None:
    url, options = f"file://{tmp_path}/bucket", {}
    if place == "s3":
        url = f"s3://{moto_place.bucket}/{moto_place.prefix}"
        options = {
            "aws_access_key_id": moto_place.access_key,
            "aws_secret_access_key": moto_place.secret_key,
            "aws_endpoint": moto_place.endpoint,
            "aws_region": "us-east-1",
            "allow_http": "true",
        }
    settings = moto_place.settings() if place == "s3" else BucketSettings("b", url)
    bench = await made(settings, tmp_path / "cache")
    structure = await bench.saved()
    folder = f"{url.removeprefix('file://')}/{structure.key}"
    found = await asyncio.to_thread(nearest_by_stock, folder, bench.vectors[42], options)
    assert found[0]["entity"] == "[42]"
    assert set(found[0]) == {"entity", "chunk", "vector", "_distance"}
    await ended(bench)


async def test_a_build_that_is_to_stop_leaves_nothing(local: Bench) -> None:
    with pytest.raises(LakehouseError) as caught:
        await local.build(lambda: True)
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_what_a_dead_process_left_is_cleared_away(local: Bench) -> None:
    dead = local.cache / "lance" / "dead"
    dead.mkdir(parents=True)
    (dead / ".lock").touch()
    (dead / "big.lance").write_bytes(b"x")
    index = await local.build()
    assert len(local.left()) == 1
    other = await local.build()
    assert len(local.left()) == 2, "a table that is in use was taken for one that is not"
    assert index.rows == other.rows == ROWS


async def test_a_folder_that_cannot_be_written_is_told(local: Bench) -> None:
    local.cache.mkdir()
    (local.cache / "lance").write_text("in the way")
    with pytest.raises(LakehouseError) as caught:
        await local.build()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "cache_dir" in str(caught.value.fields["hint"])
    os.unlink(local.cache / "lance")


async def test_a_table_whose_copy_is_gone_is_corrupt_and_not_a_crash(local: Bench) -> None:
    """Whoever clears the cache away beneath a search gets an error that leads to a rebuild."""
    structure = await local.saved()
    index, _ = await local.load(structure)
    shutil.rmtree(index.folder)
    with pytest.raises(LakehouseError) as caught:
        index.vectors(np.arange(ROWS))
    assert caught.value.kind is ErrorKind.CORRUPT
