"""An index with a Lance profile, from rows to searches and back from every loss."""

from __future__ import annotations

import asyncio
import gc
import shutil
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.contracts import catalog as cat
from lakehouse.contracts import vectors as c
from lakehouse.contracts.profiles import PutProfileRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Profile, VectorBackend
from lakehouse.vectord.adapters import lance
from lakehouse.vectord.adapters.stock_lance import stock_lance
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIMENSIONS, ROWS = 16, 400
WORDS = ("ferry", "harbour", "bakery", "forest", "glacier", "violin", "tractor", "comet")


@pytest.fixture(autouse=True)
def _tables_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also small ones."""
    monkeypatch.setattr(lance, "_INDEXED_ROWS_MIN", 64)
    monkeypatch.setattr(lance, "_TAKEN_ROWS_MAX", 8)


@asynccontextmanager
async def service(store: Shelf, **settings: Any) -> AsyncIterator[Vectors]:
    given = {"tail_rows": 40, "fresh_seconds": 0.0, **settings}
    async with store.vectors(**given) as (vectors, profiles, _):
        for name, backend in (("tables", VectorBackend.LANCE), ("graphs", VectorBackend.PARQUET)):
            profile = Profile(name, vector_backend=backend, exact_rows_max=50)
            await profiles.put(ADA, PutProfileRequest(profile))
        yield vectors


def body(vectors: Any, first: int = 0) -> bytes:
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    ids = [str(first + at) for at in range(len(vectors))]
    made = pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return bytes(sink.getvalue())


def drawn(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


async def make(vectors: Vectors, name: str) -> Any:
    request = c.CreateIndexRequest(name, profile="tables", dimensions=DIMENSIONS)
    await vectors.create_index(ADA, request)
    made = drawn(ROWS)
    await vectors.put_vectors(ADA, c.PutVectorsRequest(name, body(made)))
    await search(vectors, name, made[0])
    await vectors.images.settled()
    return made


async def search(vectors: Vectors, name: str, query: Any, k: int = 10, **fields: Any) -> Any:
    request = c.SearchRequest(name, (c.VectorQuery(vector=query.tobytes()),), k, **fields)
    return await vectors.search(READER, request)


def hits(found: Any) -> list[tuple[str, float]]:
    return [(hit.key, hit.score) for hit in found.results[0].hits]


async def nothing_left(store: Shelf) -> None:
    """What a service held on the local disk goes with the last that looked at it."""
    folder = store.folder / "vectors" / "lance"
    for _ in range(100):
        gc.collect()
        if not list(folder.iterdir()):
            return
        await asyncio.sleep(0.05)
    assert not list(folder.iterdir())


async def answers(vectors: Vectors, name: str) -> list[Any]:
    return [hits(await search(vectors, name, query, k=7)) for query in drawn(6, 99)]


async def structures(vectors: Vectors, name: str) -> Any:
    return (await vectors.get_index(READER, c.IndexRequest(name))).index.versions[0].structures


async def test_a_table_is_made_named_and_searched_again_after_a_restart(store: Shelf) -> None:
    async with service(store) as vectors:
        made = await make(vectors, "kept")
        (named,) = await structures(vectors, "kept")
        assert (named.kind, named.rows) == ("lance", ROWS)
        assert named.lance_version > 0
        found = await search(vectors, "kept", made[5])
        assert (found.served_by, found.backend) == ("lance", "lance")
        assert hits(found)[0][0] == "5"
        before = await answers(vectors, "kept")
        exact = [hits(await search(vectors, "kept", q, k=7, exact=True)) for q in drawn(6, 99)]
        assert before == exact
        await vectors.delete_vectors(ADA, c.DeleteVectorsRequest("kept", ("5", "6")))
        await vectors.put_vectors(ADA, c.PutVectorsRequest("kept", body(drawn(3, 8), ROWS)))
        changed = await answers(vectors, "kept")
        left = await search(vectors, "kept", made[5], k=ROWS + 100)
        assert left.served_by == "lance+exact"
        assert len(hits(left)) == ROWS - 2 + 3
    await nothing_left(store)
    async with service(store) as vectors:
        assert await answers(vectors, "kept") == changed
        assert vectors.images.loader.damaged == 0
        assert await structures(vectors, "kept") == (named,)
        report = await store.catalog.fsck(ADA, cat.FsckRequest())
        assert report.findings == ()


@pytest.mark.parametrize("damage", ["gone", "flipped", "cut", "listed"])
async def test_a_damaged_table_is_made_anew(store: Shelf, damage: str) -> None:
    name = f"damaged-{damage}"
    async with service(store) as vectors:
        await make(vectors, name)
        before = await answers(vectors, name)
        (named,) = await structures(vectors, name)
    bucket = store.buckets.get("primary")
    keys = [meta.key for meta in await bucket.list(named.key)]
    key = next(each for each in keys if each.endswith(".lance"))
    data = await bucket.get(key)
    if damage == "gone":
        await bucket.delete(keys)
    elif damage == "listed":
        await bucket.delete([f"{named.key}files.json"])
    elif damage == "cut":
        await bucket.put(key, data[: len(data) // 2])
    else:
        middle = len(data) // 2
        await bucket.put(key, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    async with service(store) as vectors:
        assert await answers(vectors, name) == before
        assert vectors.images.loader.damaged == 1
        await vectors.images.settled()
        assert await answers(vectors, name) == before
        (fresh,) = await structures(vectors, name)
        assert fresh.key != named.key
        found = await search(vectors, name, drawn(1, 99)[0])
        assert found.served_by == "lance"


async def test_a_switch_of_backend_is_made_beside_and_gives_the_same(store: Shelf) -> None:
    rows = [
        {"id": at, "text": " ".join(WORDS[(at * step) % 8] for step in (1, 3, 5)) + f" {at}"}
        for at in range(120)
    ]
    await store.put("switched", rows)
    asked = "ferry harbour glacier"
    async with service(store) as vectors:
        made = c.CreateIndexRequest("switch", "switched", ("text",), "graphs", build=False)
        await vectors.create_index(ADA, made)
        await vectors.build(ADA, c.BuildRequest("switch", wait_seconds=30))

        async def ask(**fields: Any) -> Any:
            request = c.SearchRequest("switch", (c.VectorQuery(asked),), 10, **fields)
            found = await vectors.search(READER, request)
            await vectors.images.settled()
            return found

        await ask()
        graphs = await ask()
        assert graphs.served_by == "hnsw"
        request = c.BuildRequest("switch", profile="tables", cut_over=False, wait_seconds=30)
        await vectors.build(ADA, request)
        assert (await ask()).number == 1
        await ask(number=2)
        tables = await ask(number=2)
        assert tables.served_by == "lance"
        assert hits(tables) == hits(graphs)
        some = "id % 3 = 0"
        filtered = hits(await ask(number=2, filter=some))
        assert filtered == hits(await ask(filter=some))
        assert len(filtered) == 10
        await vectors.cut_over(ADA, c.CutOverRequest("switch", 2))
        assert (await ask()).backend == "lance"
        figures = await vectors.compare(ADA, c.CompareRequest("switch", 1, 2, samples=10))
        assert {figures.first.backend, figures.second.backend} == {"parquet", "lance"}
        assert figures.overlap == figures.first.recall == figures.second.recall == 1.0


async def test_what_is_deleted_is_swept_with_the_table(store: Shelf) -> None:
    async with service(store) as vectors:
        made = await make(vectors, "swept")
        (named,) = await structures(vectors, "swept")
        bucket = store.buckets.get("primary")
        assert await bucket.list(named.key)
        await vectors.delete_index(ADA, c.DeleteIndexRequest("swept"))
        with pytest.raises(LakehouseError) as caught:
            await search(vectors, "swept", made[0])
        assert caught.value.kind is ErrorKind.NOT_FOUND
    plan = await store.catalog.collect(ADA, cat.PlanRequest(dry_run=True))
    ours = {key for key in plan.objects if key.startswith(named.key)}
    assert ours == {meta.key for meta in await bucket.list(named.key)}


async def test_a_cache_that_was_cleared_away_is_made_again(store: Shelf, tmp_path: Path) -> None:
    """Beneath a service that runs: the search that meets it is answered all the same."""
    async with service(store, cache_dir=str(tmp_path / "cache")) as vectors:
        made = await make(vectors, "cleared")
        before = await answers(vectors, "cleared")
        shutil.rmtree(tmp_path / "cache")
        assert await answers(vectors, "cleared") == before
        assert hits(await search(vectors, "cleared", made[3]))[0][0] == "3"


async def test_eight_search_while_tables_are_swapped(store: Shelf) -> None:
    async with service(store) as vectors:
        await make(vectors, "swapped")
        (first,) = await structures(vectors, "swapped")
        built, done, gone = vectors.images.built, False, set[str]()

        async def ask(seed: int) -> int:
            asked = 0
            while not done:
                before = set(gone)
                found = hits(await search(vectors, "swapped", drawn(1, seed + asked)[0], k=9))
                keys = {key for key, _ in found}
                assert len(keys) == 9
                assert not before & keys, "a row that was deleted before"
                asked += 1
            return asked

        tasks = [asyncio.create_task(ask(1000 * at)) for at in range(8)]
        for turn in range(3):
            start = 1000 + 150 * turn
            fresh = drawn(150, 40 + turn)
            await vectors.put_vectors(ADA, c.PutVectorsRequest("swapped", body(fresh, start)))
            assert hits(await search(vectors, "swapped", fresh[7]))[0][0] == str(start + 7)
            old = tuple(str(at) for at in range(turn * 60, turn * 60 + 60))
            await vectors.delete_vectors(ADA, c.DeleteVectorsRequest("swapped", old))
            gone.update(old)
        await vectors.images.settled()
        done = True
        assert min(await asyncio.gather(*tasks)) > 1
        assert vectors.images.built > built
        assert first not in await structures(vectors, "swapped")
        everything = hits(await search(vectors, "swapped", drawn(1)[0], k=2000))
        assert len(everything) == ROWS + 3 * 150 - 3 * 60


async def test_a_table_lies_in_the_bucket_of_its_vectors(store: Shelf) -> None:
    async with service(store) as vectors, store.vectors() as (_, profiles, _embedder):
        backend = VectorBackend.LANCE
        profile = Profile("abroad", vector_backend=backend, bucket="eu", exact_rows_max=50)
        await profiles.put(ADA, PutProfileRequest(profile))
        request = c.CreateIndexRequest("abroad", profile="abroad", dimensions=DIMENSIONS)
        await vectors.create_index(ADA, request)
        await vectors.put_vectors(ADA, c.PutVectorsRequest("abroad", body(drawn(100))))
        await search(vectors, "abroad", drawn(1)[0])
        await vectors.images.settled()
        (named,) = await structures(vectors, "abroad")
        assert named.bucket == (await store.dataset("vectors.abroad.v1")).bucket == "eu"
        assert await store.buckets.get("eu").list(named.key)
        assert not await store.buckets.get("primary").list(named.key)


async def test_lance_warns_of_no_fork_that_becomes_another_process() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.filterwarnings("always", "something else")
        getattr(stock_lance(), "__warn_on_fork")()
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert [str(one.message) for one in told] == ["something else"]
