"""The bucket that a dataset is made in: its rows, their statistics and dead letters stay there."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import IngestRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.answers import asked_sha256
from lakehouse.model.changes import PutDocument
from lakehouse.model.dataset import stats_key
from lakehouse.objectstore.buckets import BucketSettings
from lakehouse.table.statsfile import decode_stats
from support_ingest import CTX, Lake

_COUNT = itertools.count()
CANARY = "zaphod-4711"
CSV = f"id,name\n1,{CANARY}\n2,b\n".encode()


@pytest.fixture
async def lake(lake: Lake) -> Lake:
    """With buckets that were added while it runs."""
    for name, residency in (("client_eu", "eu"), ("plain", "")):
        place = f"memory://homes-{next(_COUNT)}"
        body = f'{{"name": "{name}", "url": "{place}", "residency": "{residency}"}}'
        await lake.catalog.commit(CTX, c.CommitRequest((PutDocument("bucket", name, body),)))
        lake.buckets.add(BucketSettings(name, place, residency=residency))
    return lake


async def keys(lake: Lake, bucket: str) -> list[str]:
    return [meta.key for meta in await lake.buckets.get(bucket).list("datasets/")]


async def test_everything_of_a_dataset_is_in_its_home(lake: Lake) -> None:
    report = await lake.put(CSV + b"3,c,too,many\n", bucket="client_eu")
    assert (report.rows, report.dead_letters, report.created) == (2, 1, True)
    found = (await lake.catalog.snapshot(CTX, c.SnapshotRequest(("t", "t__dead_letters")))).datasets
    for each in found:
        assert (each.dataset.bucket, each.dataset.residency) == ("client_eu", "eu")
        (file,) = each.files
        assert (file.bucket, file.stats) == ("client_eu", ())
        stats = decode_stats(await lake.buckets.get("client_eu").get(stats_key(file.key)))
        assert {one.column_id for one in stats} == {one.id for one in each.dataset.schema.columns}
    assert (await lake.rows())[0] == {"id": 1, "name": CANARY}
    assert await keys(lake, "primary") == []
    # More rows go home without being told.
    await lake.put(b"id,name\n9,z\n", mode="append")
    assert len(await keys(lake, "client_eu")) == 6
    assert await keys(lake, "primary") == []


async def test_rows_in_the_primary_have_their_statistics_in_the_catalog(lake: Lake) -> None:
    await lake.put(CSV)
    (found,) = (await lake.catalog.snapshot(CTX, c.SnapshotRequest(("t",)))).datasets
    assert found.files[0].stats
    assert found.files[0].stats_sha256 == ""
    assert len(await keys(lake, "primary")) == 1


@pytest.mark.parametrize("mode", ["auto", "append", "replace"])
async def test_rows_do_not_move(lake: Lake, mode: str) -> None:
    await lake.put(CSV, bucket="client_eu")
    for data in (CSV, b"id,name\n9,z\n"):
        error = await lake.refused(data, mode=mode, bucket="plain")
        assert error.kind is ErrorKind.CONFLICT
        assert (error.fields["home"], error.fields["bucket"]) == ("client_eu", "plain")
    assert (await lake.put(CSV, mode=mode, bucket="client_eu")).no_op
    assert await keys(lake, "plain") == []


async def test_an_unknown_bucket_is_refused_before_the_body(lake: Lake) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    for request in (
        IngestRequest("t", bucket="nowhere"),
        IngestRequest("t", object_key="a.csv", object_bucket="nowhere"),
    ):
        with pytest.raises(LakehouseError) as caught:
            await lake.ingest.ingest(CTX, request, body())
        assert caught.value.kind is ErrorKind.NOT_FOUND
        assert caught.value.fields["buckets"] == ["primary", "client_eu", "plain"]


async def test_an_object_that_is_read_does_not_leave_its_place(lake: Lake) -> None:
    for bucket in ("client_eu", "plain"):
        await lake.buckets.get(bucket).put("inbox/a.csv", CSV)
    source = {"object_key": "inbox/a.csv", "object_bucket": "client_eu"}
    await lake.put(b"id,name\n8,y\n", "there")
    for how in (
        {},
        {"bucket": "plain"},
        {"dry_run": True},
        {"name": "there", "mode": "append"},
        {"name": "there", "mode": "append", "dry_run": True},
    ):
        error = await lake.refused(b"", **{"name": "t", **source, **how})
        assert error.kind is ErrorKind.FORBIDDEN
        assert (error.fields["bucket"], error.fields["residency"]) == ("client_eu", "eu")
    assert (await lake.put(b"", **source, bucket="client_eu")).rows == 2
    again = {"object_key": "inbox/a.csv", "object_bucket": "plain"}
    assert (await lake.put(b"", mode="append", force=True, **again)).rows == 2
    assert await keys(lake, "plain") == []


async def test_dead_letters_do_not_join_those_of_another_place(lake: Lake) -> None:
    bad = b"3,c,too,many\n"
    await lake.put(CSV + bad, bucket="plain")
    await lake.catalog.rename(CTX, c.RenameRequest("t", "older"))
    error = await lake.refused(CSV + bad, bucket="client_eu")
    assert error.kind is ErrorKind.FORBIDDEN
    assert error.fields["dataset"] == "t__dead_letters"


async def test_no_text_of_the_file_is_kept_elsewhere(lake: Lake) -> None:
    ctx = replace(CTX, idempotency_key="k-1")
    data = f"report of {CANARY}\n\n".encode() + CSV
    first = await lake.put(data, ctx=ctx, bucket="client_eu")
    assert [one.code for one in first.warnings] == ["lines_skipped"]
    assert await lake.put(data, ctx=ctx, bucket="client_eu") == first
    store = lake.buckets.get("primary")
    for meta in await store.list():
        assert CANARY.encode() not in await store.get(meta.key)
    # In the primary it is told, and is nobody else's.
    told = await lake.put(data, "u")
    assert CANARY in told.warnings[0].message


def test_a_call_without_a_bucket_is_the_call_it_was() -> None:
    """Keys of calls made before there were buckets to choose are still recognised."""
    before = "1e3e21569f58d55666f34f51fb9521c68d8b04a8e2750a65cc85dc50e5f9389b"
    assert asked_sha256(IngestRequest("people"), "d") == before
    assert asked_sha256(IngestRequest("people", bucket="client_eu"), "d") != before
