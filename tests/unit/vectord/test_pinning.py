"""A pin keeps every text that it says it keeps, of the datasets that were searched, and is undone
by nobody who pins the same.

One store whose time travel reaches back to the last collection, which only tests make.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from lakehouse.contracts import catalog as cat
from lakehouse.contracts import memory as m
from lakehouse.contracts import retrievals as r
from lakehouse.contracts import vectors as c
from lakehouse.contracts.tags import SetTagRequest, Tag, TagResult, TagsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import RecordClass, SearchMode
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf, shelf
from unit.vectord.building_support import docs, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    told = {"history_seconds": 0.0, "undrop_seconds": 0.0, "collect_seconds": 0.0}
    async with shelf(tmp_path_factory.mktemp("store"), **told) as shelves:
        yield shelves


async def ask(vectors: Vectors, index: str) -> str:
    request = c.SearchRequest(
        index, (c.VectorQuery("fox"),), 5, mode=SearchMode.TEXT, record=RecordClass.DURABLE
    )
    return (await vectors.search(ADA, request)).results[0].retrieval_id


async def pin(vectors: Vectors, known: str) -> r.PinResult:
    return await vectors.retrievals.pin(ADA, r.PinRequest(known))


async def replay(vectors: Vectors, known: str) -> r.ReplayReport:
    return await vectors.retrievals.replay(READER, r.RetrievalRequest(known))


async def tags(store: Shelf, known: str) -> tuple[Tag, ...]:
    return (await store.catalog.tags(ADA, TagsRequest(prefix=f"retrieval-{known}"))).tags


async def recalled(vectors: Vectors) -> tuple[str, list[str]]:
    request = m.RecallRequest("chat", "zebra fox", k=4, record=RecordClass.DURABLE)
    found = await vectors.memory.recall(ADA, request)
    return found.retrieval_id, [one.turn.text for one in found.recalled if one.turn]


async def test_turns_that_waited_to_be_embedded_are_kept_too(store: Shelf) -> None:
    async with store.vectors(follow=True, fresh_seconds=0.2) as (vectors, _, embedder):
        memory = vectors.memory
        first = tuple(m.Turn(f"fox {at}") for at in range(3))
        await memory.remember(ADA, m.RememberRequest("chat", first))
        async with asyncio.timeout(20):
            while (await memory.recall(ADA, m.RecallRequest("chat", "fox"))).behind:
                await asyncio.sleep(0.02)
        embedder.failure = LakehouseError(ErrorKind.UNAVAILABLE, "away")
        turns = (m.Turn("zebra fox tomorrow"),)
        (zebra,) = (await memory.remember(ADA, m.RememberRequest("chat", turns))).ids
        known, said = await recalled(vectors)
        late, _ = await recalled(vectors)
        assert "zebra fox tomorrow" in said
        await store.delete("chat", zebra)
        await pin(vectors, known)
        first_seen = [hit.text for hit in (await replay(vectors, known)).hits]
        await store.catalog.collect(ADA, cat.PlanRequest())
        kept = await replay(vectors, known)
        assert (kept.same, [hit.text for hit in kept.hits]) == (True, first_seen)
        told = {hit.text: hit.text_from for hit in kept.hits}
        assert told["zebra fox tomorrow"] == "table"
        # Of the other one nothing keeps that turn, now that it was let go.
        await vectors.retrievals.pin(ADA, r.PinRequest(known, remove=True))
        await store.catalog.collect(ADA, cat.PlanRequest())
        with pytest.raises(LakehouseError) as refused:
            await pin(vectors, late)
        assert (refused.value.kind, refused.value.fields["missing"]) == (ErrorKind.CONFLICT, 1)
        assert await tags(store, late) == ()


async def test_a_dataset_of_the_same_name_is_not_taken_for_it(store: Shelf) -> None:
    async with store.vectors() as service:
        vectors, *_ = service
        await made(service, store, "d", *docs("red fox", "blue fox"))
        await store.catalog.rename(ADA, cat.RenameRequest("d", "e"))
        await store.put("d", docs("another fox"))
        known = await ask(vectors, "d")
        first = await replay(vectors, known)
        await pin(vectors, known)
        of = {tag.dataset_id for tag in await tags(store, known)}
        (searched,) = first.retrieval.indexes
        assert of == {(await store.dataset("e")).id, searched.vectors_dataset_id}
        await vectors.delete_index(ADA, c.DeleteIndexRequest("d"))
        await store.catalog.drop(ADA, cat.DropRequest("e"))
        await store.catalog.collect(ADA, cat.PlanRequest())
        assert (await replay(vectors, known)).same


class _Failing:
    """A catalog whose second tag is not set: it waits for ``go``, and fails."""

    def __init__(self, catalog: Any) -> None:
        self._catalog = catalog
        self.halfway, self.go, self._count = asyncio.Event(), asyncio.Event(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    async def set_tag(self, ctx: Context, request: SetTagRequest) -> TagResult:
        if not request.remove:
            self._count += 1
            if self._count > 1:
                self.halfway.set()
                await self.go.wait()
                raise LakehouseError(ErrorKind.UNAVAILABLE, "the catalog does not answer")
        done: TagResult = await self._catalog.set_tag(ctx, request)
        return done


async def test_a_pin_that_fails_takes_nothing_of_another_away(store: Shelf) -> None:
    """Two processes pin one retrieval at the same moment."""
    parts = store.parts(HashingEmbedder())
    failing = _Failing(store.catalog)
    parts.catalog = cast("Any", failing)
    other = Vectors(parts)
    async with store.vectors() as service:
        vectors, *_ = service
        await made(service, store, "both", *docs("red fox", "blue fox"))
        known = await ask(vectors, "both")
        first = await replay(vectors, known)
        half = asyncio.create_task(pin(other, known))
        await asyncio.wait_for(failing.halfway.wait(), 20)
        assert len(await tags(store, known)) == 1
        pinned = await pin(vectors, known)
        assert (pinned.changed, len(pinned.tags)) == (True, 2)
        failing.go.set()
        with pytest.raises(LakehouseError):
            await half
        await other.close()
        assert {tag.name for tag in await tags(store, known)} == set(pinned.tags)
        await vectors.delete_index(ADA, c.DeleteIndexRequest("both"))
        await store.catalog.drop(ADA, cat.DropRequest("both"))
        await store.catalog.collect(ADA, cat.PlanRequest())
        assert (await replay(vectors, known)).same
        assert (await replay(vectors, known)).digest == first.digest
        bucket = store.buckets.get("primary")
        assert [known in one.key for one in await bucket.list("_retrievals/pinned/")].count(True)


async def test_at_the_same_moment_one_pins_and_the_others_find_it_done(store: Shelf) -> None:
    async with store.vectors() as service:
        vectors, *_ = service
        await made(service, store, "once", *docs("red fox"))
        known = await ask(vectors, "once")
        done = await asyncio.gather(*[pin(vectors, known) for _ in range(3)])
        assert sorted(one.changed for one in done) == [False, False, True]
        assert len({one.tags for one in done}) == 1
        # Where somebody took one of its tags away it is pinned anew.
        (one, *_) = await tags(store, known)
        for each in await tags(store, known):
            if each != one:
                await store.catalog.set_tag(ADA, SetTagRequest(each.name, remove=True))
        assert (await pin(vectors, known)).pinned
        assert (await replay(vectors, known)).same
