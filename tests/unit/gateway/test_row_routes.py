"""The routes of rows, journal and tags: what they ask the contracts for, what they answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lakehouse.contracts import journal as j
from lakehouse.contracts import rows as r
from lakehouse.contracts.catalog import AsOf, Pin
from lakehouse.contracts.ingest import ColumnOverride, IngestMode, IngestOptions, SourceFormat
from lakehouse.contracts.tags import SetTagRequest, TagsRequest
from unit.gateway.fakes import VERSION, World

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROW = {"id": 7, "big": "9007199254740993", "note": None}
CHANGES = "/ingest/datasets/people/rows"

READS: list[tuple[str, str, str, Any]] = [
    ("/datasets/people/rows/7", "rows", "get", r.RowRequest("people", "7")),
    (
        "/datasets/people/rows/%5B%22a%2Fb%22%2C7%5D?as_of=812",
        "rows",
        "get",
        r.RowRequest("people", '["a/b",7]', AsOf(812)),
    ),
    ("/datasets/people/rows/a/b", "rows", "get", r.RowRequest("people", "a/b")),
    ("/datasets/people/rows/", "rows", "get", r.RowRequest("people", "")),
    (
        "/datasets/people/rows/7?as_of=tag:march",
        "rows",
        "get",
        r.RowRequest("people", "7", AsOf(tag="march")),
    ),
    (
        "/datasets/people/diff?from=3",
        "rows",
        "diff",
        r.DiffRequest("people", AsOf(3)),
    ),
    (
        "/datasets/people/diff?from=tag:a&to=2026-11-01T12:00:00Z&limit=5&cursor=x",
        "rows",
        "diff",
        r.DiffRequest("people", AsOf(tag="a"), AsOf(time=NOON), 5, "x"),
    ),
    ("/journal/events", "journal", "events", j.EventsRequest()),
    (
        "/journal/events?dataset=people&entity=%5B7%5D&field=phone&kind=update&actor=a&workspace=w"
        "&request_id=R&since=2026-11-01T12:00:00Z&until=2026-11-01T13:00:00%2B01:00"
        "&after_version=3&before_version=9&limit=10000&cursor=x",
        "journal",
        "events",
        j.EventsRequest(
            "people", "[7]", "phone", "update", "a", "w", "R", NOON, NOON, 3, 9, 10_000, "x"
        ),
    ),
    (
        "/journal/rows/people/7?as_of=3&limit=9&cursor=x",
        "journal",
        "history",
        j.HistoryRequest("people", "7", AsOf(3), 9, "x"),
    ),
    (
        "/journal/rows/people/%5B%22a%2Fb%22%5D",
        "journal",
        "history",
        j.HistoryRequest("people", '["a/b"]'),
    ),
    (
        "/journal/feed?dataset=people&after=5&follow",
        "journal",
        "feed",
        j.FeedRequest("people", 5, True),
    ),
    (
        "/catalog/tags?dataset=people&limit=5&cursor=x",
        "catalog",
        "tags",
        TagsRequest("people", 5, "x"),
    ),
]


@pytest.mark.parametrize(("path", "noun", "method", "expected"), READS)
async def test_what_is_asked_for(path: str, noun: str, method: str, expected: object) -> None:
    world = World()
    async with world.client("read") as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert getattr(world, noun).last(method)[1] == expected


async def test_a_row_and_its_etag() -> None:
    world = World()
    async with world.client("read") as client:
        first = await client.get("/datasets/people/rows/7")
        etag = first.headers["etag"]
        again = await client.get("/datasets/people/rows/7", headers={"If-None-Match": etag})
        world.rows.row_json = '{"id":7}'
        other = await client.get("/datasets/people/rows/7", headers={"If-None-Match": etag})
    assert first.json() == {
        "dataset": "people",
        "key": [7],
        "row": ROW,
        "version": VERSION,
        "served_from": "table",
    }
    assert first.headers["lakehouse-version"] == str(VERSION)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    assert (other.status_code, other.json()["row"]) == (200, {"id": 7})


CHANGE: list[tuple[str, str, bytes, str, r.ChangeRowsRequest]] = [
    ("POST", "", b'[{"id": 7}]', "", r.ChangeRowsRequest("people", body=b'[{"id": 7}]')),
    (
        "POST",
        "?mode=patch&reason=moved&expected_version=9&dry_run",
        b'{"key": 7}',
        "",
        r.ChangeRowsRequest(
            "people",
            r.RowChange.PATCH,
            b'{"key": 7}',
            expected_version=9,
            reason="moved",
            dry_run=True,
        ),
    ),
    (
        "POST",
        "?mode=patch&where=id%20%3E%203",
        b'{"phone": "555"}',
        "application/json",
        r.ChangeRowsRequest(
            "people", r.RowChange.PATCH, where="id > 3", set_json='{"phone": "555"}'
        ),
    ),
    (
        "POST",
        "?format=csv&delimiter=;&null_values=-",
        b"id;phone\n7;-\n",
        "",
        r.ChangeRowsRequest(
            "people",
            body=b"id;phone\n7;-\n",
            options=IngestOptions(SourceFormat.CSV, delimiter=";", null_values=("-",)),
        ),
    ),
    (
        "POST",
        "",
        b"id,phone\n7,5\n",
        "text/csv",
        r.ChangeRowsRequest(
            "people", body=b"id,phone\n7,5\n", options=IngestOptions(content_type="text/csv")
        ),
    ),
    (
        "POST",
        "?mode=delete",
        b"[7]",
        "",
        r.ChangeRowsRequest("people", r.RowChange.DELETE, b"[7]"),
    ),
    ("DELETE", "", b"[7]", "", r.ChangeRowsRequest("people", r.RowChange.DELETE, b"[7]")),
    (
        "DELETE",
        "?where=id=7&reason=x",
        b"",
        "",
        r.ChangeRowsRequest("people", r.RowChange.DELETE, where="id=7", reason="x"),
    ),
]


@pytest.mark.parametrize(("method", "query", "body", "stated", "expected"), CHANGE)
async def test_changes(
    method: str, query: str, body: bytes, stated: str, expected: r.ChangeRowsRequest
) -> None:
    world = World()
    headers = {"Idempotency-Key": "k", **({"Content-Type": stated} if stated else {})}
    async with world.client("write") as client:
        answer = await client.request(method, CHANGES + query, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    ctx, asked = world.rows.last("change")
    assert asked == expected
    assert ctx.idempotency_key == "k"
    assert answer.json() == {
        "dataset": "people",
        "version": VERSION,
        "inserted": 1,
        "updated": 2,
        "deleted": 3,
        "unchanged": 4,
        "missing": 5,
        "no_op": False,
        "dry_run": expected.dry_run,
    }
    assert answer.headers["lakehouse-version"] == str(VERSION)


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [
        ("POST", "", b""),
        ("POST", "?mode=patch&where=true", b""),
        ("POST", "?mode=patch&where=true", b"\xff"),
        ("POST", "?where=true", b"[]"),
        ("POST", "?mode=replace", b"[]"),
        ("POST", "?wher=true&mode=delete", b"[7]"),
        ("DELETE", "", b""),
        # A variable that was not set must not select every row.
        ("DELETE", "?where=", b""),
        ("DELETE", "?where=true", b"[7]"),
    ],
)
async def test_changes_that_are_none(method: str, query: str, body: bytes) -> None:
    world = World()
    async with world.client("write") as client:
        answer = await client.request(method, CHANGES + query, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["kind"] == "invalid"
    assert world.rows.calls == []


async def test_a_batch_that_is_a_file() -> None:
    world = World()
    large = b"x" * (r.CHANGE_BYTES_MAX + 1)

    async def unstated() -> AsyncIterator[bytes]:
        yield large[:1000]
        yield large[1000:]

    async with world.client("write") as client:
        answers = [await client.post(CHANGES, content=body) for body in (large, unstated())]
        fits = await client.post(CHANGES, content=large[:-1])
    for answer in answers:
        assert (answer.status_code, answer.json()["bytes_max"]) == (413, r.CHANGE_BYTES_MAX)
        assert "mode=upsert" in answer.json()["hint"]
    assert fits.status_code == 200


async def test_a_batch_in_a_form() -> None:
    world = World()
    async with world.client("write") as client:
        await client.post(CHANGES, files={"file": ("new.csv", b"id\n7\n", "text/csv")})
    asked = world.rows.last("change")[1]
    assert (asked.body, asked.options.file_name) == (b"id\n7\n", "new.csv")


SHAPING: list[tuple[str, str, Any, str, Any]] = [
    (
        "PUT",
        "key?reason=x",
        {"columns": ["a", "b"]},
        "set_key",
        r.SetKeyRequest("people", ("a", "b"), "x"),
    ),
    (
        "POST",
        "schema?reason=x&dry_run",
        {"add": [{"name": "e", "type": "string"}], "widen": [{"name": "a", "type": "string"}]},
        "widen",
        r.WidenRequest(
            "people",
            (ColumnOverride("e", "string"),),
            (ColumnOverride("a", "string"),),
            "x",
            True,
        ),
    ),
    (
        "POST",
        "restore-rows?reason=x&dry_run",
        {"as_of": 3},
        "restore",
        r.RestoreRowsRequest("people", AsOf(3), "x", True),
    ),
    (
        "POST",
        "restore-rows",
        {"as_of": "tag:march"},
        "restore",
        r.RestoreRowsRequest("people", AsOf(tag="march")),
    ),
    ("POST", "compact", None, "compact", r.CompactRequest("people")),
    ("POST", "compact?full&dry_run", None, "compact", r.CompactRequest("people", True, True)),
]


@pytest.mark.parametrize(("method", "path", "body", "called", "expected"), SHAPING)
async def test_upkeep(method: str, path: str, body: Any, called: str, expected: object) -> None:
    world = World()
    async with world.client("write") as client:
        answer = await client.request(method, f"/ingest/datasets/people/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert world.rows.last(called)[1] == expected
    assert answer.json()["version"] == VERSION


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("schema", {}),
        ("schema", {"add": [{"name": "x"}]}),
        ("schema", {"drop": ["x"]}),
        ("restore-rows", {}),
        ("restore-rows", {"as_of": "yesterday"}),
        ("restore-rows", {"as_of": "tag:"}),
        ("restore-rows", {"as_of": None}),
    ],
)
async def test_upkeep_that_is_none(path: str, body: object) -> None:
    world = World()
    async with world.client("write") as client:
        answer = await client.post(f"/ingest/datasets/people/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert world.rows.calls == []


@pytest.mark.parametrize("query", ["", "?from=", "?from=x", "?from=1&to=x", "?from=1&limit=0"])
async def test_a_comparison_that_is_none(query: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get("/datasets/people/diff" + query)
    assert answer.status_code == 400, answer.text
    assert world.rows.calls == []


async def test_the_past_as_json() -> None:
    async with World().client() as client:
        diff = (await client.get("/datasets/people/diff?from=1")).json()
        events = (await client.get("/journal/events")).json()
        past = (await client.get("/journal/rows/people/7")).json()
    changed = {"field": "phone", "old": "444", "new": "555"}
    fields = [changed, {"field": "note", "old": None, "new": [1]}]
    assert diff["rows"] == [{"key": [7], "change": "changed", "fields": fields}]
    assert [diff[name] for name in ("from_version", "to_version", "changed", "next")] == [
        1,
        VERSION,
        9,
        "more",
    ]
    update, insert = events["events"]
    assert (update["entity"], update["old"], update["new"]) == ([7], "444", {"a": [1]})
    assert (update["at"], update["kind"]) == ("2026-11-21T09:30:00Z", "update")
    assert (insert["entity"], insert["field"], insert["rows"]) == (None, None, 3)
    assert (events["next"], events["version"]) == ("more", VERSION)
    assert (past["key"], past["row"], past["history_since"]) == ([7], ROW, 790)
    assert past["revisions"][0]["fields"] == [changed]
    assert past["next"] is None


LISTS = {
    "/datasets/people/diff?from=1": (
        {"key": "[7]", "change": "changed", "field": "note", "old": "", "new": "[1]"},
        1,
        1,
    ),
    "/journal/events": (
        {"version": "809", "kind": "insert", "entity": "", "rows": "3", "encrypted": "false"},
        2,
        1,
    ),
    "/journal/rows/people/7": (
        {"version": "810", "reason": "moved", "field": "phone", "old": '"444"', "new": '"555"'},
        2,
        0,
    ),
}


@pytest.mark.parametrize("path", LISTS)
async def test_lists_as_lines_and_as_csv(path: str) -> None:
    cells, count, at = LISTS[path]
    async with World().client() as client:
        lines = await client.get(path, headers={"Accept": "application/x-ndjson"})
        table = await client.get(path, headers={"Accept": "text/csv"})
        none = await client.get(path, headers={"Accept": "application/pdf"})
    assert len([json.loads(line) for line in lines.text.splitlines()]) == count
    found = list(csv.DictReader(io.StringIO(table.text)))[at]
    assert cells.items() <= found.items()
    for answer in (lines, table):
        assert answer.headers["lakehouse-version"] == str(VERSION)
        assert answer.headers.get("lakehouse-next") == ("more" if "rows" not in path else None)
    assert none.status_code == 406


async def test_a_cell_with_quotes_comes_through() -> None:
    async with World().client() as client:
        table = await client.get("/journal/events", headers={"Accept": "text/csv"})
    first = next(csv.DictReader(io.StringIO(table.text)))
    assert (first["reason"], first["new"]) == ('a "good", one', '{"a":[1]}')


async def test_tags() -> None:
    world = World()
    async with world.client("write") as client:
        listed = (await client.get("/catalog/tags")).json()
        found = await client.get("/catalog/tags/march")
        none = await client.get("/catalog/tags/april-fools")
        made = await client.put("/catalog/tags/march", json={"as_of": 800, "dataset": "people"})
        asked = world.catalog.last("set_tag")[1]
        bare = await client.put("/catalog/tags/march")
        now = world.catalog.last("set_tag")[1]
        gone = await client.delete("/catalog/tags/march")
    assert (listed["tags"][0]["tag"], listed["next"]) == ("april", "more")
    assert (found.json()["tag"], found.json()["version"]) == ("march", 800)
    assert found.json()["store_version"] == VERSION
    assert none.status_code == 404
    assert (made.status_code, bare.status_code, gone.status_code) == (201, 201, 200)
    assert asked == SetTagRequest("march", "people", AsOf(800))
    assert now == SetTagRequest("march")
    assert world.catalog.last("set_tag")[1] == SetTagRequest("march", remove=True)


async def test_ingest_takes_upsert_and_a_reason() -> None:
    world = World()
    async with world.client("write") as client:
        path = "/ingest/datasets/people?mode=upsert&reason=nightly&key=id"
        answer = await client.post(path, content=b"id\n7\n", headers={"Content-Type": "text/csv"})
    asked = world.ingest.last("ingest")[1]
    assert (asked.mode, asked.reason, asked.key) == (IngestMode.UPSERT, "nightly", ("id",))
    counts = {name: answer.json()[name] for name in ("inserted", "updated", "deleted", "unchanged")}
    assert counts == dict.fromkeys(counts, 0)


async def test_sql_reads_a_tag() -> None:
    world = World()
    body = {"sql": "select 1", "as_of": "tag:march"}
    async with world.client() as client:
        await client.post("/query/sql", json=body, headers={"Lakehouse-Min-Version": "3"})
        assert world.query.last("run")[1].as_of == AsOf(tag="march", min_version=3)
        await client.post("/query/sql", json={"sql": "x", "as_of": {"people": "tag:march"}})
    pin = world.query.last("run")[1].pins[0]
    assert pin == Pin("people", AsOf(tag="march"))


@pytest.mark.parametrize(
    "path", [CHANGES, "/ingest/datasets/people/compact", "/ingest/datasets/people/restore-rows"]
)
async def test_readers_change_nothing(path: str) -> None:
    world = World()
    async with world.client("read") as client:
        assert (await client.post(path, json=[])).status_code == 403
        assert (await client.put("/catalog/tags/march")).status_code == 403
    assert world.rows.calls == world.catalog.calls == []


@pytest.mark.parametrize(
    ("stated", "meant"), [("desk", "desk"), ("b%C3%BCro%207", "büro 7"), ("x" * 255, "x" * 255)]
)
async def test_the_workspace_goes_along(stated: str, meant: str) -> None:
    world = World()
    async with world.client("write") as client:
        await client.post(CHANGES, json=[], headers={"Lakehouse-Workspace": stated})
    assert world.rows.last("change")[0].workspace == meant


@pytest.mark.parametrize("stated", ["", "%20", "a%0Ab", "x" * 256, "%00"])
async def test_a_workspace_that_is_none(stated: str) -> None:
    world = World()
    async with world.client("write") as client:
        answer = await client.post(CHANGES, json=[], headers={"Lakehouse-Workspace": stated})
    assert answer.status_code == 400
    assert world.rows.calls == []
