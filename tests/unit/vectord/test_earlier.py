"""Images of earlier versions: how many are read and kept, and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from lakehouse.contracts import vectors as c
from lakehouse.contracts.as_of import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import SearchMode
from lakehouse.vectord.retrieval.earlier import Earlier
from support_vectors import ADA, Shelf
from unit.vectord.building_support import Service, built, docs, made

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEPT = 4


class Reading:
    """A loader that notes what it reads, and goes on only while it may."""

    def __init__(self, earlier: Earlier, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inner = earlier._loader
        self.reads: list[int] = []
        self.at_once = self.most = self.kept = 0
        self.earlier = earlier
        self.begun = asyncio.Event()
        self.may = asyncio.Event()
        self.may.set()
        monkeypatch.setattr(earlier, "_loader", self)

    async def load(self, ctx: Context, version: Any, at: tuple[int, int]) -> Any:
        self.reads.append(at[1])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.kept = max(self.kept, sum(one.then is not None for one in self._all()))
        self.begun.set()
        try:
            await self.may.wait()
            return await self.inner.load(ctx, version, at)
        finally:
            self.at_once -= 1

    def _all(self) -> list[Any]:
        return list(self.earlier._kept.values())


@pytest_asyncio.fixture(loop_scope="module")
async def service(store: Shelf) -> AsyncIterator[Service]:
    async with store.vectors() as made_service:
        yield made_service


@pytest.fixture
def reading(service: Service, monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(service[0]._retrieving._earlier, monkeypatch)


async def ask(service: Service, index: str, version: int, ctx: Context = ADA) -> list[str]:
    request = c.SearchRequest(
        index, (c.VectorQuery("harbour"),), mode=SearchMode.TEXT, as_of=AsOf(version=version)
    )
    found = (await service[0].search(ctx, request)).results[0]
    return [hit.key for hit in found.hits]


async def newest(service: Service, index: str) -> int:
    return (await service[0].get_index(ADA, c.IndexRequest(index))).version


async def test_versions_that_had_the_same_rows_are_read_once(
    store: Shelf, service: Service, reading: Reading
) -> None:
    await made(service, store, "same", *docs("harbour dues", "wheat mill"))
    first = await newest(service, "same")
    for at in range(5):
        last = await store.put(f"same-{at}", [{"id": 1}])
    versions = range(first, last + 1)
    assert len(versions) == 6
    found = await asyncio.gather(*[ask(service, "same", version) for version in versions])
    assert found == [["[1]"]] * 6
    assert len(reading.reads) == 1
    # What the dataset had is of each version all the same.
    gone = await store.delete("same", {"id": 1})
    assert await ask(service, "same", gone) == []
    assert await ask(service, "same", last) == ["[1]"]
    assert len(reading.reads) == 1


async def test_one_is_read_at_a_time_and_few_are_kept(
    store: Shelf, service: Service, reading: Reading
) -> None:
    await made(service, store, "many", *docs("harbour dues"))
    versions = [await newest(service, "many")]
    for at in range(2, 9):
        await store.upsert("many", {"id": at, "text": "harbour"})
        await built(service[0], "many")
        versions.append(await newest(service, "many"))
    found = await asyncio.gather(*[ask(service, "many", version) for version in versions])
    assert [len(keys) for keys in found] == list(range(1, 9))
    assert (reading.most, len(reading.reads)) == (1, 8)
    assert reading.kept < KEPT
    assert len(reading.earlier._kept) == KEPT
    # Those that were searched last are there.
    await ask(service, "many", versions[-1])
    assert len(reading.reads) == 8


async def test_each_waits_as_long_as_its_own_deadline_allows(
    store: Shelf, service: Service, reading: Reading
) -> None:
    await made(service, store, "patient", *docs("harbour dues"))
    version = await newest(service, "patient")
    reading.may.clear()
    soon = replace(ADA, deadline=store.clock.monotonic() + 0.5)
    hasty = asyncio.create_task(ask(service, "patient", version, soon))
    await reading.begun.wait()
    patient = asyncio.create_task(ask(service, "patient", version))
    with pytest.raises(LakehouseError, match="deadline passed") as late:
        await hasty
    assert late.value.kind is ErrorKind.TIMEOUT
    reading.may.set()
    assert await patient == ["[1]"]
    assert len(reading.reads) == 1


async def test_what_nobody_waits_for_is_not_read(
    store: Shelf, service: Service, reading: Reading
) -> None:
    await made(service, store, "left", *docs("harbour dues"))
    versions = [await newest(service, "left")]
    await store.upsert("left", {"id": 2, "text": "harbour"})
    await built(service[0], "left")
    versions.append(await newest(service, "left"))
    reading.may.clear()
    tasks = [asyncio.create_task(ask(service, "left", versions[0]))]
    await reading.begun.wait()
    tasks.append(asyncio.create_task(ask(service, "left", versions[1])))
    async with asyncio.timeout(10):
        while len(reading.earlier._tasks) < 2:
            await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    reading.may.set()
    # What was being read is kept; what had not begun is read when it is asked for again.
    assert await ask(service, "left", versions[0]) == ["[1]"]
    assert len(reading.reads) == 1
    assert set(await ask(service, "left", versions[1])) == {"[1]", "[2]"}
    assert len(reading.reads) == 2
