"""Indexes as wholes: made once, cut over and deleted in one commit, and refused with reasons."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as c
from lakehouse.contracts.catalog import GetRequest
from lakehouse.contracts.ingest import CardHints, ColumnOverride
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import Sensitivity
from lakehouse.model.identity import Context
from lakehouse.model.vectors import Profile, VersionState
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

Service = tuple[Vectors, Profiles, HashingEmbedder]
ROWS = [{"id": 1, "text": "one", "tags": ["a"]}, {"id": 2, "text": "two", "tags": []}]


@pytest_asyncio.fixture(loop_scope="module")
async def service(store: Shelf) -> AsyncIterator[Service]:
    async with store.vectors() as made:
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(char if char.isalnum() else "_" for char in request.node.name[5:45])


def keyed(key: str, ctx: Context = ADA) -> Context:
    return replace(ctx, idempotency_key=key)


async def refusal(call: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as refused:
        await call
    return refused.value


def over(of: str, **fields: Any) -> c.CreateIndexRequest:
    return c.CreateIndexRequest(**{"name": of, "dataset": of, "columns": ("text",), **fields})


async def test_an_index_is_made_once(service: Service, store: Shelf, name: str) -> None:
    vectors = service[0]
    await store.put(name, ROWS)
    first = await vectors.create_index(ADA, over(name, build=False))
    assert (first.created, first.building, first.index.behind) == (True, False, True)
    again = await vectors.create_index(ADA, over(name.upper(), build=False))
    assert (again.created, again.index.name) == (False, name)
    for other in ({"columns": ("id",)}, {"profile": "lance"}):
        error = await refusal(vectors.create_index(ADA, over(name, **other)))
        assert (error.kind, error.fields["field"]) == (ErrorKind.CONFLICT, next(iter(other)))


async def test_its_vectors_are_a_dataset_with_the_card_of_their_texts(
    service: Service, store: Shelf, name: str
) -> None:
    card = CardHints(owner="anna", description="x", sensitivity="restricted")
    rows = [{"id": at, "text": f"anna{at}@example.org"} for at in range(5)]
    await store.put(name, rows, card=card)
    await service[0].create_index(ADA, over(name, build=False))
    dataset = await store.dataset(f"vectors.{name}.v1")
    assert dataset.primary_key == ("entity", "chunk")
    assert dataset.card.owner == "anna"
    assert dataset.card.sensitivity is Sensitivity.RESTRICTED
    assert dataset.card.tags == ("vectors",)
    assert dataset.card.lineage.inputs == (name,)
    assert [(each.column, each.kind) for each in dataset.card.pii] == [("text", "email")]
    assert dataset.schema.columns[-1].type == "vector(32)"
    assert dataset.row_count in (0, None)


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        ({"dataset": "nowhere"}, ErrorKind.NOT_FOUND, "dataset"),
        ({"columns": ("txet",)}, ErrorKind.NOT_FOUND, "did you mean text"),
        ({"columns": ()}, ErrorKind.INVALID, "columns"),
        ({"columns": ("text", "text")}, ErrorKind.INVALID, "columns"),
        ({"columns": ("tags",)}, ErrorKind.INVALID, "cannot be read as text"),
        ({"profile": "defualt"}, ErrorKind.NOT_FOUND, "did you mean default"),
        ({"name": ""}, ErrorKind.INVALID, "index name"),
        ({"name": "a/b"}, ErrorKind.INVALID, "index name"),
        ({"name": "x" * 201}, ErrorKind.INVALID, "too long"),
        ({"dimensions": 8}, ErrorKind.INVALID, "dimensions"),
        ({"dataset": "", "columns": ()}, ErrorKind.INVALID, "needs their dimensions"),
        ({"dataset": "", "columns": (), "dimensions": 8193}, ErrorKind.INVALID, "8192"),
        ({"dataset": "", "columns": (), "dimensions": -1}, ErrorKind.INVALID, "dimensions"),
        ({"dataset": ""}, ErrorKind.INVALID, "columns are of a dataset"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_reason(
    service: Service, store: Shelf, fields: dict[str, Any], kind: ErrorKind, told: str
) -> None:
    if not (await store.sql("select 1 from system.datasets where name = 'refused'")):
        await store.put("refused", ROWS)
    request = over("refused", **fields)
    error = await refusal(service[0].create_index(ADA, request))
    assert error.kind is kind
    assert told in f"{error} {error.fields}"
    error = await refusal(service[0].get_index(READER, c.IndexRequest("refused")))
    assert error.kind is ErrorKind.NOT_FOUND


async def test_a_dataset_without_key_is_refused_with_what_to_do(
    service: Service, store: Shelf, name: str
) -> None:
    await store.put(name, ROWS, ())
    error = await refusal(service[0].create_index(ADA, over(name)))
    assert (error.kind, "key" in str(error.fields["hint"])) == (ErrorKind.INVALID, True)


async def test_a_model_that_is_not_there_is_told_before_anything_is_made(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, profiles, embedder = service
    await store.put(name, ROWS)
    await profiles.put(ADA, p.PutProfileRequest(Profile(name, model="no-such-model")))
    error = await refusal(vectors.create_index(ADA, over(name, profile=name)))
    assert (error.kind, error.fields["models"]) == (ErrorKind.NOT_FOUND, [*embedder.models])
    embedder.fail()
    error = await refusal(vectors.create_index(ADA, over(name)))
    assert error.kind is ErrorKind.UNAVAILABLE
    embedder.recover()
    await profiles.put(ADA, p.PutProfileRequest(Profile(f"{name}9", dimensions=9)))
    error = await refusal(vectors.create_index(ADA, over(name, profile=f"{name}9")))
    assert (error.kind, error.fields["model_dimensions"]) == (ErrorKind.INVALID, 32)


async def test_a_reader_makes_and_changes_nothing(service: Service, name: str) -> None:
    vectors = service[0]
    for call in (
        vectors.create_index(READER, over(name)),
        vectors.build(READER, c.BuildRequest(name)),
        vectors.cut_over(READER, c.CutOverRequest(name)),
        vectors.delete_index(READER, c.DeleteIndexRequest(name)),
        vectors.put_vectors(READER, c.PutVectorsRequest(name, b"")),
        vectors.delete_vectors(READER, c.DeleteVectorsRequest(name, ("a",))),
    ):
        assert (await refusal(call)).kind is ErrorKind.FORBIDDEN


async def test_vectors_stay_in_the_residency_of_their_texts(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, profiles, _ = service
    await store.put(name, ROWS, bucket="eu")
    await vectors.create_index(ADA, over(name, build=False))
    made = await store.dataset(f"vectors.{name}.v1")
    assert (made.bucket, made.residency) == ("eu", "eu")
    for bucket, fits in (("eu_two", True), ("primary", False)):
        profile = f"{name}_{bucket}"
        await profiles.put(ADA, p.PutProfileRequest(Profile(profile, bucket=bucket)))
        request = over(f"{name}_{bucket}", dataset=name, profile=profile, build=False)
        if fits:
            await vectors.create_index(ADA, request)
            assert (await store.dataset(f"vectors.{request.name}.v1")).bucket == "eu_two"
            continue
        error = await refusal(vectors.create_index(ADA, request))
        assert (error.kind, error.fields["residency"]) == (ErrorKind.CONFLICT, "eu")


async def test_a_name_that_a_dataset_has_is_in_the_way(
    service: Service, store: Shelf, name: str
) -> None:
    await store.put(name, ROWS)
    await store.put(f"vectors.{name}.v1", ROWS)
    error = await refusal(service[0].create_index(ADA, over(name)))
    assert error.kind is ErrorKind.ALREADY_EXISTS
    assert "another name" in str(error.fields["hint"])
    error = await refusal(service[0].get_index(READER, c.IndexRequest(name)))
    assert error.kind is ErrorKind.NOT_FOUND


async def test_indexes_are_listed_by_name_in_pages(
    service: Service, store: Shelf, name: str
) -> None:
    vectors = service[0]
    await store.put(name, ROWS)
    names = [f"{name}_{letter}" for letter in "cab"]
    for each in names:
        await vectors.create_index(ADA, over(each, dataset=name, build=False))
    listed, cursor = [], ""
    while True:
        request = c.ListIndexesRequest(name.upper(), 2, cursor)
        page = await vectors.list_indexes(READER, request)
        listed += [info.name for info in page.indexes]
        cursor = page.cursor
        if not cursor:
            break
    assert listed == sorted(names)
    for bad in ({"limit": 0}, {"limit": 1001}, {"cursor": "\u2603"}):
        error = await refusal(vectors.list_indexes(READER, c.ListIndexesRequest(**bad)))
        assert error.kind is ErrorKind.INVALID


async def test_a_typo_is_answered_with_the_nearest_name(
    service: Service, store: Shelf, name: str
) -> None:
    await store.put(name, ROWS)
    await service[0].create_index(ADA, over(name, build=False))
    error = await refusal(service[0].get_index(READER, c.IndexRequest(name[:-1])))
    assert (error.kind, error.fields["nearest"]) == (ErrorKind.NOT_FOUND, name)


async def test_deleting_an_index_drops_its_vectors_in_one_commit(
    service: Service, store: Shelf, name: str
) -> None:
    vectors = service[0]
    await store.put(name, ROWS)
    await vectors.create_index(ADA, over(name, build=False))
    request = c.BuildRequest(name, new_version=True, wait_seconds=30)
    await vectors.build(ADA, request)
    error = await refusal(vectors.delete_index(ADA, c.DeleteIndexRequest(name, 2)))
    assert error.kind is ErrorKind.CONFLICT
    assert (await refusal(vectors.delete_index(ADA, c.DeleteIndexRequest(name, 9)))).kind is (
        ErrorKind.NOT_FOUND
    )
    gone = await vectors.delete_index(ADA, c.DeleteIndexRequest(name, 1))
    assert gone.versions_deleted == 1
    info = (await vectors.get_index(READER, c.IndexRequest(name))).index
    assert (info.live, info.previous, len(info.versions)) == (2, 0, 1)
    gone = await vectors.delete_index(keyed(f"{name} delete"), c.DeleteIndexRequest(name))
    assert gone.versions_deleted == 1
    again = await vectors.delete_index(keyed(f"{name} delete"), c.DeleteIndexRequest(name))
    assert again == gone
    for number in (1, 2):
        error = await refusal(store.catalog.get(ADA, GetRequest(f"vectors.{name}.v{number}")))
        assert error.kind is ErrorKind.NOT_FOUND
    assert (await vectors.create_index(ADA, over(name, build=False))).created


async def test_a_repeated_call_has_one_effect(service: Service, store: Shelf, name: str) -> None:
    vectors = service[0]
    await store.put(name, ROWS)
    ctx = keyed(f"{name} create")
    assert (await vectors.create_index(ctx, over(name))).created
    assert (await vectors.create_index(ctx, over(name))).created
    error = await refusal(vectors.create_index(ctx, over(name, columns=("id",))))
    assert (error.kind, error.http_status) == (ErrorKind.INVALID, 422)
    build = c.BuildRequest(name, new_version=True, wait_seconds=30)
    for _ in range(2):
        info = (await vectors.build(keyed(f"{name} build"), build)).index
        assert (info.live, len(info.versions)) == (2, 2)
    back = c.CutOverRequest(name)
    for _ in range(2):
        info = (await vectors.cut_over(keyed(f"{name} back"), back)).index
        assert (info.live, info.previous) == (1, 2)


async def test_going_back_and_forth(service: Service, store: Shelf, name: str) -> None:
    vectors = service[0]
    await store.put(name, ROWS)
    await vectors.create_index(ADA, over(name, build=False))
    error = await refusal(vectors.cut_over(ADA, c.CutOverRequest(name)))
    assert error.kind is ErrorKind.CONFLICT
    error = await refusal(vectors.cut_over(ADA, c.CutOverRequest(name, 1)))
    assert (error.kind, error.fields["state"]) == (ErrorKind.CONFLICT, VersionState.BUILDING.value)
    error = await refusal(vectors.cut_over(ADA, c.CutOverRequest(name, 2)))
    assert error.kind is ErrorKind.NOT_FOUND
    error = await refusal(vectors.build(ADA, c.BuildRequest(name, wait_seconds=601)))
    assert error.kind is ErrorKind.INVALID


async def test_a_switch_of_backend_is_compared_and_cut_over_in_one_commit(
    service: Service, store: Shelf, name: str
) -> None:
    vectors, profiles, _ = service
    await store.put(name, ROWS)
    await vectors.create_index(ADA, over(name))
    await vectors.build(ADA, c.BuildRequest(name, wait_seconds=30))
    await profiles.put(ADA, p.PutProfileRequest(Profile(name, exact_rows_max=10)))
    result = await vectors.build(ADA, c.BuildRequest(name, profile=name, wait_seconds=30))
    info = result.index
    assert (info.live, info.previous, info.profile) == (2, 1, name)
    assert '"overlap":1.0' in info.versions[1].comparison_json


async def test_types_that_are_texts_of_a_kind_can_be_found(
    service: Service, store: Shelf, name: str
) -> None:
    columns = (ColumnOverride("price", "decimal(9,2)"), ColumnOverride("day", "date"))
    rows = [{"id": 1, "price": "1.50", "day": "2026-01-02", "ok": True, "x": 0.5}]
    await store.put(name, rows, columns=columns)
    fields = ("price", "day", "ok", "x", "id")
    await service[0].create_index(ADA, over(name, columns=fields))
    await service[0].build(ADA, c.BuildRequest(name, wait_seconds=30))
    (row,) = await store.sql(f'select text from "vectors.{name}.v1"')
    assert row["text"] == "1.50\n2026-01-02\ntrue\n0.5\n1"
