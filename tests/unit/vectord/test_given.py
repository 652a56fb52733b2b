"""Vectors that callers made: kept as they came, by id, and refused with the ids that are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Distance, Profile
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.ports import Vectors as Array
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.publishing import ipc
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

Service = tuple[Vectors, Profiles, HashingEmbedder]
DIMENSIONS = 4


@pytest_asyncio.fixture(loop_scope="module")
async def service(store: Shelf) -> AsyncIterator[Service]:
    async with store.vectors() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def name(service: Service, request: pytest.FixtureRequest) -> str:
    """An index of given vectors, by cosine."""
    name = "".join(char if char.isalnum() else "_" for char in request.node.name[5:45])
    await service[0].create_index(ADA, c.CreateIndexRequest(name, dimensions=DIMENSIONS))
    return name


def body(ids: Any, vectors: Any, **columns: Any) -> bytes:
    fixed = vectors if isinstance(vectors, pa.Array) else pa.array(vectors, pa.list_(pa.float32()))
    given = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())
    return ipc(pa.table({"id": given, "vector": fixed, **columns}))


def some(*seeds: int) -> list[list[float]]:
    return [np.random.default_rng(seed).normal(size=DIMENSIONS).tolist() for seed in seeds]


async def rows(store: Shelf, name: str) -> list[dict[str, Any]]:
    return await store.sql(f'select * from "vectors.{name}.v1" order by entity')


async def stored(service: Service, name: str, *ids: str) -> dict[str, Array]:
    found = await service[0].get_vectors(READER, c.GetVectorsRequest(name, ids))
    return {each.key: np.frombuffer(each.vector, "<f4") for each in found.vectors}


async def refusal(call: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as refused:
        await call
    return refused.value


async def test_vectors_are_inserted_replaced_and_deleted_by_id(
    service: Service, store: Shelf, name: str
) -> None:
    vectors = service[0]
    texts = pa.array(["hello", None])
    data = body(["a", "b"], some(1, 2), text=texts)
    report = await vectors.put_vectors(ADA, c.PutVectorsRequest(name, data))
    assert (report.inserted, report.updated, report.no_op) == (2, 0, False)
    a = (await stored(service, name, "a"))["a"]
    unit = np.array(some(1)[0]) / np.linalg.norm(some(1)[0])
    assert a == pytest.approx(unit, abs=1e-6)
    first = await rows(store, name)
    assert [(each["entity"], each["text"]) for each in first] == [("a", "hello"), ("b", "")]
    data = body(["b", "c"], some(3, 4))
    report = await vectors.put_vectors(ADA, c.PutVectorsRequest(name, data))
    assert (report.inserted, report.updated) == (1, 1)
    later = {each["entity"]: each for each in await rows(store, name)}
    # A row whose vector was replaced is another one, and a later one.
    assert later["b"]["digest"] != first[1]["digest"]
    assert later["b"]["version"] > first[1]["version"]
    gone = await vectors.delete_vectors(ADA, c.DeleteVectorsRequest(name, ("a", "x", "a")))
    assert (gone.deleted, gone.missing, gone.no_op) == (1, 1, False)
    assert sorted(each["entity"] for each in await rows(store, name)) == ["b", "c"]
    report = await vectors.put_vectors(ADA, c.PutVectorsRequest(name, body([], [])))
    assert report.no_op


def packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


async def test_compressed_vectors_are_taken_unless_they_unpack_to_too_much(
    service: Service, name: str
) -> None:
    given = pa.table({"id": ["a"], "vector": pa.array(some(1), pa.list_(pa.float32()))})
    await service[0].put_vectors(ADA, c.PutVectorsRequest(name, packed(given)))
    assert list(await stored(service, name, "a")) == ["a"]
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(10 << 20, np.float32)), 4)
    bomb = packed(pa.table({"id": pa.nulls(len(zeros), pa.string()), "vector": zeros}))
    assert len(bomb) < 1 << 20
    before = pa.default_memory_pool().max_memory()
    error = await refusal(service[0].put_vectors(ADA, c.PutVectorsRequest(name, bomb)))
    assert (error.kind, error.fields["maximum"]) == (ErrorKind.INVALID, c.VECTORS_BYTES_MAX)
    assert "unpacked" in str(error)
    # Nothing of it was unpacked to find that out.
    assert pa.default_memory_pool().max_memory() < before + len(zeros) * 16
    # What was cut anywhere is refused, too.
    whole = packed(given)
    for length in range(8, len(whole) - 8, 24):
        cut = c.PutVectorsRequest(name, whole[:length])
        assert (await refusal(service[0].put_vectors(ADA, cut))).kind is ErrorKind.INVALID


async def test_what_is_done_is_counted(service: Service, store: Shelf, name: str) -> None:
    vectors = service[0]
    query = c.VectorQuery(vector=np.array(some(1)[0], "<f4").tobytes())
    await vectors.search(READER, c.SearchRequest(name, (query,)))
    with pytest.raises(LakehouseError):
        await vectors.search(READER, c.SearchRequest("nowhere", (query,)))
    dataset = f"{name}_docs"
    await store.put(dataset, [{"id": 1, "text": "one"}, {"id": 2, "text": "two"}])
    await vectors.create_index(ADA, c.CreateIndexRequest(dataset, dataset, ("text",)))
    await vectors.build(ADA, c.BuildRequest(dataset, wait_seconds=30))
    told: dict[str, Any] = {figure.name: values for figure, values in vectors.figures()}
    assert told["lakehouse_vector_searches"] == {("done",): 1, ("not_found",): 1}
    assert sum(told["lakehouse_vector_search_seconds"][()].counts) == 2
    assert told["lakehouse_vector_builds"] == {("done",): 1}
    assert told["lakehouse_vector_embedded_texts"] == {(): 2}
    assert told["lakehouse_vector_builds_open"] == {(): 0}
    assert told["lakehouse_vector_loads"] == {(): 1}


async def test_what_was_put_is_found_at_once(service: Service, store: Shelf, name: str) -> None:
    vectors = service[0]
    for seed in range(5):
        data = body([f"v{seed}"], some(seed))
        await vectors.put_vectors(ADA, c.PutVectorsRequest(name, data))
        query = c.VectorQuery(vector=np.array(some(seed)[0], "<f4").tobytes())
        found = await vectors.search(READER, c.SearchRequest(name, (query,), 3))
        hits = found.results[0].hits
        assert (hits[0].key, len(hits)) == (f"v{seed}", min(3, seed + 1))
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert not found.behind


@pytest.mark.parametrize("distance", [Distance.DOT, Distance.L2])
async def test_but_for_cosine_vectors_are_kept_as_they_came(
    service: Service, store: Shelf, distance: Distance
) -> None:
    name = f"kept_{distance.value}"
    await service[1].put(ADA, p.PutProfileRequest(Profile(name, distance=distance, dimensions=2)))
    await service[0].create_index(ADA, c.CreateIndexRequest(name, profile=name))
    data = body(["a", "zero"], [[3.0, 4.0], [0.0, 0.0]])
    await service[0].put_vectors(ADA, c.PutVectorsRequest(name, data))
    found = await stored(service, name, "a", "zero")
    assert {key: each.tolist() for key, each in found.items()} == {"a": [3, 4], "zero": [0, 0]}


@pytest.mark.parametrize(
    "vectors",
    [
        pa.array([[1, 2, 3, 4]], pa.list_(pa.int64())),
        pa.array([[1, 2, 3, 4]], pa.large_list(pa.float64())),
        pa.array([[1, 2, 3, 4]], pa.list_(pa.float32(), 4)),
    ],
    ids=["integers", "large doubles", "fixed"],
)
async def test_lists_of_any_kind_of_number_are_taken(
    service: Service, name: str, vectors: pa.Array
) -> None:
    ids = pa.array([7], pa.int64())
    await service[0].put_vectors(ADA, c.PutVectorsRequest(name, body(ids, vectors)))
    found = (await stored(service, name, "7"))["7"]
    assert found == pytest.approx(np.array([1, 2, 3, 4]) / np.sqrt(30), abs=1e-6)


GOOD = [0.5] * DIMENSIONS


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no Arrow stream"),
        (b"[1, 2, 3]", "no Arrow stream"),
        (body(["a"], [GOOD])[:-30], "no Arrow stream"),
        (ipc(pa.table({"id": ["a"]})), "columns"),
        (body(["a"], [GOOD], other=pa.array([1])), "columns"),
        (body(["good", "short"], [GOOD, [1.0]]), "short"),
        (body(["good", "long"], [GOOD, [1.0] * 5]), "long"),
        (body(["good", "null"], [GOOD, None]), "null"),
        (body(["good", "holey"], [GOOD, [1.0, None, 1.0, 1.0]]), "holey"),
        (body(["good", "nan"], [GOOD, [float("nan"), 1.0, 1.0, 1.0]]), "nan"),
        (body(["good", "inf"], [GOOD, [float("inf"), 1.0, 1.0, 1.0]]), "inf"),
        (body(["huge"], pa.array([[1e300, 1.0, 1.0, 1.0]])), "huge"),
        (body(["good", "zero"], [GOOD, [0.0] * 4]), "zero"),
        (body(["twice", "twice"], [GOOD, GOOD]), "twice"),
        (body([None], [GOOD]), "an id is missing"),
        (body([""], [GOOD]), "an id is missing"),
        (body(["x" * 1025], [GOOD]), "too long"),
        (body(pa.array([1.5]), [GOOD]), "ids are texts"),
        (body(["a"], pa.array(["text"])), "lists of numbers"),
        (body(["a"], [GOOD], text=pa.array([1])), "texts"),
        (body(["wordy"], [GOOD], text=pa.array(["x" * (1024 * 1024 + 1)])), "wordy"),
        (b"x" * (32 * 1024 * 1024 + 1), "too many"),
    ],
    ids=range(22),
)
async def test_what_is_no_vector_is_refused_and_nothing_is_kept(
    service: Service, store: Shelf, name: str, data: bytes, told: str
) -> None:
    error = await refusal(service[0].put_vectors(ADA, c.PutVectorsRequest(name, data)))
    assert error.kind is ErrorKind.INVALID
    assert told in f"{error} {error.fields}"
    assert await rows(store, name) == []


@pytest.mark.parametrize("ids", [(), tuple(str(at) for at in range(100_001))], ids=["none", "many"])
async def test_a_deletion_names_some(service: Service, name: str, ids: tuple[str, ...]) -> None:
    error = await refusal(service[0].delete_vectors(ADA, c.DeleteVectorsRequest(name, ids)))
    assert error.kind is ErrorKind.INVALID


async def test_a_repeated_call_has_one_effect(service: Service, store: Shelf, name: str) -> None:
    vectors, ctx = service[0], replace(ADA, idempotency_key=f"{name} put")
    request = c.PutVectorsRequest(name, body(["a"], some(1)))
    first = await vectors.put_vectors(ctx, request)
    between = c.PutVectorsRequest(name, body(["a"], some(2)))
    await vectors.put_vectors(ADA, between)
    assert await vectors.put_vectors(ctx, request) == first
    (row,) = await rows(store, name)
    assert row["vector"] == pytest.approx(np.array(some(2)[0]) / np.linalg.norm(some(2)[0]))
    error = await refusal(vectors.put_vectors(ctx, between))
    assert error.http_status == 422


async def test_writers_at_once_lose_nothing(service: Service, store: Shelf, name: str) -> None:
    async def put(seed: int) -> None:
        data = body([f"v{seed}", "shared"], some(seed, seed + 100))
        await service[0].put_vectors(ADA, c.PutVectorsRequest(name, data))

    await asyncio.gather(*(put(seed) for seed in range(8)))
    found = {each["entity"] for each in await rows(store, name)}
    assert found == {"shared", *(f"v{seed}" for seed in range(8))}
    assert len(await stored(service, name, *found)) == 9


async def test_an_index_over_a_dataset_takes_no_vectors(service: Service, store: Shelf) -> None:
    await store.put("own", [{"id": 1, "text": "one"}])
    create = c.CreateIndexRequest("own", "own", ("text",), build=False)
    await service[0].create_index(ADA, create)
    for call in (
        service[0].put_vectors(ADA, c.PutVectorsRequest("own", body(["a"], [[1.0] * 32]))),
        service[0].delete_vectors(ADA, c.DeleteVectorsRequest("own", ("a",))),
    ):
        assert (await refusal(call)).kind is ErrorKind.CONFLICT


async def test_given_vectors_are_not_built(service: Service, name: str) -> None:
    error = await refusal(service[0].build(ADA, c.BuildRequest(name)))
    assert error.kind is ErrorKind.CONFLICT
    again = await service[0].create_index(ADA, c.CreateIndexRequest(name, dimensions=DIMENSIONS))
    assert not again.created
    error = await refusal(service[0].create_index(ADA, c.CreateIndexRequest(name, dimensions=5)))
    assert (error.kind, error.fields["field"]) == (ErrorKind.CONFLICT, "dimensions")
