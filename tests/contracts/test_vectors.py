"""The vectors contract, called directly and over gRPC: what a search answers, and refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import pytest_asyncio

from contracts.world import READER, WRITER, Doorkeeper
from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.testing.embedders import HashingEmbedder
from support_vectors import ADA, Shelf, shelf
from unit.rpc.loopback import loopback

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOOKS = [
    {"id": 1, "title": "a red fox", "body": "runs through the snow", "year": 1999},
    {"id": 2, "title": "a red hen", "body": "sleeps in the barn", "year": 2004},
    {"id": 3, "title": "the blue whale", "body": None, "year": 2004},
    {"id": 4, "title": None, "body": None, "year": 2004},
    {"id": 5, "title": "snow in the barn", "body": "and a fox", "year": None},
]
POINTS = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [2.0, 0.0], "d": [-1.0, 0.0]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """A store with an index over a dataset, ``books``, and one of given vectors, ``points``."""
    async with shelf(tmp_path_factory.mktemp("store")) as store:
        await store.put("books", BOOKS)
        embedder = HashingEmbedder()
        async with store.vectors(embedder, follow=True, follow_seconds=0.05) as (vectors, *_):
            made = c.CreateIndexRequest("books", "books", ("title", "body"))
            await vectors.create_index(ADA, made)
            await vectors.build(ADA, c.BuildRequest("books", wait_seconds=30.0))
            await vectors.create_index(ADA, c.CreateIndexRequest("points", dimensions=2))
            await vectors.put_vectors(ADA, c.PutVectorsRequest("points", points(POINTS)))
            yield SimpleNamespace(store=store, role=vectors, embedder=embedder)


@pytest_asyncio.fixture(loop_scope="module")
async def vectors(here: Any, transport: str) -> AsyncIterator[Any]:
    if transport == "direct":
        yield here.role
        return
    async with loopback({"vectors": here.role}, Doorkeeper(None)) as there:
        yield there.client("Vectors")


def points(rows: dict[str, list[float]]) -> bytes:
    flat = pa.array(np.array(list(rows.values()), np.float32).ravel())
    table = pa.table({"id": list(rows), "vector": pa.FixedSizeListArray.from_arrays(flat, 2)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def near(*numbers: float) -> c.VectorQuery:
    return c.VectorQuery(vector=np.array(numbers, "<f4").tobytes())


def keys(result: Any) -> list[str]:
    return [hit.key for hit in result.results[0].hits]


async def ask(vectors: Any, text: str, **fields: Any) -> Any:
    return await vectors.search(READER, c.SearchRequest("books", (c.VectorQuery(text),), **fields))


async def test_hits_say_where_they_are_from(vectors: Any) -> None:
    found = await ask(vectors, "red fox", k=2)
    hit = found.results[0].hits[0]
    assert (hit.key, hit.chunk, hit.start, hit.text) == (
        "[1]",
        0,
        0,
        "a red fox\nruns through the snow",
    )
    assert hit.end == len(hit.text)
    assert 0.3 < hit.score <= 1.0
    assert hit.version > 0
    assert (found.index, found.number, found.backend, found.served_by, found.behind) == (
        "books",
        1,
        "parquet",
        "exact",
        False,
    )
    assert len(found.results[0].hits) == 2


async def test_a_row_without_text_is_no_document(vectors: Any) -> None:
    assert sorted(keys(await ask(vectors, "fox", k=100))) == ["[1]", "[2]", "[3]", "[5]"]


async def test_filters_choose_before_the_search(vectors: Any) -> None:
    assert sorted(keys(await ask(vectors, "fox", filter="year = 2004", k=10))) == ["[2]", "[3]"]
    assert keys(await ask(vectors, "fox", filter="id = 3 -- or anything", k=1)) == ["[3]"]
    assert keys(await ask(vectors, "fox", filter="false")) == []
    assert sorted(keys(await ask(vectors, "x", filter="true) or (true", k=9))) == [
        "[1]",
        "[2]",
        "[3]",
        "[5]",
    ]


@pytest.mark.parametrize(
    ("predicate", "kind"),
    [
        ("nothing = 1", ErrorKind.INVALID),
        ("year =", ErrorKind.INVALID),
        ("year = 1; drop table books", ErrorKind.INVALID),
        ("x" * 70_000, ErrorKind.INVALID),
    ],
)
async def test_a_filter_that_cannot_be_read_is_refused(
    vectors: Any, predicate: str, kind: ErrorKind
) -> None:
    with pytest.raises(LakehouseError) as refused:
        await ask(vectors, "fox", filter=predicate)
    assert refused.value.kind in (kind, ErrorKind.FORBIDDEN)


async def test_many_queries_are_answered_in_their_order(vectors: Any) -> None:
    texts = ("red hen", "blue whale", "red hen")
    request = c.SearchRequest("books", tuple(c.VectorQuery(text) for text in texts), k=1)
    found = await vectors.search(READER, request)
    assert [[hit.key for hit in one.hits] for one in found.results] == [["[2]"], ["[3]"], ["[2]"]]


async def test_given_vectors_are_found_and_ties_go_by_key(vectors: Any) -> None:
    request = c.SearchRequest("points", (near(3.0, 0.0),), k=10)
    found = await vectors.search(READER, request)
    assert [(hit.key, hit.score) for hit in found.results[0].hits] == [
        ("a", 1.0),
        ("c", 1.0),
        ("b", 0.0),
        ("d", -1.0),
    ]
    assert not found.behind


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (c.SearchRequest("points", ()), "queries"),
        (c.SearchRequest("points", (near(1, 0),) * 1001), "queries"),
        (c.SearchRequest("points", (near(1, 0),), k=0), "k must be"),
        (c.SearchRequest("points", (near(1, 0),), k=1_000_000), "k must be"),
        (c.SearchRequest("points", (near(1, 0),) * 1000, k=1000), "too many"),
        (c.SearchRequest("points", (near(1, 0),), ef=-1), "ef must be"),
        (c.SearchRequest("points", (near(1, 0, 0),)), "dimension"),
        (c.SearchRequest("points", (near(float("nan"), 0),)), "finite"),
        (c.SearchRequest("points", (near(float("inf"), 0),)), "finite"),
        (c.SearchRequest("points", (near(0, 0),)), "zeros"),
        (c.SearchRequest("points", (near(1, 0),), filter="true"), "columns"),
        (c.SearchRequest("books", (c.VectorQuery("  "),)), "empty"),
        (c.SearchRequest("books", (c.VectorQuery("x" * (1 << 20) + "y"),)), "too long"),
        (c.SearchRequest("books", (c.VectorQuery("x", b"1234"),)), "both"),
    ],
)
async def test_what_cannot_be_asked_is_refused(vectors: Any, request_: Any, word: str) -> None:
    with pytest.raises(LakehouseError) as refused:
        await vectors.search(READER, request_)
    assert refused.value.kind is ErrorKind.INVALID
    assert word in refused.value.message


@pytest.mark.parametrize(
    "request_",
    [
        c.SearchRequest("book", (c.VectorQuery("x"),)),
        c.SearchRequest("books", (c.VectorQuery("x"),), number=9),
    ],
)
async def test_what_is_not_there_is_not_found(vectors: Any, request_: Any) -> None:
    with pytest.raises(LakehouseError) as refused:
        await vectors.search(READER, request_)
    assert refused.value.kind is ErrorKind.NOT_FOUND


async def test_another_model_is_a_conflict(vectors: Any, here: Any) -> None:
    with pytest.raises(LakehouseError) as refused:
        await ask(vectors, "fox", model="other")
    assert refused.value.kind is ErrorKind.CONFLICT
    here.embedder.change_model("all-minilm", "another digest")
    try:
        with pytest.raises(LakehouseError) as refused:
            await ask(vectors, "fox")
    finally:
        here.embedder.change_model("all-minilm")
    assert refused.value.kind is ErrorKind.CONFLICT
    assert keys(await ask(vectors, "red fox", model="all-minilm", k=1)) == ["[1]"]


async def test_a_server_that_does_not_answer_is_unavailable(vectors: Any, here: Any) -> None:
    here.embedder.fail()
    try:
        with pytest.raises(LakehouseError) as refused:
            await ask(vectors, "fox")
    finally:
        here.embedder.recover()
    assert refused.value.kind is ErrorKind.UNAVAILABLE


async def test_vectors_are_got_by_key(vectors: Any) -> None:
    request = c.GetVectorsRequest("books", ("[2]", "3", "[4]", "nothing"))
    got = await vectors.get_vectors(READER, request)
    assert [(one.key, one.chunk, one.text) for one in got.vectors] == [
        ("[2]", 0, "a red hen\nsleeps in the barn"),
        ("[3]", 0, "the blue whale"),
    ]
    assert got.missing == ("[4]", "nothing")
    found = await vectors.get_vectors(READER, c.GetVectorsRequest("points", ("c",)))
    assert np.frombuffer(found.vectors[0].vector, "<f4").tolist() == [1.0, 0.0]
    with pytest.raises(LakehouseError):
        await vectors.get_vectors(READER, c.GetVectorsRequest("points", ()))


async def test_changes_of_the_dataset_are_found(vectors: Any, here: Any, transport: str) -> None:
    store: Shelf = here.store
    name = f"follow-{transport}"
    await store.put(name, [{"id": "x", "t": "one apple"}, {"id": "y", "t": "two pears"}])
    await vectors.create_index(WRITER, c.CreateIndexRequest(name, name, ("t",)))
    await vectors.build(WRITER, c.BuildRequest(name, wait_seconds=30.0))
    await store.upsert(name, {"id": "z", "t": "three plums"}, {"id": "x", "t": "a melon"})
    await store.delete(name, "y")
    request = c.SearchRequest(name, (c.VectorQuery("plums"),), k=9)
    found = await vectors.search(READER, request)
    assert not found.behind
    assert keys(found)[0] == '["z"]'
    assert sorted(keys(found)) == ['["x"]', '["z"]']
    assert orjson.loads(keys(found)[0]) == ["z"]


async def test_two_versions_are_compared(vectors: Any, transport: str, here: Any) -> None:
    name = f"two-{transport}"
    await here.store.put(name, [{"id": n, "t": f"text {n} of {n % 7}"} for n in range(60)])
    await vectors.create_index(WRITER, c.CreateIndexRequest(name, name, ("t",)))
    await vectors.build(WRITER, c.BuildRequest(name, wait_seconds=30.0))
    with pytest.raises(LakehouseError) as refused:
        await vectors.compare(READER, c.CompareRequest(name))
    assert refused.value.kind is ErrorKind.INVALID
    await vectors.build(WRITER, c.BuildRequest(name, new_version=True, wait_seconds=30.0))
    relevant = (c.Relevant(("[5]",)), c.Relevant(("[9]", "[99]")))
    report = await vectors.compare(
        READER,
        c.CompareRequest(name, 1, 2, ("text 5 of 5", "text 9 of 2"), relevant, k=5),
    )
    assert (report.queries, report.k, report.overlap) == (2, 5, 1.0)
    for figures in (report.first, report.second):
        assert figures.recall == 1.0
        assert figures.chunks == 60
        assert figures.relevant_found == pytest.approx(0.75)
    drawn = await vectors.compare(READER, c.CompareRequest(name, samples=20, k=3))
    assert (drawn.queries, drawn.first.number, drawn.second.number) == (20, 2, 1)
    assert drawn.first.relevant_found is None
    assert drawn.overlap == 1.0
