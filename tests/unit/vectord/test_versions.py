"""Versions of an index beside each other, and what keeps them up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as c
from lakehouse.contracts.catalog import DropRequest, ListRequest, ListResult, RenameRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.vectors import Chunking, ChunkMethod, Profile, VersionState
from lakehouse.vectord.ports import Lane
from support_vectors import ADA, READER, Shelf
from unit.vectord.building_support import Service, built, docs, found, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def service(store: Shelf) -> AsyncIterator[Service]:
    async with store.vectors(batch_documents=4) as made:
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name.removeprefix("test_")[:40]


def near(index: str, **fields: Any) -> c.SearchRequest:
    return c.SearchRequest(index, (c.VectorQuery("one"),), **fields)


async def test_a_new_version_with_another_profile_stands_beside_until_it_is_ready(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, profiles, embedder = service
    await made(service, store, name, *docs("one", "two"))
    await profiles.put(ADA, p.PutProfileRequest(Profile(name, model="hashing")))
    embedder.gate.clear()
    pending = asyncio.create_task(
        vectors.build(ADA, c.BuildRequest(name, profile=name, wait_seconds=30))
    )
    await asyncio.sleep(0.05)
    embedder.gate.set()
    info = (await pending).index
    assert (info.live, info.previous, info.profile) == (2, 1, name)
    assert [each.model for each in info.versions] == ["all-minilm", "hashing"]
    assert await found(store, info.versions[1]) == {"[1]": ["one"], "[2]": ["two"]}
    # Both are kept up to date, so that going back answers from what is there now.
    await store.upsert(name, {"id": 3, "text": "three"})
    embedder.seen.clear()
    await built(vectors, name)
    await asyncio.sleep(0)
    info = (await vectors.cut_over(ADA, c.CutOverRequest(name))).index
    assert (info.live, info.previous, info.behind) == (1, 2, False)
    assert embedder.seen == ["three", "three"]


async def test_a_version_to_compare_is_not_live_by_itself(
    service: Service, store: Shelf, name: str
) -> None:
    vectors = service[0]
    await made(service, store, name, *docs("one"))
    request = c.BuildRequest(name, new_version=True, cut_over=False, wait_seconds=30)
    info = (await vectors.build(ADA, request)).index
    assert (info.live, info.previous) == (1, 0)
    assert [each.state for each in info.versions] == [VersionState.READY] * 2
    with pytest.raises(LakehouseError) as refused:
        await vectors.cut_over(ADA, c.CutOverRequest(name))
    assert refused.value.kind is ErrorKind.CONFLICT
    info = (await vectors.cut_over(ADA, c.CutOverRequest(name, 2))).index
    assert (info.live, info.previous) == (2, 1)


@pytest.mark.parametrize("same", [True, False], ids=["same model", "other weights"])
async def test_what_another_version_has_by_the_same_model_is_not_embedded_again(
    service: Service, store: Shelf, same: bool
) -> None:
    vectors, profiles, embedder = service
    name = f"again_{same}"
    await made(service, store, name, *docs("a b c", "d", "e"))
    chunking = Chunking(ChunkMethod.TOKENS, 2, 0)
    profile = Profile(name, chunking=chunking, exact_rows_max=0)
    await profiles.put(ADA, p.PutProfileRequest(profile))
    if not same:
        embedder.change_model("all-minilm", "other")
    await store.upsert(name, {"id": 3, "text": "f"})
    request = c.BuildRequest(name, profile=name, cut_over=False, wait_seconds=30)
    version = (await vectors.build(ADA, request)).index.versions[-1]
    assert await found(store, version) == {"[1]": ["a b", "c"], "[2]": ["d"], "[3]": ["f"]}
    # Of the chunks one is there already, letter by letter.
    assert sorted(embedder.seen) == (["a b", "c", "f"] if same else ["a b", "c", "d", "f"])
    assert version.embedded_texts == (3 if same else 4)
    sql = "select vector from \"vectors.{}.v{}\" where text = 'd'"
    first, second = [(await store.sql(sql.format(name, n)))[0]["vector"] for n in (1, 2)]
    assert (first == second) is same
    if same:
        # Both follow, one after the other.
        embedder.seen.clear()
        await store.upsert(name, {"id": 2, "text": "g"}, {"id": 9, "text": "h"})
        await built(vectors, name)
        info = (await vectors.get_index(READER, c.IndexRequest(name))).index
        assert [each.documents for each in info.versions] == [4, 4]
        assert sorted(embedder.seen) == ["f", "g", "h"]


async def test_another_model_under_the_name_is_never_mixed_in(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, _, embedder = service
    await made(service, store, name, *docs("one", "two"))
    await store.upsert(name, {"id": 3, "text": "three"})
    embedder.change_model("all-minilm", "other weights")
    version = await built(vectors, name)
    assert version.state is VersionState.READY
    assert "the model changed under its name" in version.error
    assert (embedder.seen, await found(store, version)) == ([], {"[1]": ["one"], "[2]": ["two"]})
    info = (await vectors.get_index(READER, c.IndexRequest(name))).index
    assert info.behind
    request = c.BuildRequest(name, new_version=True, wait_seconds=30)
    info = (await vectors.build(ADA, request)).index
    assert (info.live, info.previous, info.behind) == (2, 1, False)
    assert info.versions[1].model_digest == "other weights"
    # Two at first, and three anew; what was asked to compare both goes before them.
    assert embedder.texts[Lane.INDEX] == 2 + 3


async def test_a_dropped_source_leaves_the_index_and_says_so(
    service: Service, store: Shelf, name: str
) -> None:
    vectors = service[0]
    await made(service, store, name, *docs("one"))
    await store.catalog.drop(ADA, DropRequest(name))
    await store.put(name, docs("another dataset"))
    version = await built(vectors, name)
    assert version.state is VersionState.READY
    assert "the dataset of the index was dropped" in version.error
    assert await found(store, version) == {"[1]": ["one"]}
    # What was embedded can be searched, though not by columns that are not there any more.
    result = await vectors.search(READER, near(name))
    assert [hit.key for hit in result.results[0].hits] == ["[1]"]
    assert not result.behind
    with pytest.raises(LakehouseError) as refused:
        await vectors.search(READER, near(name, filter="id = 1"))
    assert refused.value.kind is ErrorKind.NOT_FOUND
    assert "dropped" in str(refused.value)


async def test_a_filter_brings_no_more_than_there_is(
    service: Service, store: Shelf, name: str
) -> None:
    await made(service, store, name, *docs("one", "two"))
    for condition, keys in (("true", ["[1]", "[2]"]), ("id > 1", ["[2]"])):
        hits = (await service[0].search(READER, near(name, filter=condition))).results[0].hits
        assert sorted(hit.key for hit in hits) == keys
    trick = f'true) union all (select a.id from "{name}" a cross join "{name}" b'
    with pytest.raises(LakehouseError) as refused:
        await service[0].search(READER, near(name, filter=trick))
    assert refused.value.kind is ErrorKind.INVALID
    assert "more rows than the dataset has" in str(refused.value)


@pytest.mark.parametrize("how", ["renamed", "dropped"])
async def test_where_the_dataset_went_is_not_looked_for_at_every_search(
    service: Service, store: Shelf, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    vectors, name = service[0], f"went_{how}"
    await made(service, store, name, *docs("one", "two"))
    if how == "renamed":
        await store.catalog.rename(ADA, RenameRequest(name, f"{name}_2"))
    else:
        await store.catalog.drop(ADA, DropRequest(name))
        await store.put(name, docs("another"))
    lists = []
    real = store.catalog.list

    async def counted(ctx: Context, request: ListRequest) -> ListResult:
        lists.append(request)
        return await real(ctx, request)

    monkeypatch.setattr(store.catalog, "list", counted)
    for _ in range(4):
        result = await vectors.search(READER, near(name))
        assert (len(result.results[0].hits), result.behind) == (2, False)
    assert len(lists) == 1
    # Once more for another use of it: of the index as it is shown.
    for _ in range(4):
        info = (await vectors.get_index(READER, c.IndexRequest(name))).index
    assert (info.dataset, info.behind) == (f"{name}_2" if how == "renamed" else name, False)
    assert len(lists) == 2
    if how == "renamed":
        # Nor is what was found believed without a look: a name may be another's by now.
        await store.catalog.rename(ADA, RenameRequest(f"{name}_2", f"{name}_3"))
        await store.put(f"{name}_2", docs("another"))
        result = await vectors.search(READER, near(name, filter="text = 'two'"))
        assert [hit.key for hit in result.results[0].hits] == ["[2]"]


async def test_a_follower_notes_the_new_names_of_datasets(
    service: Service, store: Shelf, name: str
) -> None:
    await made(service, store, name, *docs("one"))
    second = f"{name}_2"
    await service[0].create_index(ADA, c.CreateIndexRequest(second, name, ("text",)))
    await built(service[0], second)
    new = f"{name}_new"
    await store.catalog.rename(ADA, RenameRequest(name, new))
    follower, documents = service[0]._follower, service[0]._builder._documents
    await follower.look()
    # Indexes of other tests may be built by it.
    await asyncio.gather(*follower._tasks.values(), return_exceptions=True)
    infos = [await documents.get(ADA, each) for each in (name, second)]
    assert [info.dataset for info in infos] == [new, new]


async def test_a_follower_catches_up_and_finishes_what_was_begun(
    service: Service, store: Shelf, name: str
) -> None:
    await made(service, store, name, *docs("lone"))
    begun = f"{name}_2"
    create = c.CreateIndexRequest(begun, name, ("text",), build=False)
    await service[0].create_index(ADA, create)
    documents = service[0]._builder._documents
    await documents.change(
        ADA, begun, lambda i: replace(i, versions=(replace(i.versions[0], cut_over=True),))
    )
    async with store.vectors(follow=True, follow_seconds=0.02) as (another, _, embedder):
        await store.upsert(name, {"id": 2, "text": "duo"})
        for _ in range(300):
            await asyncio.sleep(0.02)
            infos = [
                (await another.get_index(READER, c.IndexRequest(each))).index
                for each in (name, begun)
            ]
            if all(i.versions[0].documents == 2 and not i.behind for i in infos):
                break
        assert [info.versions[0].documents for info in infos] == [2, 2]
        # Other tests' indexes are followed too.
        assert sorted({"lone", "duo"} & {*embedder.seen}) == ["duo", "lone"]
        assert embedder.seen.count("lone") == 1
