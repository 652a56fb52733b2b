"""What was retrieved is shown again, the same, whatever became of the rows and of the index since.

One store whose time travel reaches back to the last collection, which only tests make.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts import catalog as cat
from lakehouse.contracts import profiles as p
from lakehouse.contracts import retrievals as r
from lakehouse.contracts import vectors as c
from lakehouse.contracts.ingest import ColumnOverride
from lakehouse.contracts.rows import CompactRequest
from lakehouse.contracts.tags import TagsRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode
from lakehouse.model.vectors import Profile
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.records.values import digest_of_refs
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf, shelf
from unit.vectord.building_support import built

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = ("red", "fox", "hen", "snow", "barn", "blue", "whale", "sea", "ship", "storm")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    told = {"history_seconds": 0.0, "undrop_seconds": 0.0, "collect_seconds": 0.0}
    async with shelf(tmp_path_factory.mktemp("store"), **told) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def vectors(store: Shelf) -> AsyncIterator[Vectors]:
    async with store.vectors() as (service, profiles, _):
        graph = Profile("graph", exact_rows_max=10, hnsw_m=8, ef_construction=40)
        await profiles.put(ADA, p.PutProfileRequest(graph))
        yield service


def texts(count: int) -> list[dict[str, Any]]:
    some = [f"{WORDS[at % 10]} {WORDS[at // 3 % 10]} {WORDS[at // 7 % 10]}" for at in range(count)]
    return [{"id": at, "text": text, "year": 2000 + at} for at, text in enumerate(some)]


async def made(store: Shelf, vectors: Vectors, name: str, count: int = 12, **fields: Any) -> None:
    await store.put(name, texts(count))
    given = {"dataset": name, "columns": ("text",), **fields}
    await vectors.create_index(ADA, c.CreateIndexRequest(name, **given))
    await built(vectors, name)


async def ask(vectors: Vectors, name: str, text: str = "red fox", **fields: Any) -> str:
    """The id of a retrieval that is remembered."""
    given = {"k": 5, "record": RecordClass.DURABLE, **fields}
    found = await vectors.search(ADA, c.SearchRequest(name, (c.VectorQuery(text),), **given))
    known = found.results[0].retrieval_id
    assert known
    return known


async def replay(vectors: Vectors, known: str) -> r.ReplayReport:
    return await vectors.retrievals.replay(READER, r.RetrievalRequest(known))


def seen(report: r.ReplayReport) -> list[tuple[Any, ...]]:
    """What must be the same a year later."""
    return [
        (hit.rank, hit.key, hit.chunk, hit.score, hit.text, hit.stages, hit.version)
        for hit in report.hits
    ]


def rows(report: r.ReplayReport) -> dict[str, str]:
    return {hit.key: hit.row for hit in report.hits}


def sources(report: r.ReplayReport) -> set[str]:
    return {hit.text_from for hit in report.hits}


async def collected(store: Shelf) -> None:
    await store.catalog.collect(ADA, cat.PlanRequest())


async def no_structures(store: Shelf) -> None:
    """Delete every object of an index, and what is cached of them."""
    bucket = store.buckets.get("primary")
    await bucket.delete([meta.key for meta in await bucket.list("_vectors/")])
    shutil.rmtree(store.folder / "vectors", ignore_errors=True)


@pytest.mark.parametrize("mode", list(SearchMode))
async def test_nothing_that_becomes_of_an_index_changes_what_it_answered(
    store: Shelf, vectors: Vectors, mode: SearchMode
) -> None:
    name = f"kept_{mode.value}"
    await made(store, vectors, name, 60, profile="graph")
    await ask(vectors, name)
    while not await store.buckets.get("primary").list("_vectors/"):
        await asyncio.sleep(0.02)  # the first search has a graph made
    known = await ask(vectors, name, mode=mode, filter="year > 2001")
    first = await replay(vectors, known)
    assert (first.same, first.texts_missing, len(first.hits)) == (True, 0, 5)
    assert first.retrieval.mode is mode
    assert [hit.rank for hit in first.hits] == [1, 2, 3, 4, 5]
    assert set(rows(first).values()) == {"same"}
    (searched,) = first.retrieval.indexes
    await no_structures(store)
    assert not await store.buckets.get("primary").list("_vectors/")
    assert seen(await replay(vectors, known)) == seen(first)
    for dataset in (name, searched.vectors_dataset):
        await store.rows.compact(ADA, CompactRequest(dataset, full=True))
    assert seen(await replay(vectors, known)) == seen(first)
    second = await built(vectors, name, new_version=True, profile="default")
    await vectors.delete_index(ADA, c.DeleteIndexRequest(name, searched.number))
    assert second.number != searched.number
    assert seen(await replay(vectors, known)) == seen(first)
    await collected(store)
    async with store.vectors() as (again, _, embedder):
        embedder.failure = LakehouseError(ErrorKind.INTERNAL, "no model may be asked")
        last = await replay(again, known)
    assert (seen(last), last.same, last.digest) == (seen(first), True, first.digest)
    assert sources(last) == {"table"}
    assert last.digest == digest_of_refs(first.retrieval.hits) == first.retrieval.digest


async def test_what_became_of_rows_is_said_and_their_texts_stay(
    store: Shelf, vectors: Vectors
) -> None:
    await made(store, vectors, "changing")
    known = await ask(vectors, "changing", k=12)
    first = await replay(vectors, known)
    await store.upsert("changing", {"id": 1, "text": "another text", "year": 1})
    await store.upsert("changing", {"id": 2, "text": texts(3)[2]["text"], "year": 7})
    await store.upsert("changing", {"id": 3, "text": None, "year": 3})
    await store.delete("changing", 4, 5)
    await built(vectors, "changing")
    later = await replay(vectors, known)
    assert (seen(later), later.same) == (seen(first), True)
    told = rows(later)
    assert {key: told.pop(key) for key in ("[1]", "[2]", "[3]", "[4]", "[5]")} == {
        "[1]": "changed",
        "[2]": "same",
        "[3]": "changed",
        "[4]": "deleted",
        "[5]": "deleted",
    }
    assert set(told.values()) == {"same"}
    # Beyond retention rows are read as they were from the journal.
    await collected(store)
    beyond = await replay(vectors, known)
    assert (seen(beyond), beyond.same) == (seen(first), True)
    assert {hit.key: hit.text_from for hit in beyond.hits if hit.key in ("[1]", "[2]", "[4]")} == {
        "[1]": "journal",
        "[2]": "vectors",
        "[4]": "journal",
    }


async def test_a_dataset_that_is_called_otherwise_is_the_same(
    store: Shelf, vectors: Vectors
) -> None:
    await made(store, vectors, "before")
    known = await ask(vectors, "before", k=12)
    first = await replay(vectors, known)
    await store.catalog.rename(ADA, cat.RenameRequest("before", "after"))
    await store.upsert("after", {"id": 0, "text": "new", "year": 1})
    await vectors.delete_index(ADA, c.DeleteIndexRequest("before"))
    then = await replay(vectors, known)
    assert (seen(then), then.same) == (seen(first), True)
    assert rows(then)["[0]"] == "changed"
    await collected(store)
    later = await replay(vectors, known)
    assert (seen(later), later.same, rows(later)) == (seen(first), True, rows(then))
    assert {hit.key: hit.text_from for hit in later.hits}["[0]"] == "journal"


async def test_a_dataset_that_was_dropped_leaves_texts_as_long_as_it_can_be_restored(
    store: Shelf, vectors: Vectors
) -> None:
    await made(store, vectors, "dropped")
    known = await ask(vectors, "dropped")
    first = await replay(vectors, known)
    await vectors.delete_index(ADA, c.DeleteIndexRequest("dropped"))
    await store.catalog.drop(ADA, cat.DropRequest("dropped"))
    later = await replay(vectors, known)
    assert (seen(later), later.same) == (seen(first), True)
    assert set(rows(later).values()) == {"unknown"}
    await collected(store)
    gone = await replay(vectors, known)
    assert (gone.same, gone.texts_missing) == (False, 5)
    assert (sources(gone), {hit.text for hit in gone.hits}) == ({"gone"}, {None})
    # What was found is remembered all the same, to the last bit of each score.
    assert gone.digest == first.digest
    assert [(hit.key, hit.score) for hit in gone.hits] == [
        (hit.key, hit.score) for hit in first.hits
    ]


async def test_a_pin_keeps_what_is_cited(store: Shelf, vectors: Vectors) -> None:
    await made(store, vectors, "cited")
    await made(store, vectors, "uncited")
    known, other = await ask(vectors, "cited"), await ask(vectors, "uncited")
    first = await replay(vectors, known)
    service = vectors.retrievals
    pinned = await service.pin(ADA, r.PinRequest(known, note="for the report"))
    assert (pinned.pinned, pinned.changed, len(pinned.tags)) == (True, True, 2)
    tags = (await store.catalog.tags(ADA, TagsRequest(prefix=f"retrieval-{known}"))).tags
    assert {tag.dataset for tag in tags} == {"cited", "vectors.cited.v1"}
    assert {tag.note for tag in tags} == {"for the report"}
    again = await service.pin(ADA, r.PinRequest(known.lower()))
    assert (again.changed, again.tags) == (False, pinned.tags)
    listed = (await service.list(READER, r.ListRetrievalsRequest())).retrievals
    assert {one.id: one.pinned for one in listed[:2]} == {known: True, other: False}
    for name in ("cited", "uncited"):
        await store.catalog.drop(ADA, cat.DropRequest(name))
        await vectors.delete_index(ADA, c.DeleteIndexRequest(name))
    await collected(store)
    kept = await replay(vectors, known)
    assert (seen(kept), kept.same, kept.retrieval.pinned) == (seen(first), True, True)
    assert not (await replay(vectors, other)).same
    refused = await refusal(service.pin(ADA, r.PinRequest(other)))
    assert (refused.kind, "beyond retention" in refused.message) == (ErrorKind.CONFLICT, True)
    assert not (await service.get(READER, r.RetrievalRequest(other))).retrieval.pinned
    # The log may forget it.
    bucket = store.buckets.get("primary")
    log = [meta.key for meta in await bucket.list("_retrievals/searches/")]
    held = {key: await bucket.get(key) for key in log}
    await bucket.delete(log)
    async with store.vectors() as (alone, *_):
        found = await alone.retrievals.get(READER, r.RetrievalRequest(known))
    for key, data in held.items():
        await bucket.put(key, data)
    assert found.retrieval.digest == first.digest
    gone = await service.pin(ADA, r.PinRequest(known, remove=True))
    assert (gone.pinned, gone.tags, gone.changed) == (False, (), True)
    assert not (await service.pin(ADA, r.PinRequest(known, remove=True))).changed
    await collected(store)
    assert (await replay(vectors, known)).texts_missing == 5


async def test_one_below_the_horizon_is_pinned_where_its_rows_are_still_there(
    store: Shelf, vectors: Vectors
) -> None:
    await made(store, vectors, "quiet")
    known = await ask(vectors, "quiet")
    first = await replay(vectors, known)
    await store.put("noise", texts(2))
    await collected(store)
    pinned = await vectors.retrievals.pin(ADA, r.PinRequest(known))
    assert pinned.pinned
    await vectors.delete_index(ADA, c.DeleteIndexRequest("quiet"))
    await store.catalog.drop(ADA, cat.DropRequest("quiet"))
    await collected(store)
    assert seen(await replay(vectors, known)) == seen(first)


async def test_given_vectors_are_shown_as_they_were(store: Shelf, vectors: Vectors) -> None:
    await vectors.create_index(ADA, c.CreateIndexRequest("points", dimensions=2))
    await vectors.put_vectors(ADA, c.PutVectorsRequest("points", points(a=1.0, b=2.0, c=3.0)))
    near = c.VectorQuery(vector=np.array([1.0, 0.0], "<f4").tobytes())
    request = c.SearchRequest("points", (near,), k=3, record=RecordClass.DURABLE)
    known = (await vectors.search(ADA, request)).results[0].retrieval_id
    first = await replay(vectors, known)
    assert [(hit.key, hit.text) for hit in first.hits] == [("c", ""), ("b", "b"), ("a", "a")]
    assert (first.same, set(rows(first).values())) == (True, {"same"})
    await vectors.put_vectors(ADA, c.PutVectorsRequest("points", points(a=9.0)))
    await vectors.delete_vectors(ADA, c.DeleteVectorsRequest("points", ("b",)))
    later = await replay(vectors, known)
    assert (seen(later), later.same) == (seen(first), True)
    assert rows(later)["b"] == "deleted"


async def test_an_explanation_says_which_stage_brought_what(store: Shelf, vectors: Vectors) -> None:
    await made(store, vectors, "told", 30)
    known = await ask(
        vectors, "told", mode=SearchMode.HYBRID, rerank=Rerank.VECTORS, filter="year > 2000"
    )
    told = await vectors.retrievals.explain(READER, r.RetrievalRequest(known))
    steps = " | ".join(told.steps)
    for words in ("by meaning and by words", "year > 2000", "fused", "ordered anew", "all-minilm"):
        assert words in steps, words
    (asked,) = told.retrieval.indexes
    assert f"rows up to version {asked.source_version}, their vectors as of version" in steps
    assert [hit.rank for hit in told.hits] == [1, 2, 3, 4, 5]
    for hit in told.hits:
        assert set(hit.brought_by) <= {"vector", "text"}
        assert hit.brought_by
        assert "the reranker put it at" in hit.sentence
        assert hit.text
    plain = await ask(vectors, "told", k=1)
    (hit,) = (await vectors.retrievals.explain(READER, r.RetrievalRequest(plain))).hits
    assert (hit.brought_by, len(hit.stages)) == (("vector",), 1)
    assert "place 1: similarity of vectors put it at 1" in hit.sentence


async def test_a_search_as_of_then_is_shown_as_of_then(store: Shelf, vectors: Vectors) -> None:
    await made(store, vectors, "earlier")
    then = (await store.dataset("vectors.earlier.v1")).version
    await store.upsert("earlier", {"id": 0, "text": "something else", "year": 1})
    await store.delete("earlier", 1)
    await built(vectors, "earlier")
    known = await ask(vectors, "earlier", k=12, as_of=cat.AsOf(version=then))
    first = await replay(vectors, known)
    assert (first.same, first.retrieval.as_of_version, len(first.hits)) == (True, then, 12)
    assert (rows(first)["[0]"], rows(first)["[1]"], rows(first)["[2]"]) == (
        "changed",
        "deleted",
        "same",
    )
    pinned = await vectors.retrievals.pin(ADA, r.PinRequest(known))
    tags = (await store.catalog.tags(ADA, TagsRequest(prefix=f"retrieval-{known}"))).tags
    assert {tag.version for tag in tags} == {then}
    assert len(pinned.tags) == 2
    await collected(store)
    assert seen(await replay(vectors, known)) == seen(first)


async def test_a_dataset_that_was_made_anew_is_another(store: Shelf, vectors: Vectors) -> None:
    """Under the same name, with an index of the same name: neither is taken for what was found."""
    await made(store, vectors, "twice")
    known = await ask(vectors, "twice")
    first = await replay(vectors, known)
    await vectors.delete_index(ADA, c.DeleteIndexRequest("twice"))
    await store.catalog.drop(ADA, cat.DropRequest("twice"))
    await store.put("twice", [{"id": at, "text": "all new", "year": 1} for at in range(12)])
    await vectors.create_index(ADA, c.CreateIndexRequest("twice", "twice", ("text",)))
    await built(vectors, "twice")
    later = await replay(vectors, known)
    assert (seen(later), later.same) == (seen(first), True)
    assert set(rows(later).values()) == {"unknown"}
    await collected(store)
    gone = await replay(vectors, known)
    assert (gone.same, sources(gone), gone.digest) == (False, {"gone"}, first.digest)


async def test_several_indexes_are_told_apart(store: Shelf, vectors: Vectors) -> None:
    await made(store, vectors, "here")
    await made(store, vectors, "there")
    known = await ask(vectors, "here", also=("there",), k=10)
    first = await replay(vectors, known)
    assert {hit.index for hit in first.hits} == {"here", "there"}
    assert [one.index for one in first.retrieval.indexes] == ["here", "there"]
    await store.delete("there", *range(12))
    later = await replay(vectors, known)
    assert (seen(later), later.same) == (seen(first), True)
    assert {(hit.index, hit.row) for hit in later.hits} == {("here", "same"), ("there", "deleted")}
    pinned = await vectors.retrievals.pin(ADA, r.PinRequest(known))
    assert len(pinned.tags) == 4


async def test_keys_of_several_columns_and_texts_of_several(store: Shelf, vectors: Vectors) -> None:
    some = [
        {"place": "a b", "n": n, "title": f"{WORDS[n]} ship", "body": WORDS[-n] if n % 2 else None}
        for n in range(6)
    ]
    await store.put("paired", some, key=("place", "n"))
    await vectors.create_index(ADA, c.CreateIndexRequest("paired", "paired", ("title", "body")))
    await built(vectors, "paired")
    known = await ask(vectors, "paired", "ship", k=6)
    first = await replay(vectors, known)
    assert {hit.text for hit in first.hits} >= {"red ship", "fox ship\nstorm"}
    await vectors.delete_index(ADA, c.DeleteIndexRequest("paired"))
    await store.upsert("paired", {"place": "a b", "n": 1, "title": "gone", "body": None})
    await collected(store)
    later = await replay(vectors, known)
    assert (seen(later), later.same) == (seen(first), True)
    assert rows(later)['["a b",1]'] == "changed"


async def test_keys_that_sql_is_not_asked_by(store: Shelf, vectors: Vectors) -> None:
    some = [{"day": f"2026-11-0{n}", "text": f"{WORDS[n]} ship"} for n in range(1, 6)]
    days = (ColumnOverride("day", "date"),)
    await store.put("dated", some, key=("day",), columns=days)
    await vectors.create_index(ADA, c.CreateIndexRequest("dated", "dated", ("text",)))
    await built(vectors, "dated")
    known = await ask(vectors, "dated", "ship")
    first = await replay(vectors, known)
    assert (first.same, set(rows(first).values())) == (True, {"same"})
    await vectors.delete_index(ADA, c.DeleteIndexRequest("dated"))
    await store.delete("dated", "2026-11-01")
    await store.upsert("dated", {"day": "2026-11-02", "text": None})
    await collected(store)
    later = await replay(vectors, known)
    assert (seen(later), later.same) == (seen(first), True)
    told = rows(later)
    assert (told.pop('["2026-11-01"]'), told.pop('["2026-11-02"]')) == ("deleted", "changed")
    assert set(told.values()) == {"same"}


async def test_retrievals_are_a_table_in_sql(store: Shelf, vectors: Vectors) -> None:
    await made(store, vectors, "asked")
    known = await ask(vectors, "asked", "red fox", purpose="rag")
    await ask(vectors, "asked", "blue whale")
    store.query.use_retrievals(vectors.retrievals)
    found = await store.sql(
        'select id, "index", hits, keys[1] as best, top_key, k from system.retrievals'
        " where \"index\" = 'asked' and purpose = 'rag'"
    )
    assert [(one["id"], one["hits"], one["k"]) for one in found] == [(known, 5, 5)]
    assert found[0]["best"] == found[0]["top_key"]
    counted = await store.sql(
        "select purpose, count(*) as n from system.retrievals where \"index\" = 'asked'"
        " group by purpose order by purpose"
    )
    assert [(one["purpose"], one["n"]) for one in counted] == [("rag", 1), ("search", 1)]


async def test_no_search_of_a_replay_asks_a_model_or_an_index(
    store: Shelf, vectors: Vectors
) -> None:
    await made(store, vectors, "quietly")
    known = await ask(vectors, "quietly")
    async with store.vectors(HashingEmbedder()) as (other, _, embedder):
        await replay(other, known)
        assert (embedder.calls.total(), embedder.model_calls, other.images.loads) == (0, 0, 0)


async def refusal(call: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as refused:
        await call
    return refused.value


def points(**rows_: float) -> bytes:
    """Vectors (x, 1) by id, with the id as their text, but for ``c``, which has none."""
    flat = pa.array(np.array([[x, 1.0] for x in rows_.values()], np.float32).ravel())
    table = pa.table(
        {
            "id": list(rows_),
            "vector": pa.FixedSizeListArray.from_arrays(flat, 2),
            "text": pa.array([None if name == "c" else name for name in rows_], pa.string()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
