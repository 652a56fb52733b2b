"""Builds amid what others do meanwhile: deletions, another model, an index made anew."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import VersionState
from lakehouse.vectord import building, publishing, weighing
from lakehouse.vectord.building import Overtaken
from support_vectors import ADA, READER, Shelf
from unit.vectord.building_support import Service, built, docs, found, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def service(store: Shelf) -> AsyncIterator[Service]:
    async with store.vectors(batch_documents=4) as made:
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name.removeprefix("test_").replace("[", "_").strip("]")[-40:]


@pytest.mark.parametrize("how", ["swap", "away"])
async def test_what_was_deleted_goes_whatever_became_of_the_model(
    service: Service, store: Shelf, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, _, embedder = service
    await made(service, store, name, *docs("one", "two"))
    await store.delete(name, 1)
    await store.upsert(name, {"id": 3, "text": "three"})
    if how == "swap":
        embedder.change_model("all-minilm", "other weights")
    else:
        embedder.fail()
    version = await built(vectors, name)
    assert version.error
    assert await found(store, version) == {"[2]": ["two"]}
    embedder.change_model("all-minilm")
    embedder.recover()
    version = await built(vectors, name)
    assert (version.error, version.documents) == ("", 2)
    assert await found(store, version) == {"[2]": ["two"], "[3]": ["three"]}


@pytest.mark.parametrize("how", ["fails", "goes_on"])
async def test_a_build_leaves_an_index_alone_that_was_made_anew_under_its_name(
    service: Service, store: Shelf, name: str, how: str
) -> None:
    vectors, _, embedder = service
    await store.put(name, docs("one"))
    create = c.CreateIndexRequest(name, name, ("text",), build=False)
    before = (await vectors.create_index(ADA, create)).index.versions[0]
    real = embedder.model
    async with store.vectors() as (another, _, _):

        async def meanwhile(model: str) -> Any:
            embedder.model = real  # type: ignore[method-assign]
            await another.delete_index(ADA, c.DeleteIndexRequest(name))
            await another.create_index(ADA, create)
            if how == "fails":
                raise LakehouseError(ErrorKind.NOT_FOUND, "the model was taken away")
            return await real(model)

        embedder.model = meanwhile  # type: ignore[method-assign]
        with pytest.raises((LakehouseError, Overtaken)):
            await vectors._builder.build(name, 1)
        after = (await another.get_index(READER, c.IndexRequest(name))).index.versions[0]
    assert after.vectors_dataset_id != before.vectors_dataset_id
    assert (after.state, after.error) == (VersionState.BUILDING, "")
    assert (await built(vectors, name)).state is VersionState.READY


async def test_rows_are_laid_out_beside_the_loop(
    service: Service, store: Shelf, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: dict[str, set[bool]] = {}

    def watch(module: Any, function: str) -> None:
        real: Callable[..., Any] = getattr(module, function)

        def watched(*args: Any) -> Any:
            on_loop = threading.current_thread() is threading.main_thread()
            loops.setdefault(function, set()).add(on_loop)
            return real(*args)

        monkeypatch.setattr(module, function, watched)

    monkeypatch.setattr(weighing, "_FEW", 0)
    monkeypatch.setattr(publishing, "_BYTES_MAX", 1)
    watch(publishing, "ipc")
    watch(publishing, "_first_chunks_last")
    watch(weighing, "_as_known")
    watch(weighing, "_entities")
    watch(building, "_gone")
    await made(service, store, name, *docs("one", "two"))
    await store.upsert(name, {"id": 2, "text": "2"})
    await store.delete(name, 1)
    version = await built(service[0], name)
    assert await found(store, version) == {"[2]": ["2"]}
    assert len(loops) == 5
    assert all(each == {False} for each in loops.values()), loops


async def test_what_changes_while_a_build_runs_is_followed_when_it_has_ended(
    service: Service, store: Shelf, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = service[0]
    await made(service, store, name, *docs("one"))
    follower, gate = vectors._follower, asyncio.Event()
    real = follower._builder.build

    async def earlier(index: str, number: int) -> bool:
        """One that has read its rows already."""
        await gate.wait()
        return True

    monkeypatch.setattr(follower._builder, "build", earlier)
    task = follower.start_build(name, 1)
    await store.upsert(name, {"id": 2, "text": "two"})
    await follower.look()
    gate.set()
    await task
    await asyncio.sleep(0)
    monkeypatch.setattr(follower._builder, "build", real)
    # It looks at once, and finds what it passed over though nothing was committed since.
    assert follower._wake.is_set()
    assert await follower.look() >= 1
    version = await built(vectors, name)
    assert await found(store, version) == {"[1]": ["one"], "[2]": ["two"]}
