"""A dataset's objects stay in buckets of the residency it was made with, whatever is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import AddFiles, Change, CreateDataset, DeleteDocument, PutDocument
from lakehouse.model.dataset import DataFile, stats_key
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.objectstore.buckets import BucketSettings
from support_catalog import CARD, CTX, House, build_house, commit, create, file_of, parquet_bytes

PLACES = {"client_eu": "eu", "second_eu": "eu", "client_us": "us", "plain": ""}
SHA = "ab" * 32


@pytest.fixture
async def house() -> AsyncIterator[House]:
    built = await build_house()
    url = built.buckets.settings("primary").url
    for name, residency in PLACES.items():
        built.buckets.add(BucketSettings(name, f"{url}-{name}", residency=residency))
    yield built
    await built.close()


@pytest.fixture
async def catalog(house: House) -> Catalog:
    return await house.open()


async def session_of(catalog: Catalog) -> str:
    return (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id


def at(bucket: str, *changes: Change) -> tuple[Change, ...]:
    """``changes`` of ``create``, with home and files in ``bucket``."""
    moved: list[Change] = []
    for change in changes:
        if isinstance(change, CreateDataset):
            moved.append(replace(change, bucket=bucket))
        elif isinstance(change, AddFiles):
            files = tuple(replace(file, bucket=bucket) for file in change.files)
            moved.append(replace(change, files=files))
    return tuple(moved)


async def refused(catalog: Catalog, *changes: Change) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, *changes)
    return caught.value


async def test_a_dataset_takes_the_label_of_its_home_and_keeps_it(catalog: Catalog) -> None:
    session = await session_of(catalog)
    await commit(catalog, *at("client_eu", *create("D1", "people", file_of(session, "D1", "a"))))
    found = (await catalog.get(CTX, c.GetRequest("people"))).dataset
    assert (found.bucket, found.residency) == ("client_eu", "eu")
    await catalog.rename(CTX, c.RenameRequest("people", "folk"))
    found = (await catalog.get(CTX, c.GetRequest("folk"))).dataset
    assert (found.bucket, found.residency) == ("client_eu", "eu")


@pytest.mark.parametrize(
    ("home", "bucket", "fits"),
    [
        ("client_eu", "second_eu", True),
        ("client_eu", "client_us", False),
        ("client_eu", "primary", False),
        ("primary", "plain", True),
        ("primary", "client_eu", False),
    ],
)
async def test_files_join_where_the_label_is_the_same(
    catalog: Catalog, home: str, bucket: str, fits: bool
) -> None:
    session = await session_of(catalog)
    await commit(catalog, *at(home, *create("D1", "people", file_of(session, "D1", "a"))))
    more = AddFiles("D1", (replace(file_of(session, "D1", "b"), bucket=bucket),))
    if fits:
        await commit(catalog, more)
        return
    error = await refused(catalog, more)
    assert error.kind is ErrorKind.FORBIDDEN
    assert (error.fields["home"], error.fields["bucket"]) == (home, bucket)
    replaced = await refused(catalog, replace(more, replace=True))
    assert replaced.kind is ErrorKind.FORBIDDEN


async def test_nobody_states_another_label_than_the_bucket_has(catalog: Catalog) -> None:
    made = create("D1", "people")[0]
    assert isinstance(made, CreateDataset)
    error = await refused(catalog, replace(made, bucket="client_us", residency="eu"))
    assert error.kind is ErrorKind.FORBIDDEN
    error = await refused(catalog, replace(made, bucket="nowhere"))
    assert error.kind is ErrorKind.NOT_FOUND
    assert "client_us" in error.fields["buckets"]  # type: ignore[operator]


async def test_labels_survive_records_and_checkpoints(house: House, catalog: Catalog) -> None:
    session = await session_of(catalog)
    file = replace(file_of(session, "D1", "a"), stats=(), stats_sha256=SHA)
    await commit(catalog, *at("client_eu", *create("D1", "people", file)))
    await commit(catalog, *create("D2", "others", file_of(session, "D2", "a")))
    used = (await catalog.usage(CTX, c.UsageRequest())).buckets
    assert used == (c.BucketUse("client_eu", "eu", 1), c.BucketUse("primary", "", 1))
    # Closed, it folds: the next one reads a checkpoint and not the records.
    await catalog.close()
    again = await house.open()
    assert (await again.usage(CTX, c.UsageRequest())).buckets == used
    assert (await again.get(CTX, c.GetRequest("people"))).dataset.residency == "eu"
    (kept,) = (await again.snapshot(CTX, c.SnapshotRequest(("people",)))).datasets[0].files
    assert (kept.bucket, kept.stats, kept.stats_sha256) == ("client_eu", (), SHA)


async def test_usage_counts_what_is_kept_and_forgets_what_is_gone(catalog: Catalog) -> None:
    session = await session_of(catalog)

    async def used() -> dict[str, int]:
        found = (await catalog.usage(CTX, c.UsageRequest())).buckets
        return {each.bucket: each.datasets for each in found}

    await commit(catalog, *at("client_eu", *create("D1", "people", file_of(session, "D1", "a"))))
    more = replace(file_of(session, "D1", "b"), bucket="second_eu")
    await commit(catalog, AddFiles("D1", (more,)))
    assert await used() == {"client_eu": 1, "second_eu": 1}
    back = replace(file_of(session, "D1", "c"), bucket="client_eu")
    await commit(catalog, AddFiles("D1", (back,), replace=True))
    # The version before is kept, and with it the object in the second bucket.
    assert await used() == {"client_eu": 1, "second_eu": 1}
    await catalog.drop(CTX, c.DropRequest("people"))
    assert await used() == {"client_eu": 1, "second_eu": 1}
    await catalog.drop(CTX, c.DropRequest("people", purge=True))
    assert await used() == {}


async def test_the_rows_given_up_take_their_statistics_along(house: House) -> None:
    catalog = await house.open(history_seconds=0.0, undrop_seconds=0.0)
    session = await session_of(catalog)
    file = replace(file_of(session, "D1", "a"), stats=(), stats_sha256=SHA)
    await commit(catalog, *at("client_eu", *create("D1", "people", file)))
    kept = replace(file_of(session, "D1", "b"), bucket="client_eu", stats=(), stats_sha256=SHA)
    await commit(catalog, AddFiles("D1", (kept,), replace=True))
    store = house.buckets.get("client_eu")
    for key in (file.key, stats_key(file.key), kept.key, stats_key(kept.key)):
        await store.put(key, b"x")
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session, close=True))
    await commit(catalog, *create("D2", "later"))
    plan = await catalog.collect(CTX, c.PlanRequest(dry_run=True))
    assert set(plan.objects) == {file.key, stats_key(file.key)}
    orphans = (await catalog.fsck(CTX, c.FsckRequest())).findings
    assert [each for each in orphans if each.kind == "orphan"] == []
    await catalog.collect(CTX, c.PlanRequest())
    await catalog.drop(CTX, c.DropRequest("people", purge=True))
    plan = await catalog.collect(CTX, c.PlanRequest(dry_run=True))
    assert set(plan.objects) == {kept.key, stats_key(kept.key)}


@pytest.mark.parametrize(
    "file",
    [
        DataFile("inbox/a.parquet", 1, 1, SHA, external=True, stats_sha256=SHA),
        DataFile("datasets/{session}/D1/a.parquet", 1, 1, SHA, stats_sha256="xyz"),
        DataFile("datasets/{session}/D1/a.stats.parquet", 1, 1, SHA),
        DataFile("datasets/{session}/D1/a.bin", 1, 1, SHA, stats_sha256=SHA),
    ],
    ids=["foreign", "no hash", "a name of statistics", "another ending"],
)
async def test_statistics_are_of_objects_of_ours(catalog: Catalog, file: DataFile) -> None:
    session = await session_of(catalog)
    file = replace(file, key=file.key.replace("{session}", session))
    await commit(catalog, *create("D1", "people"))
    error = await refused(catalog, AddFiles("D1", (file,)))
    assert error.kind is ErrorKind.INVALID


async def test_bucket_documents_are_the_operators_and_sound(catalog: Catalog) -> None:
    body = '{"name": "fresh", "url": "s3://b/p", "residency": "eu"}'
    writer = Context(Principal("w", (Scope.WRITE,)), "r")
    for change in (PutDocument("bucket", "fresh", body), DeleteDocument("bucket", "fresh")):
        with pytest.raises(LakehouseError) as caught:
            await catalog.commit(writer, c.CommitRequest((change,)))
        assert caught.value.kind is ErrorKind.FORBIDDEN
    error = await refused(catalog, PutDocument("bucket", "client_eu", body))
    assert error.kind is ErrorKind.ALREADY_EXISTS
    error = await refused(catalog, PutDocument("bucket", "fresh", '{"residency": "E U"}'))
    assert error.kind is ErrorKind.INVALID
    await commit(catalog, PutDocument("bucket", "fresh", body))
    made = replace(create("D1", "people")[0], bucket="fresh")  # type: ignore[type-var]
    await commit(catalog, made)
    assert (await catalog.get(CTX, c.GetRequest("people"))).dataset.residency == "eu"
    # Its label is a fact while it holds something; and it cannot go, not even in one commit.
    error = await refused(catalog, PutDocument("bucket", "fresh", body.replace("eu", "us")))
    assert error.kind is ErrorKind.FORBIDDEN
    again = replace(made, dataset_id="D2", name="more")  # type: ignore[type-var]
    for changes in ((), (again,)):
        error = await refused(catalog, *changes, DeleteDocument("bucket", "fresh"))
        assert (error.kind, error.fields["datasets"]) == (ErrorKind.CONFLICT, 1 + len(changes))


async def _objects(house: House, *buckets: str) -> tuple[c.ForeignObject, ...]:
    for bucket in buckets:
        await house.buckets.get(bucket).put("inbox/a.parquet", parquet_bytes())
    return tuple(c.ForeignObject("inbox/a.parquet", bucket) for bucket in buckets)


async def test_foreign_objects_are_registered_within_one_residency(
    house: House, catalog: Catalog
) -> None:
    async def register(name: str, *objects: c.ForeignObject, **fields: Any) -> c.DatasetResult:
        return await catalog.register(CTX, c.RegisterRequest(name, objects, CARD, **fields))

    eu, us, plain = await _objects(house, "client_eu", "client_us", "plain")
    for name, objects, fields in (
        ("a", (replace(us, key="inbox/a.parquet"),), {"bucket": "client_eu"}),
        ("b", (eu,), {"bucket": "primary"}),
        ("c", (replace(eu, copy=True),), {"bucket": "client_us"}),
        ("d", (replace(eu, copy=True),), {"bucket": "primary"}),
    ):
        with pytest.raises(LakehouseError) as caught:
            await register(name, *objects, **fields)
        assert caught.value.kind is ErrorKind.FORBIDDEN
    assert await house.buckets.get("primary").list("datasets/") == []
    kept = (await register("e", eu)).dataset
    assert (kept.bucket, kept.residency) == ("client_eu", "eu")
    moved = (await register("f", replace(plain, copy=True), bucket="client_us")).dataset
    assert (moved.bucket, moved.residency) == ("client_us", "us")
    (file,) = (await catalog.snapshot(CTX, c.SnapshotRequest(("f",)))).datasets[0].files
    assert (file.bucket, file.external, file.stats) == ("client_us", False, ())
    assert file.stats_sha256
    assert await house.buckets.get("client_us").get(stats_key(file.key))
    with pytest.raises(LakehouseError) as caught:
        await register("e", eu, bucket="second_eu")
    assert (caught.value.kind, caught.value.fields["home"]) == (ErrorKind.CONFLICT, "client_eu")
    # Without a word on it a copy goes home, wherever it comes from.
    copied = await register("f", replace(plain, copy=True))
    (file,) = (await catalog.snapshot(CTX, c.SnapshotRequest(("f",)))).datasets[0].files
    assert (copied.dataset.bucket, file.bucket) == ("client_us", "client_us")
