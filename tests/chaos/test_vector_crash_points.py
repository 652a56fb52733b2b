"""The build of an index, killed before and after each write to the store: whoever starts next
brings it to the same end, asks the model for no text twice, and leaves nothing lying."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos.doomed import CLOCK, IDS, SETTINGS, Doom, DoomedBuckets, bury, live
from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.contracts import vectors as c
from lakehouse.contracts.catalog import GetRequest, PlanRequest
from lakehouse.contracts.ingest import IngestMode, IngestOptions, IngestRequest
from lakehouse.contracts.profiles import PutProfileRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.service import Journal
from lakehouse.ingestd.rows.service import Rows
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.model.vectors import Profile, VersionState
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.local import LocalStore
from lakehouse.queryd.service import Query
from lakehouse.queryd.settings import QuerySettings
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Lane
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from lakehouse.vectord.settings import RetrievalSettings, VectorSettings

CTX = Context(ANONYMOUS_OPERATOR, "chaos")
TEXTS = [
    f"{word} number {at} of the list" for at, word in enumerate(("red", "green", "blue", "grey"))
]
CSV = "id,text\n" + "".join(f"{at},{text}\n" for at, text in enumerate(TEXTS * 4))
PROFILE = Profile("small", exact_rows_max=2, hnsw_m=4, ef_construction=20)


class Present:
    """The catalog of whoever lives now, for a query service that outlives them."""

    def __init__(self) -> None:
        self.catalog: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.catalog, name)


@dataclass
class House:
    """The bucket, and what reads it for one life after the other."""

    folder: Path
    query: Query
    present: Present
    lives: int = 0

    def bucket(self, name: str) -> LocalStore:
        return LocalStore(self.folder / name, CLOCK)


@dataclass
class Life:
    """The roles of one process."""

    catalog: Catalog
    ingest: Ingest
    vectors: Vectors
    profiles: Profiles
    embedder: HashingEmbedder

    async def close(self) -> None:
        # Each whatever another raises: a second try must find nothing of the first.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.catalog.close)
            stack.push_async_callback(self.ingest.close)
            stack.push_async_callback(self.vectors.close)


async def start(house: House, doom: Doom, graves: list[Any]) -> Life:
    store = LocalStore(house.folder / "bucket", CLOCK)
    buckets = DoomedBuckets(store, doom)  # type: ignore[arg-type]
    catalog = await open_catalog(SETTINGS, buckets, WriterInfo(IDS.ulid(), ""), CLOCK, IDS)
    house.present.catalog = catalog
    house.lives += 1
    spool = IngestSettings(spool_dir=str(house.folder / f"spool-{house.lives}"), threads=1)
    ingest = Ingest(spool, catalog, buckets, CLOCK, IDS)
    graves.append(ingest)
    await ingest.start()
    embedder = HashingEmbedder()
    settings = VectorSettings(
        cache_dir=str(house.folder / "vectors"),
        follow_seconds=0.02,
        batch_documents=6,
        tail_rows=4,
    )
    parts = VectorParts(
        settings=settings,
        catalog=catalog,
        ingest=ingest,
        rows=Rows(ingest.parts),
        query=house.query,
        journal=Journal(ingest.parts),
        buckets=buckets,
        embedder=embedder,
        clock=CLOCK,
        ids=IDS,
        jobs=ThreadPoolExecutor(1),
        retrievals=RetrievalSettings(spool_dir=str(house.folder / "retrievals")),
    )
    vectors = Vectors(parts)
    graves.append(parts.jobs)
    return Life(catalog, ingest, vectors, Profiles(parts), embedder)


async def ask(life: Life, text: str) -> list[tuple[str, float]]:
    request = c.SearchRequest("docs", (c.VectorQuery(text=text),), 5)
    found = await life.vectors.search(CTX, request)
    return [(hit.key, round(hit.score, 6)) for hit in found.results[0].hits]


async def answers(life: Life) -> list[list[tuple[str, float]]]:
    return [await ask(life, text) for text in ("blue list", "number 3", "red")]


async def work(life: Life) -> None:
    """An index over the dataset, built, with a graph, and asked."""
    request = c.CreateIndexRequest("docs", "docs", ("text",), "small")
    await life.vectors.create_index(CTX, request)
    await life.vectors.build(CTX, c.BuildRequest("docs", wait_seconds=30))
    await answers(life)
    await life.vectors.images.settled()


async def begin(house: House) -> None:
    """A store with the dataset and a profile under which a graph is soon made."""
    store = LocalStore(house.folder / "bucket", CLOCK)
    await init_store(store, CLOCK, IDS)
    life = await start(house, Doom(), [])
    await life.profiles.put(CTX, PutProfileRequest(PROFILE))

    async def body() -> AsyncIterator[bytes]:
        yield CSV.encode()

    options = IngestOptions(content_type="text/csv")
    await life.ingest.ingest(
        CTX, IngestRequest("docs", IngestMode.CREATE, ("id",), options), body()
    )
    await life.close()


async def play(house: House, doom: Doom) -> bool:
    graves: list[Any] = []

    async def run() -> None:
        life = await start(house, doom, graves)
        await work(life)
        await life.close()

    ended = await live(doom, run())
    if not ended:
        for grave in graves:
            bury(grave) if isinstance(grave, Ingest) else grave.shutdown(wait=True)
    return ended


async def embedded(life: Life) -> int:
    """How many documents have their vectors in the store; each is one chunk."""
    try:
        found = await life.catalog.get(CTX, GetRequest("vectors.docs.v1"))
    except LakehouseError as error:
        if error.kind is not ErrorKind.NOT_FOUND:
            raise
        return 0
    return found.dataset.row_count or 0


async def judge(house: House, wanted: list[list[tuple[str, float]]], told: str) -> None:
    """The next process finishes it by itself, or by the call made again."""
    life = await start(house, Doom(), [])
    try:
        there = await embedded(life)
        await life.vectors.start()
        await work(life)
        assert await answers(life) == wanted, told
        index = (await life.vectors.get_index(CTX, c.IndexRequest("docs"))).index
        version = index.versions[-1]
        assert (index.live, len(index.versions), version.state) == (1, 1, VersionState.READY), told
        assert (version.documents, version.error) == (len(TEXTS) * 4, ""), told
        # What was committed is not embedded again.
        assert life.embedder.texts[Lane.INDEX] <= len(TEXTS) * 4 - there, told
        for _ in range(2):
            await life.catalog.collect(CTX, PlanRequest())
        store = house.bucket("bucket")
        lying = {meta.key for meta in await store.list("_vectors/")}
        # Graphs may have been merged since: then another is named than was, and both may be there.
        later = (await life.vectors.get_index(CTX, c.IndexRequest("docs"))).index.versions[-1]
        structures = (*version.structures, *later.structures)
        named = {key for one in structures for key in (one.key, one.labels_key)}
        mine = {key for key in lying if key not in named}
        sessions = set((await life.catalog._core.read(CTX)).objects.sessions)
        assert not {key for key in mine if key.split("/")[1] not in sessions}, told
        assert await answers(life) == wanted, f"{told}: collection took something"
    finally:
        await life.close()


@asynccontextmanager
async def built(folder: Path) -> AsyncIterator[House]:
    """One query service for all lives, for its worker takes a second; each begins with the bucket
    as it was arranged."""
    present = Present()
    buckets = Buckets([BucketSettings("primary", f"file://{folder}/bucket")], CLOCK, IDS)
    places = QuerySettings(
        cache_dir=str(folder / "cache"), spill_dir=str(folder / "spill"), workers_max=1
    )
    query = Query(places, present, buckets, CLOCK, IDS)
    await query.start()
    try:
        house = House(folder, query, present)
        await begin(house)
        shutil.copytree(folder / "bucket", folder / "arranged")
        yield house
    finally:
        await query.close()
        await buckets.close()


def again(house: House) -> None:
    """The bucket as it was arranged; its folder stays the one that was seen first."""
    bucket = house.folder / "bucket"
    for one in bucket.iterdir():
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    shutil.copytree(house.folder / "arranged", bucket, dirs_exist_ok=True)
    shutil.rmtree(house.folder / "vectors", ignore_errors=True)
    house.lives = 1


async def undisturbed(house: House) -> tuple[int, list[list[tuple[str, float]]]]:
    """The writes of a life, and the answers at its end."""
    again(house)
    doom = Doom()
    assert await play(house, doom)
    life = await start(house, Doom(), [])
    wanted = await answers(life)
    await life.close()
    return doom.writes, wanted


async def killed(house: House, dooms: list[Doom], wanted: list[list[tuple[str, float]]]) -> None:
    again(house)
    for doom in dooms:
        await play(house, doom)
    told = " then ".join(f"{'after' if one.after else 'before'} {one.at}" for one in dooms)
    await asyncio.wait_for(judge(house, wanted, told), 120)


@pytest.mark.timeout(300)
async def test_a_build_that_is_killed_is_brought_to_its_end(tmp_path: Path) -> None:
    async with built(tmp_path) as house:
        writes, wanted = await undisturbed(house)
        assert writes > 15
        for at in range(2, writes, 7):
            await killed(house, [Doom(at, at % 2 == 0), Doom(3, True)], wanted)


@pytest.mark.soak
@pytest.mark.timeout(3000)
async def test_a_build_is_killed_at_every_write(tmp_path: Path) -> None:
    async with built(tmp_path) as house:
        writes, wanted = await undisturbed(house)
        for at in range(writes):
            for after in (False, True):
                await killed(house, [Doom(at, after)], wanted)
