"""The storage routes: filters, forms of the list, buckets added and removed."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.contracts.storage import AddBucketRequest, ErrorsRequest, RemoveBucketRequest
from lakehouse.kit.clock import SystemClock, to_datetime
from unit.gateway.fakes import World

NIGHT = datetime(2026, 11, 21, 2, tzinfo=UTC)


async def test_every_filter_of_the_errors() -> None:
    world = World()
    query = (
        "bucket=eu&op=get&kind=timeout&since=2026-11-21T02:00:00Z&until=2026-11-21T04:00:00%2B01:00"
        "&final&limit=7&cursor=x"
    )
    async with world.client() as client:
        answer = await client.get(f"/storage/errors?{query}")
    assert answer.status_code == 200, answer.text
    asked = world.storage.last("errors")[1]
    later = NIGHT + timedelta(hours=1)
    assert asked == ErrorsRequest("eu", "get", "timeout", NIGHT, later, True, 7, "x")


async def test_a_duration_is_from_now() -> None:
    world = World()
    async with world.client() as client:
        for text, span in (("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)):
            await client.get(f"/storage/errors?since={text}")
            since = world.storage.last("errors")[1].since
            ago = (to_datetime(SystemClock().now_us()) - since).total_seconds()
            assert 0 <= ago - span < 30, text


@pytest.mark.parametrize("text", ["yesterday", "2026-11-21T02:00:00", "1", "-1h", "999999999w"])
@pytest.mark.parametrize("name", ["since", "until"])
async def test_what_is_no_time_is_said(name: str, text: str) -> None:
    async with World().client() as client:
        answer = await client.get("/storage/errors", params={name: text})
    assert answer.status_code == 400
    assert (answer.json()["parameter"], answer.json()["value"]) == (name, text)
    assert "1h" in answer.json()["hint"]


async def test_the_page_as_json() -> None:
    async with World().client() as client:
        body = (await client.get("/storage/errors")).json()
    assert list(body) == [
        "errors",
        "counts",
        "dropped",
        "spooled",
        "primary_unavailable_since",
        "complete",
        "next",
        "journal_failures",
    ]
    assert body["errors"][0]["operation"] == "get"
    assert body["errors"][0]["outcome"] == "failed"
    assert body["counts"][0] == {
        "bucket": "eu",
        "operation": "get",
        "error_kind": "timeout",
        "attempts": 2,
        "operations": 1,
    }
    assert (body["dropped"], body["spooled"], body["complete"]) == (1, 2, False)
    assert body["primary_unavailable_since"] == "2026-11-21T09:30:00Z"
    assert body["next"] == "more"


async def test_the_attempts_alone_as_lines_and_as_csv() -> None:
    async with World().client() as client:
        whole = (await client.get("/storage/errors")).json()["errors"]
        lines = await client.get("/storage/errors", headers={"Accept": "application/x-ndjson"})
        table = await client.get("/storage/errors", headers={"Accept": "text/csv"})
        none = await client.get("/storage/errors", headers={"Accept": "application/pdf"})
    for answer in (lines, table):
        assert answer.headers["lakehouse-next"] == "more"
        assert answer.headers["lakehouse-complete"] == "false"
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert lines.text.count("\n") == 1
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert list(rows[0]) == list(whole[0])
    assert rows[0]["key"] == whole[0]["key"] == 'a "quoted", key'
    assert (rows[0]["final"], rows[0]["at"]) == ("true", "2026-11-21T09:30:00Z")
    assert none.status_code == 406
    assert "application/vnd.apache.parquet" not in none.json()["offered"]


async def test_a_bucket_is_added_and_removed() -> None:
    world = World()
    body = {"name": "eu", "url": "s3://eu/lake", "residency": "eu", "secret_ref": "env:EU"}
    async with world.client() as client:
        added = await client.post("/storage/buckets", json=body)
        wrong = await client.post("/storage/buckets", json={**body, "secret": "s3cr3t"})
        removed = await client.delete("/storage/buckets/eu")
    assert (added.status_code, added.json()["name"]) == (201, "eu")
    asked = AddBucketRequest("eu", "s3://eu/lake", residency="eu", secret_ref="env:EU")
    assert world.storage.last("add_bucket")[1] == asked
    assert wrong.status_code == 400
    assert "s3cr3t" not in wrong.text
    assert removed.json() == {"name": "eu", "removed": True}
    assert world.storage.last("remove_bucket")[1] == RemoveBucketRequest("eu")


@pytest.mark.parametrize("scope", ["read", "write"])
async def test_the_journal_is_the_operators(scope: str) -> None:
    world = World()
    async with world.client(scope) as client:
        assert (await client.get("/storage/errors")).status_code == 403
        assert (await client.post("/storage/buckets", json={})).status_code == 403
        assert (await client.delete("/storage/buckets/eu")).status_code == 403
    assert world.storage.calls == []
