"""Each route asks the contract for the right thing and shows its answer in the promised shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts import ingest as i
from lakehouse.contracts import query as q
from lakehouse.contracts.storage import ProbeRequest
from lakehouse.contracts.tokens import CreateTokenRequest, RevokeTokenRequest
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.model.dataset import Card, Lineage, Sensitivity
from lakehouse.model.identity import Scope
from lakehouse.model.schema import Column
from unit.gateway.fakes import VERSION, World

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ONE = "/catalog/datasets/people"

GETS: list[tuple[str, str, Any]] = [
    ("/catalog/datasets", "list", c.ListRequest()),
    (
        "/catalog/datasets?q=a&tag=t&owner=o&include_dropped=true&limit=5&cursor=x",
        "list",
        c.ListRequest("a", "t", "o", True, 5, "x"),
    ),
    (ONE, "get", c.GetRequest("people")),
    (ONE + "?as_of=812", "get", c.GetRequest("people", c.AsOf(version=812))),
    (ONE + "?as_of=2026-11-01T12:00:00Z", "get", c.GetRequest("people", c.AsOf(time=NOON))),
    (ONE + "?as_of=2026-11-01T13:00:00+01:00", "get", c.GetRequest("people", c.AsOf(time=NOON))),
    (ONE + "?include_dropped=1", "get", c.GetRequest("people", c.AsOf(), True)),
    (ONE + "/schema", "get", c.GetRequest("people")),
    (ONE + "/lineage?as_of=3", "get", c.GetRequest("people", c.AsOf(3))),
    (ONE + "/versions?limit=7&cursor=x", "versions", c.PageRequest("people", c.AsOf(), 7, "x")),
    (ONE + "/history", "versions", c.PageRequest("people", c.AsOf(), 100)),
    (ONE + "/files?as_of=3", "files", c.PageRequest("people", c.AsOf(3), 100)),
]


@pytest.mark.parametrize(("path", "method", "expected"), GETS)
async def test_reading_the_catalog(path: str, method: str, expected: object) -> None:
    world = World()
    async with world.client("read") as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert world.catalog.last(method)[1] == expected
    assert answer.headers["lakehouse-version"] == str(VERSION)


async def test_a_reader_may_ask_for_at_least_a_version() -> None:
    world = World()
    async with world.client() as client:
        await client.get(ONE + "?as_of=900", headers={"Lakehouse-Min-Version": "800"})
        assert world.catalog.last("get")[1].as_of == c.AsOf(900, None, 800)
        headers = {"Lakehouse-Min-Version": "800"}
        await client.post("/query/sql", json={"sql": "select 1"}, headers=headers)
        assert world.query.last("run")[1].as_of == c.AsOf(None, None, 800)


async def test_shapes_of_the_catalog() -> None:
    async with World().client() as client:
        one = (await client.get(ONE)).json()
        page = (await client.get("/catalog/datasets")).json()
        versions = (await client.get(ONE + "/versions")).json()
        history = (await client.get(ONE + "/history")).json()
        schema = (await client.get(ONE + "/schema")).json()
        files = (await client.get(ONE + "/files")).json()
    assert (one["name"], one["version"], one["store_version"]) == ("people", 800, 812)
    assert one["card"]["owner"] == "crm"
    assert one["created_at"] == "2026-11-21T09:30:00Z"
    assert one["schema"][0] == {"id": 1, "name": "id", "type": "string"}
    assert (page["datasets"], page["next"], page["version"]) == ([one], "more", 812)
    assert versions["versions"][0]["operation"] == "create"
    assert versions["next"] is None
    assert "3 rows and 1 files added" in history["history"][0]["summary"]
    assert schema["columns"] == one["schema"]
    assert files["files"][0]["key"] == "datasets/a"


async def test_registering() -> None:
    world = World()
    body = {
        "name": "orders",
        "objects": [{"key": "a/b.parquet", "copy": True}, {"key": "c", "bucket": "b2"}],
        "card": {"owner": "o", "description": "d", "lineage": {"source_system": "shop"}},
        "columns": [{"id": 1, "name": "id", "type": "int64"}],
        "primary_key": ["id"],
        "fingerprint": "fp1:00",
    }
    async with world.client("write") as client:
        answer = await client.post("/catalog/datasets", json=body)
    assert answer.status_code == 201
    assert answer.json()["created"] is True
    assert world.catalog.last("register")[1] == c.RegisterRequest(
        name="orders",
        objects=(c.ForeignObject("a/b.parquet", copy=True), c.ForeignObject("c", "b2")),
        card=Card("o", "d", Sensitivity.INTERNAL, (), Lineage("shop")),
        fingerprint="fp1:00",
        columns=(Column(1, "id", "int64"),),
        primary_key=("id",),
    )


async def test_changing_a_card_and_renaming() -> None:
    world = World()
    async with world.client("write") as client:
        await client.patch(ONE, json={"owner": "o", "tags": [], "expected_version": 3})
        renamed = await client.patch(ONE, json={"name": "folk"})
        both = await client.patch(ONE, json={"name": "folk", "owner": "o"})
        neither = await client.patch(ONE, json={"expected_version": 3})
    assert world.catalog.last("update_card")[1] == c.UpdateCardRequest(
        "people", owner="o", tags=(), expected_version=3
    )
    assert world.catalog.last("rename")[1] == c.RenameRequest("people", "folk")
    assert renamed.json()["name"] == "folk"
    assert (both.status_code, neither.status_code) == (400, 400)
    assert "two requests" in both.json()["hint"]


async def test_dropping_and_restoring() -> None:
    world = World()
    async with world.client("write") as client:
        dropped = await client.delete(ONE + "?purge=true&expected_version=800")
        await client.post(ONE + "/restore")
        assert world.catalog.last("restore")[1] == c.RestoreRequest("people")
        await client.post(ONE + "/restore", json={"name": "folk"})
    assert dropped.json() == {"dataset": "people", "purged": True, "version": 812}
    assert world.catalog.last("drop")[1] == c.DropRequest("people", True, 800)
    assert world.catalog.last("restore")[1] == c.RestoreRequest("people", "folk")


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/catalog/dedupe?dry_run=true", "dedupe", c.PlanRequest(True)),
        ("/catalog/dedupe?plan=h", "dedupe", c.PlanRequest(False, "h")),
        ("/catalog/fsck", "fsck", c.FsckRequest()),
        ("/catalog/fsck?dry_run=false&deep=true", "fsck", c.FsckRequest(False, True)),
        ("/catalog/collect?dry_run=true", "collect", c.PlanRequest(True)),
    ],
)
async def test_operators_errands(path: str, method: str, expected: object) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.post(path)
    assert answer.status_code == 200
    assert world.catalog.last(method)[1] == expected
    assert answer.json()["plan"] == "h"


async def test_importing() -> None:
    world = World()
    row = {"name": "p", "keys": ["k"], "row_count": None, "updated_at": "2026-11-01T12:00:00Z"}
    async with world.client() as client:
        answer = await client.post("/catalog/import", json={"datasets": [row, row]})
    assert answer.json()["imported"] == 2
    expected = c.ImportedDataset("p", ("k",), None, NOON)
    assert world.catalog.last("import_datasets")[1] == c.ImportRequest((expected, expected))


async def test_buckets_and_tokens() -> None:
    world = World()
    async with world.client() as client:
        buckets = (await client.get("/storage/buckets")).json()
        probe = (await client.post("/storage/buckets/primary/probe")).json()
        body = {"name": "export", "scopes": ["read", "write"], "expires_seconds": 60}
        made = await client.post("/tokens", json=body)
        listed = (await client.get("/tokens")).json()
        await client.delete("/tokens/T1")
    assert buckets["buckets"][0]["name"] == "primary"
    assert probe["passed"] is True
    assert world.storage.last("probe")[1] == ProbeRequest("primary")
    assert (made.status_code, made.json()["token"]) == (201, "lh_T1.secret")
    assert world.tokens.last("create")[1] == CreateTokenRequest(
        "export", (Scope.READ, Scope.WRITE), 60
    )
    assert listed["tokens"][0]["id"] == "T1"
    assert "token" not in listed["tokens"][0]
    assert world.tokens.last("revoke")[1] == RevokeTokenRequest("T1")


async def test_an_ingest_with_every_option() -> None:
    world = World()
    path = (
        '/ingest/datasets/people?mode=append&key=id&key="a,b"&delimiter=;&quote=\'&encoding=latin-1'
        "&header=false&null_values=N/A,-&null_values=&schema=id:string,price:decimal(10,2)"
        "&nested=json&force=true&dry_run=true&owner=o&description=d&sensitivity=restricted"
        "&tags=x,y&source_system=crm&freshness_sla_seconds=60&format=csv"
    )
    world.ingest.sample = '[{"id":"007"}]'
    async with world.client("write") as client:
        answer = await client.post(path, content=b"1;2\n", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["sample"] == [{"id": "007"}]
    assert world.ingest.last("ingest")[1] == i.IngestRequest(
        dataset="people",
        mode=i.IngestMode.APPEND,
        key=("id", "a,b"),
        options=i.IngestOptions(
            format=i.SourceFormat.CSV,
            compression="gzip",
            delimiter=";",
            quote="'",
            encoding="latin-1",
            header=False,
            null_values=("N/A", "-", ""),
            columns=(
                i.ColumnOverride("id", "string"),
                i.ColumnOverride("price", "decimal(10,2)"),
            ),
            nested=i.NestedAs.JSON,
            force=True,
        ),
        card=i.CardHints("o", "d", "restricted", ("x", "y"), "crm", 60),
        dry_run=True,
    )


async def test_an_ingest_as_curl_sends_it() -> None:
    world = World()
    world.ingest.created = False
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with world.client("write") as client:
        answer = await client.post("/ingest/datasets/p", content=b"a=1&b", headers=headers)
    assert answer.status_code == 200
    assert world.ingest.received == [b"a=1&b"]
    assert world.ingest.last("ingest")[1].options == i.IngestOptions()


async def test_an_ingest_of_an_object() -> None:
    world = World()
    async with world.client("write") as client:
        await client.post("/ingest/datasets/p?object=b2/inbox/x.csv")
        wrong = await client.post("/ingest/datasets/p?object=nokey")
    asked = world.ingest.last("ingest")[1]
    assert (asked.object_bucket, asked.object_key) == ("b2", "inbox/x.csv")
    assert world.ingest.received == []
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/csv; charset=latin-1"}, 201),
        ({"Content-Type": "application/pdf"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip, gzip"}, 415),
    ],
)
async def test_media_types_of_files(headers: dict[str, str], status: int) -> None:
    world = World()
    async with world.client("write") as client:
        answer = await client.post("/ingest/datasets/p", content=b"a\n", headers=headers)
    assert answer.status_code == status
    if status == 201:
        options = world.ingest.last("ingest")[1].options
        assert (options.content_type, options.encoding) == ("text/csv", "latin-1")


async def test_a_file_larger_than_the_limit_is_refused_while_it_streams() -> None:
    world = World(GatewaySettings(upload_bytes_max=1000))
    async with world.client("write") as client:
        stated = await client.post("/ingest/datasets/p", content=b"x" * 1001)
        assert world.ingest.calls == []

        async def unstated() -> Any:
            for _ in range(11):
                yield b"x" * 100

        counted = await client.post("/ingest/datasets/p", content=unstated())
    assert (stated.status_code, counted.status_code) == (413, 413)
    assert counted.json()["bytes_max"] == 1000
    assert world.ingest.received == []


async def test_sql_with_every_option() -> None:
    world = World()
    body = {
        "sql": "select $a",
        "params": {"a": [1, 2**70, "ä", None]},
        "engine": "duckdb",
        "as_of": {"people": 812, "orders": "2026-11-01T12:00:00Z"},
        "limits": {"timeout_seconds": 1.5, "rows_max": 10, "bytes_max": 9, "memory_bytes_max": 8},
    }
    async with world.client("read") as client:
        answer = await client.post("/query/sql", json=body, headers={"Accept": "text/csv"})
    assert answer.headers["lakehouse-version"] == str(VERSION)
    assert answer.headers["lakehouse-query-id"] == "Q1"
    assert answer.headers["content-type"].startswith("text/csv")
    assert world.query.last("run")[1] == q.QueryRequest(
        sql="select $a",
        params_json='{"a": [1, 1180591620717411303424, "\\u00e4", null]}',
        engine=q.Engine.DUCKDB,
        pins=(c.Pin("people", c.AsOf(812)), c.Pin("orders", c.AsOf(time=NOON))),
        limits=q.QueryLimits(1.5, 10, 9, 8),
        format=q.ResultFormat.CSV,
    )


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [(812, c.AsOf(812)), ("812", c.AsOf(812)), ("2026-11-01T12:00:00Z", c.AsOf(time=NOON))],
)
async def test_sql_as_of(as_of: object, expected: c.AsOf) -> None:
    world = World()
    async with world.client() as client:
        await client.post("/query/sql", json={"sql": "select 1", "as_of": as_of})
    assert world.query.last("run")[1].as_of == expected


@pytest.mark.parametrize("media_type", ["text/plain", "application/sql; charset=utf-8"])
async def test_sql_as_text(media_type: str) -> None:
    world = World()
    headers = {"Content-Type": media_type}
    async with world.client() as client:
        await client.post("/query/sql", content="select 'ä'".encode(), headers=headers)
        assert world.query.last("run")[1] == q.QueryRequest(
            "select 'ä'", format=q.ResultFormat.JSON
        )
        broken = await client.post("/query/sql", content=b"\xff", headers=headers)
    assert broken.status_code == 400


async def test_running_and_cancelling() -> None:
    world = World()
    async with world.client("read") as client:
        assert (await client.get("/query")).json()["queries"][0]["query_id"] == "Q1"
        assert (await client.delete("/query/Q1")).json() == {"query_id": "Q1", "cancelled": True}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"sql": 1}',
        b'{"sql": "x", "extra": 1}',
        b'{"sql": "x", "engine": "spark"}',
        b'{"sql": "x", "as_of": -1}',
        b'{"sql": "x", "as_of": "yesterday"}',
        b'{"sql": "x", "as_of": 1.5}',
        b'{"sql": "x", "as_of": {"p": []}}',
        b'{"sql": "x", "params": [NaN]}',
        b'{"sql": "x", "params": 7}',
        b'{"sql": "x", "limits": {"rows_max": 0}}',
        b'{"sql": "x", "limits": {"timeout_seconds": 1e999}}',
        b'{"sql": "\\ud800"}',
        b'{"sql": "\xff"}',
        b'{"sql": "x", "params": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
async def test_a_body_that_is_no_query_is_refused_with_reasons(body: bytes) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.post("/query/sql", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["kind"] == "invalid"
    assert len(answer.content) < 4000
    assert world.query.calls == []


async def test_a_json_body_has_a_limit_and_a_media_type() -> None:
    async with World(GatewaySettings(json_bytes_max=1000)).client() as client:
        large = await client.post("/query/sql", json={"sql": "x" * 1000})
        typed = await client.post(
            "/query/sql", content=b"<sql/>", headers={"Content-Type": "application/xml"}
        )
        token = await client.post("/tokens", content=b"x", headers={"Content-Type": "text/csv"})
        refused = await client.post(
            "/query/sql", json={"sql": "select 1"}, headers={"Accept": "image/png"}
        )
    assert large.status_code == 413
    assert (typed.status_code, token.status_code) == (415, 415)
    assert refused.status_code == 406
    assert "text/csv" in refused.json()["offered"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "include_dropped=perhaps", "cursor=" + "x" * 4001],
)
async def test_query_parameters_are_checked(query: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get(f"/catalog/datasets?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["where"].startswith("query.")
    assert world.catalog.calls == []
