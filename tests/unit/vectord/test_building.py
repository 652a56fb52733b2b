"""Builds: only what is new or changed is embedded, and what is there is always what the dataset
has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as c
from lakehouse.contracts.catalog import AsOf, RenameRequest
from lakehouse.contracts.ingest import ColumnOverride
from lakehouse.contracts.rows import RestoreRowsRequest, WidenRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Chunking, ChunkMethod, Profile, VersionState
from lakehouse.testing.embedders import HashingEmbedder
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


async def test_only_new_and_changed_documents_are_embedded(
    service: Service, store: Shelf, name: str
) -> None:
    rows = [{**row, "n": 0} for row in docs("one", "two", "three", "four", "five")]
    version = await made(service, store, name, *rows)
    assert version.embedded_texts == version.documents == version.chunks == 5
    await store.upsert(
        name,
        {"id": 1, "text": "other", "n": 0},
        {"id": 2, "text": "two", "n": 7},
        {"id": 6, "text": "six", "n": 0},
    )
    last = await store.delete(name, 3)
    version = await built(service[0], name)
    assert sorted(service[2].seen) == ["other", "six"]
    assert (version.embedded_texts, version.documents, version.source_version) == (7, 5, last)
    assert await found(store, version) == {
        "[1]": ["other"],
        "[2]": ["two"],
        "[4]": ["four"],
        "[5]": ["five"],
        "[6]": ["six"],
    }
    await built(service[0], name)
    assert len(service[2].seen) == 2
    # All this was told by the dataset's own history: its rows were read once, at the start.
    assert service[0]._builder.reader.full_reads == 1


async def test_rows_without_text_are_no_documents(
    service: Service, store: Shelf, name: str
) -> None:
    rows = [{"id": 1, "text": "a"}, {"id": 2, "text": None}, {"id": 3, "text": " \n"}]
    version = await made(service, store, name, *rows)
    assert (await found(store, version), version.documents) == ({"[1]": ["a"]}, 1)
    await store.upsert(name, {"id": 1, "text": ""}, {"id": 2, "text": "b"})
    version = await built(service[0], name)
    assert (await found(store, version), version.documents) == ({"[2]": ["b"]}, 1)


async def test_an_index_over_an_empty_dataset_is_ready(
    service: Service, store: Shelf, name: str
) -> None:
    await store.put(name, [{"id": 1, "text": "a"}])
    await store.delete(name, 1)
    await service[0].create_index(ADA, c.CreateIndexRequest(name, name, ("text",)))
    version = await built(service[0], name)
    assert (version.state, version.documents, version.chunks) == (VersionState.READY, 0, 0)


async def test_columns_are_joined_and_typed_values_are_texts(
    service: Service, store: Shelf, name: str
) -> None:
    rows = [
        {"a": "x", "b": 1, "title": "T", "n": 12, "day": "2026-01-02"},
        {"a": "x", "b": 2, "title": None, "n": 7, "day": None},
    ]
    await store.put(name, rows, ("a", "b"))
    request = c.CreateIndexRequest(name, name, ("title", "n", "day"))
    await service[0].create_index(ADA, request)
    version = await built(service[0], name)
    assert await found(store, version) == {'["x",1]': ["T\n12\n2026-01-02"], '["x",2]': ["7"]}
    service[2].seen.clear()
    await store.upsert(name, {"a": "x", "b": 2, "title": "U", "n": 7, "day": "2026-02-03"})
    version = await built(service[0], name)
    assert (await found(store, version))['["x",2]'] == ["U\n7\n2026-02-03"]
    assert service[2].seen == ["U\n7\n2026-02-03"]


async def test_a_shorter_text_leaves_no_chunk_behind(
    service: Service, store: Shelf, name: str
) -> None:
    chunking = Chunking(ChunkMethod.TOKENS, 2, 0)
    await service[1].put(ADA, p.PutProfileRequest(Profile(name, chunking=chunking)))
    await store.put(name, docs("a b c d e", "f"))
    request = c.CreateIndexRequest(name, name, ("text",), name)
    await service[0].create_index(ADA, request)
    version = await built(service[0], name)
    assert await found(store, version) == {"[1]": ["a b", "c d", "e"], "[2]": ["f"]}
    assert (version.documents, version.chunks) == (2, 4)
    await store.upsert(name, {"id": 1, "text": "a b c"}, {"id": 2, "text": "f g h"})
    version = await built(service[0], name)
    assert await found(store, version) == {"[1]": ["a b", "c"], "[2]": ["f g", "h"]}
    rows = await store.sql(f'select start, "end" from "{version.vectors_dataset}" where chunk = 1')
    assert rows == [{"start": 4, "end": 5}] * 2


@pytest.mark.parametrize("how", ["replace", "restore", "widen", "rename"])
async def test_whatever_else_happens_to_the_dataset_is_followed(
    service: Service, store: Shelf, name: str, how: str
) -> None:
    name = f"{how}_{name[:20]}"
    version = await made(service, store, name, *docs("one", "two", "three"))
    want, embedded, dataset = {"[1]": ["one"], "[2]": ["2"], "[4]": ["four"]}, ["2", "four"], name
    if how == "replace":
        rows = [{"id": 1, "text": "one"}, {"id": 2, "text": "2"}, {"id": 4, "text": "four"}]
        await store.put(name, rows, mode="replace")
    elif how == "restore":
        at = (await store.dataset(name)).rows_version
        await store.upsert(name, {"id": 1, "text": "first"})
        await store.delete(name, 2)
        await built(service[0], name)
        await store.rows.restore(ADA, RestoreRowsRequest(name, AsOf(version=at)))
        want = {"[1]": ["one"], "[2]": ["two"], "[3]": ["three"]}
        embedded = ["first", "one", "two"]
    elif how == "widen":
        added = WidenRequest(name, add=(ColumnOverride("more", "string"),))
        await store.rows.widen(ADA, added)
        want, embedded = {"[1]": ["one"], "[2]": ["two"], "[3]": ["three"]}, []
    else:
        dataset = f"{name}_2"
        await store.catalog.rename(ADA, RenameRequest(name, dataset))
        await store.upsert(dataset, {"id": 2, "text": "2"}, {"id": 4, "text": "four"})
        await store.delete(dataset, 3)
    version = await built(service[0], name)
    assert (version.state, version.error) == (VersionState.READY, "")
    assert await found(store, version) == want
    assert sorted(service[2].seen) == embedded
    info = (await service[0].get_index(READER, c.IndexRequest(name))).index
    assert (info.dataset, info.behind) == (dataset, False)


async def test_many_changes_at_once_are_found_by_comparing_all_rows(
    service: Service, store: Shelf, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.vectord.source.DIFFERENCES_MAX", 2)
    await made(service, store, name, *docs("one", "two", "three", "four"))
    await store.upsert(name, *docs("1", "2", "3"))
    await store.delete(name, 4)
    version = await built(service[0], name)
    assert await found(store, version) == {"[1]": ["1"], "[2]": ["2"], "[3]": ["3"]}
    assert sorted(service[2].seen) == ["1", "2", "3"]
    assert service[0]._builder.reader.full_reads == 2


async def test_a_build_goes_on_where_it_ended(service: Service, store: Shelf, name: str) -> None:
    vectors, _, embedder = service
    await store.put(name, docs(*(f"word{at}" for at in range(12))))
    real, calls = embedder.embed, 0

    async def failing(model: str, texts: Any, lane: Lane) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise LakehouseError(ErrorKind.NOT_FOUND, "the model was taken away")
        return await real(model, texts, lane)

    embedder.embed = failing  # type: ignore[method-assign]
    await vectors.create_index(ADA, c.CreateIndexRequest(name, name, ("text",)))
    version = await built(vectors, name)
    assert (version.state, version.cut_over) == (VersionState.FAILED, True)
    assert "the model was taken away" in version.error
    assert len(await found(store, version)) == 8
    embedder.embed = real  # type: ignore[method-assign]
    async with store.vectors(HashingEmbedder()) as (another, _, fresh):
        version = await built(another, name)
    assert (version.state, version.error, version.documents) == (VersionState.READY, "", 12)
    assert fresh.texts[Lane.INDEX] == 4
    assert (await vectors.get_index(READER, c.IndexRequest(name))).index.live == 1


async def test_of_two_builders_one_is_refused_and_nothing_is_lost(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, _, embedder = service
    await store.put(name, docs(*(f"word{at}" for at in range(16))))
    await vectors.create_index(ADA, c.CreateIndexRequest(name, name, ("text",), build=False))
    second = HashingEmbedder()
    async with store.vectors(second, batch_documents=4) as (another, _, _):
        await asyncio.gather(built(vectors, name), built(another, name))
        await built(another, name)
    version = await built(vectors, name)
    assert (version.state, version.documents) == (VersionState.READY, 16)
    assert await found(store, version) == {f"[{at + 1}]": [f"word{at}"] for at in range(16)}
    assert embedder.texts[Lane.INDEX] + second.texts[Lane.INDEX] < 2 * 16


async def test_a_document_that_the_model_refuses_keeps_no_other_out(
    service: Service, store: Shelf, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    vectors, _, embedder = service
    real = embedder.embed

    async def refusing(model: str, texts: Any, lane: Lane) -> Any:
        if "poison" in texts:
            raise LakehouseError(ErrorKind.INVALID, "the text is too long for the model")
        return await real(model, texts, lane)

    embedder.embed = refusing  # type: ignore[method-assign]
    await store.put(name, docs("one", "two", "poison", "four", "five"))
    await vectors.create_index(ADA, c.CreateIndexRequest(name, name, ("text",)))
    version = await built(vectors, name)
    assert version.state is VersionState.READY
    # Keys are data: neither the index nor the log tells them.
    assert version.error == "documents refused by the model: 1"
    told = [vars(each) for each in caplog.records if "refused" in each.getMessage()]
    assert [(each["documents"], each["reasons"]) for each in told] == [
        (1, ["the text is too long for the model"])
    ]
    assert "[3]" not in str(told)
    assert sorted(await found(store, version)) == ["[1]", "[2]", "[4]", "[5]"]


async def test_a_server_that_comes_back_is_waited_for(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, _, embedder = service
    await store.put(name, docs("one", "two"))
    await vectors.create_index(ADA, c.CreateIndexRequest(name, name, ("text",), build=False))
    real, calls = embedder.embed, 0

    async def away(model: str, texts: Any, lane: Lane) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "nobody is there")
        return await real(model, texts, lane)

    embedder.embed = away  # type: ignore[method-assign]
    version = await built(vectors, name)
    assert (version.state, version.documents, calls) == (VersionState.READY, 2, 2)


async def test_vectors_that_are_none_are_not_kept(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, _, embedder = service
    real = embedder.embed

    async def broken(model: str, texts: Any, lane: Lane) -> Any:
        answer = await real(model, texts, lane)
        answer.vectors[-1, 3] = float("nan")
        return answer

    embedder.embed = broken  # type: ignore[method-assign]
    await store.put(name, docs("one"))
    await vectors.create_index(ADA, c.CreateIndexRequest(name, name, ("text",)))
    version = await built(vectors, name)
    assert version.state is VersionState.FAILED
    assert version.error.startswith("corrupt:")
    assert await found(store, version) == {}


async def test_a_half_written_document_is_written_again(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, profiles, embedder = service
    chunking = Chunking(ChunkMethod.TOKENS, 1, 0)
    await profiles.put(ADA, p.PutProfileRequest(Profile(name, chunking=chunking)))
    await store.put(name, docs("a b c", "d e"))
    await vectors.create_index(ADA, c.CreateIndexRequest(name, name, ("text",), name))
    version = await built(vectors, name)
    # As a death between two commits leaves it: without the first chunk, or of two texts.
    dataset = version.vectors_dataset
    await store.delete(dataset, ["[1]", 0])
    (row,) = await store.sql(f"""select * from "{dataset}" where entity = '[2]' and chunk = 0""")
    await store.upsert(dataset, {**row, "document": "0" * 32})
    embedder.seen.clear()
    await store.upsert(name, {"id": 3, "text": "f"})
    info = (await vectors.get_index(READER, c.IndexRequest(name))).index
    unbuilt = replace(info.versions[0], source_version=0, state=VersionState.BUILDING)
    documents = vectors._builder._documents
    await documents.change(ADA, name, lambda each: replace(each, versions=(unbuilt,)))
    version = await built(vectors, name)
    assert await found(store, version) == {"[1]": [*"abc"], "[2]": [*"de"], "[3]": ["f"]}
    assert sorted(embedder.seen) == [*"abcdef"]


async def test_a_megabyte_of_text_is_cut_and_found(
    service: Service, store: Shelf, name: str
) -> None:
    version = await made(service, store, name, *docs("x" * 1_000_000, "short"))
    assert (version.documents, version.chunks > 100) == (2, True)
    texts = await found(store, version)
    assert "".join(texts["[1]"]).count("x") >= 1_000_000
    await store.upsert(name, {"id": 1, "text": "short too"})
    version = await built(service[0], name)
    assert (version.documents, version.chunks) == (2, 2)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("date", ["2026-01-01", "2026-01-02", "2026-01-03"]),
        ("decimal(20,2)", ["1.50", "2.25", "123456789012345678.01"]),
        ("int64", [-1, 2**53 + 1, 2**62]),
        ("string", ['a"b', "ü/\\n", "7"]),
        ("bool", [True, False, None]),
    ],
)
async def test_rows_with_keys_of_any_type_are_followed(
    service: Service, store: Shelf, kind: str, keys: list[Any]
) -> None:
    name = f"keyed_{kind.partition('(')[0]}"
    columns = (ColumnOverride("k", kind),)
    rows = [{"k": key, "text": f"text {at}", "more": "m"} for at, key in enumerate(keys)]
    await store.put(name, rows[:2], ("k",), columns=columns)
    await service[0].create_index(ADA, c.CreateIndexRequest(name, name, ("text", "more")))
    version = await built(service[0], name)
    assert version.documents == 2, version.error
    service[2].seen.clear()
    # One with only a part of its text changed, and one more.
    changed = [{**rows[0], "more": "n"}, *(row for row in rows[2:] if row["k"] is not None)]
    await store.upsert(name, *changed)
    version = await built(service[0], name)
    assert sorted(service[2].seen) == sorted(f"{row['text']}\n{row['more']}" for row in changed)
    assert version.documents == 1 + len(changed), version.error
    await store.delete(name, keys[1])
    assert (await built(service[0], name)).documents == len(changed)
