"""Batches of row changes against a real catalog: what they do, what they cost, what they refuse."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.contracts.query import QueryHeader, QueryRequest, QueryStream, ResultFormat
from lakehouse.contracts.rows import ChangeRowsReport, ChangeRowsRequest, RowChange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.changes import PutDocument
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile
from lakehouse.model.identity import Context
from lakehouse.objectstore.buckets import BucketSettings
from lakehouse.table.events import EVENT_COLUMNS
from lakehouse.table.merge import Layer, tombstones, visible
from support_ingest import CTX, Lake

PEOPLE = b"id,name,phone\n1,ada,111\n2,bob,222\n3,cy,333\n"


class People:
    """A keyed dataset ``people`` and short ways to change and to read it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.rows = Rows(lake.ingest.parts)

    async def change(
        self, body: Any, change: str = "upsert", ctx: Context = CTX, **fields: Any
    ) -> ChangeRowsReport:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        options = fields.pop("options", IngestOptions(format=SourceFormat.JSON))
        request = ChangeRowsRequest("people", RowChange(change), data, options, **fields)
        return await self.rows.change(ctx, request)

    async def refused(self, body: Any, change: str = "upsert", **fields: Any) -> LakehouseError:
        before = await self.files()
        with pytest.raises(LakehouseError) as caught:
            await self.change(body, change, **fields)
        assert await self.files() == before, "a refused batch left something behind"
        return caught.value

    async def files(self) -> tuple[DataFile, ...]:
        return (await self.lake.catalog.files(CTX, c.PageRequest("people"))).files

    async def read(self, file: DataFile) -> pa.Table:
        data = await self.lake.buckets.get(file.bucket).get(file.key)
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()

    async def now(self) -> dict[Any, dict[str, Any]]:
        """What can be seen, merged here by the rule itself: by id."""
        files = await self.files()
        keys = [Layer(f.seq, await self.read(f)) for f in files if f.content == KEYS]
        tombs = tombstones(keys, ("id",)) if keys else None
        seen: list[dict[str, Any]] = []
        for file in files:
            if file.content == ROWS:
                layer = Layer(file.seq, await self.read(file))
                table = layer.table if tombs is None else visible(layer, tombs, ("id",))
                seen += table.to_pylist()
        assert len({row["id"] for row in seen}) == len(seen)
        return {row["id"]: row for row in seen}

    async def events(self) -> list[dict[str, Any]]:
        tables = [await self.read(f) for f in await self.files() if f.content == EVENTS]
        rows = [row for table in tables for row in table.to_pylist()]
        return sorted(rows, key=lambda row: (row["base_version"], row["ordinal"]))


@pytest.fixture
async def people(lake: Lake) -> People:
    await lake.put(PEOPLE, "people", key=("id",))
    return People(lake)


async def test_an_upsert_inserts_updates_and_leaves_alone(people: People) -> None:
    batch = [
        {"id": 2, "name": "bob", "phone": 999},
        {"id": 3, "name": "cy", "phone": 333},
        {"phone": 444, "id": 4, "name": "di"},
    ]
    report = await people.change(batch, reason="moved")
    assert (report.inserted, report.updated, report.unchanged) == (1, 1, 1)
    now = await people.now()
    assert now[2] == {"id": 2, "name": "bob", "phone": 999}
    assert now[4] == {"id": 4, "name": "di", "phone": 444}
    assert sorted(now) == [1, 2, 3, 4]
    insert, update = await people.events()
    assert (insert["kind"], insert["entities"]) == ("insert", ["[4]"])
    told = {name: update[name] for name in ("kind", "entity", "field", "old", "new", "reason")}
    assert told == {
        "kind": "update",
        "entity": "[2]",
        "field": "phone",
        "old": "222",
        "new": "999",
        "reason": "moved",
    }
    dataset = (await people.lake.catalog.get(CTX, c.GetRequest("people"))).dataset
    assert (dataset.row_count, dataset.rows_version) == (4, report.version)


async def test_no_value_of_the_past_is_kept_but_in_its_object(people: People) -> None:
    """Bounds of events are in the catalog, from where a value could not be taken away."""
    await people.change([{"id": 2, "name": "canary-1", "phone": 1}])
    await people.change([{"id": 2, "name": "x", "phone": 1}])
    by_name = {column.name: column.id for column in EVENT_COLUMNS.columns}
    for file in await people.files():
        if file.content == EVENTS:
            known = {one.column_id: one for one in file.stats}
            assert not {by_name["old"], by_name["new"]} & known.keys()
            assert known[by_name["entity"]].minimum == "[2]"
            assert "canary" not in str(file)


async def test_a_batch_that_changes_nothing_commits_nothing(people: People) -> None:
    before = await people.files()
    report = await people.change([{"id": 1, "name": "ada", "phone": 111}])
    assert (report.no_op, report.unchanged) == (True, 1)
    gone = await people.change([77], "delete")
    assert (gone.no_op, gone.missing) == (True, 1)
    assert (await people.change([])).no_op
    assert await people.files() == before


@pytest.mark.parametrize(
    ("change", "body", "puts"),
    [
        ("upsert", [{"id": 1, "name": "x"}, {"id": 9, "name": "y"}], 4),
        ("upsert", [{"id": 9, "name": "y"}], 3),
        ("delete", [1], 3),
        ("patch", [{"key": 1, "set": {"name": "x"}}], 4),
    ],
)
async def test_what_a_change_costs(people: People, change: str, body: Any, puts: int) -> None:
    await people.change([{"id": 1, "name": "warm", "phone": 1}])
    await people.change([{"id": 2, "name": "warm", "phone": 1}])
    before = dict(people.lake.buckets.footprint("primary").requests)
    await people.change(body, change)
    after = people.lake.buckets.footprint("primary").requests
    spent = {op: after[op] - before.get(op, 0) for op in after if after[op] != before.get(op, 0)}
    # What the changes before had put is read once, then held.
    spent.pop("get", None)
    assert spent == {"put": puts, "list": 1}


async def test_a_patch_sets_fields_and_keeps_the_others(people: People) -> None:
    body = [
        {"key": 1, "set": {"phone": 5}, "expect": {"phone": 111, "name": "ada"}},
        {"key": [2], "set": {"NAME": None}},
        {"key": {"id": 3}, "set": {"name": "cy"}},
    ]
    report = await people.change(body, "patch")
    assert (report.updated, report.unchanged, report.inserted) == (2, 1, 0)
    now = await people.now()
    assert now[1] == {"id": 1, "name": "ada", "phone": 5}
    assert now[2] == {"id": 2, "name": None, "phone": 222}


async def test_an_expectation_that_fails_names_what_is_there(people: People) -> None:
    body = [
        {"key": 1, "set": {"phone": 5}},
        {"key": 2, "set": {"phone": 5}, "expect": {"phone": 1, "name": "bob"}},
    ]
    error = await people.refused(body, "patch")
    assert error.kind is ErrorKind.CONFLICT
    told = {name: error.fields[name] for name in ("row", "key", "field", "expected", "actual")}
    assert told == {"row": 2, "key": "[2]", "field": "phone", "expected": "1", "actual": "222"}


async def test_a_patch_of_rows_that_are_not_there(people: People) -> None:
    body = [{"key": 1, "set": {"phone": 5}}, {"key": 8, "set": {"phone": 5}}]
    error = await people.refused(body, "patch")
    assert error.kind is ErrorKind.NOT_FOUND
    assert error.fields["rows"] == [{"row": 2, "key": "[8]"}]


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b'[1, [2], {"id": 3}, 99]', SourceFormat.JSON),
        (b'1\n[2]\n{"id": 3}\n99', SourceFormat.NDJSON),
        (b"id\n1\n2\n3\n99\n", SourceFormat.CSV),
    ],
)
async def test_keys_in_all_their_forms(people: People, body: bytes, form: SourceFormat) -> None:
    report = await people.change(body, "delete", options=IngestOptions(format=form))
    assert (report.deleted, report.missing) == (3, 1)
    assert await people.now() == {}
    kinds = {(event["kind"], event["field"]) for event in await people.events()}
    assert kinds == {("delete", "id"), ("delete", "name"), ("delete", "phone")}


async def test_a_key_alone_is_json_whatever_curl_calls_it(people: People) -> None:
    form = IngestOptions(content_type="application/x-www-form-urlencoded")
    assert (await people.change(b"2", "delete", options=form)).deleted == 1
    assert (await people.change(b"[3]", "delete", options=form)).deleted == 1
    csv = IngestOptions(content_type="text/csv; charset=utf-8")
    assert (await people.change(b"id\n1\n", "delete", options=csv)).deleted == 1


async def test_a_deleted_row_comes_back_as_an_insert(people: People) -> None:
    await people.change([2], "delete")
    report = await people.change([{"id": 2, "name": "new"}])
    assert (report.inserted, report.updated) == (1, 0)
    again = await people.change([{"id": 2, "name": "newer"}])
    assert (again.inserted, again.updated) == (0, 1)
    assert (await people.now())[2] == {"id": 2, "name": "newer", "phone": None}


def _arrow(table: pa.Table, is_file: bool) -> bytes:
    sink = io.BytesIO()
    make = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


async def test_arrow_and_parquet_bring_their_types(people: People) -> None:
    table = pa.table({"id": pa.array([1, 7], pa.int32()), "phone": pa.array([8, 9], pa.uint8())})
    for is_file in (False, True):
        report = await people.change(_arrow(table, is_file), options=IngestOptions())
    assert report.unchanged == 2
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [1], "name": ["p"]}), sink)
    await people.change(sink.getvalue(), options=IngestOptions())
    assert (await people.now())[1] == {"id": 1, "name": "p", "phone": None}


async def test_each_bad_row_is_named_and_none_applied(people: People) -> None:
    body = [
        {"id": 1, "name": "fine", "phone": 1},
        {"id": 2, "phone": "twelve"},
        {"id": None, "name": "x"},
        "no object",
        {"id": "y", "phone": 2.5},
    ]
    error = await people.refused(body)
    assert error.kind is ErrorKind.INVALID
    rows = error.fields["rows"]
    assert isinstance(rows, list)
    found = {(row["row"], row["column"], row["value"]) for row in rows if isinstance(row, dict)}
    assert found == {
        (2, "phone", "twelve"),
        (4, "", '"no object"'),
        (5, "id", "y"),
        (5, "phone", "2.5"),
    }
    error = await people.refused([{"id": 1}, {"id": None}, {"name": "q"}])
    assert [row["row"] for row in error.fields["rows"]] == [2, 3]  # type: ignore[union-attr]


async def test_a_key_twice_in_a_batch(people: People) -> None:
    error = await people.refused([{"id": 1}, {"id": 2}, {"id": 1, "name": "b"}])
    assert error.kind is ErrorKind.INVALID
    assert error.fields["rows"] == [
        {"row": 3, "column": "id", "value": "[1]", "problem": "the key is in row 1 too"}
    ]
    assert (await people.refused([1, 2, 1], "delete")).kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    ("body", "change", "kind"),
    [
        ([{"id": 1, "mail": "x"}], "upsert", ErrorKind.CONFLICT),
        ([{"name": "x"}], "upsert", ErrorKind.INVALID),
        ([{"key": 1, "set": {"mail": 2}}], "patch", ErrorKind.CONFLICT),
        ([{"key": 1, "set": {"id": 2}}], "patch", ErrorKind.INVALID),
        ([{"key": 1}], "patch", ErrorKind.INVALID),
        ([{"key": [1, 2], "set": {}}], "patch", ErrorKind.INVALID),
        ([{"key": "x", "set": {"name": "y"}}], "patch", ErrorKind.INVALID),
        ([{"id": 1, "name": "x"}], "delete", ErrorKind.INVALID),
        (b"[1, 2", "delete", ErrorKind.INVALID),
        (b"", "upsert", ErrorKind.INVALID),
        (b"  ", "delete", ErrorKind.INVALID),
    ],
)
async def test_what_is_refused(people: People, body: Any, change: str, kind: ErrorKind) -> None:
    assert (await people.refused(body, change)).kind is kind


async def test_a_dataset_without_a_key_says_what_to_do(lake: Lake) -> None:
    await lake.put(PEOPLE, "people")
    error = await People(lake).refused([{"id": 1}])
    assert (error.kind, "key" in str(error.fields["hint"])) == (ErrorKind.INVALID, True)


async def test_a_dry_run_says_and_does_nothing(people: People) -> None:
    before = await people.files()
    report = await people.change([{"id": 1, "name": "z"}, {"id": 8}], dry_run=True)
    assert (report.dry_run, report.inserted, report.updated) == (True, 1, 1)
    assert await people.files() == before


async def test_an_expected_version(people: People) -> None:
    first = await people.change([{"id": 1, "name": "z"}])
    error = await people.refused([{"id": 2}], expected_version=first.version - 1)
    assert (error.kind, error.fields["version"]) == (ErrorKind.CONFLICT, first.version)
    await people.change([{"id": 2}], expected_version=first.version)


async def test_a_repeated_call_gets_its_first_answer(people: People) -> None:
    ctx = replace(CTX, idempotency_key="k-1")
    first = await people.change([{"id": 1, "name": "z"}], ctx=ctx)
    await people.change([{"id": 1, "name": "other"}])
    assert await people.change([{"id": 1, "name": "z"}], ctx=ctx) == first
    assert (await people.now())[1]["name"] == "other"
    error = await people.refused([{"id": 1, "name": "q"}], ctx=ctx)
    assert error.http_status == 422


async def test_writers_of_one_dataset_lose_nothing(people: People) -> None:
    changes = [
        people.change([{"id": at, "name": f"n{at}"}, {"id": 1, "phone": at}]) for at in range(5, 17)
    ]
    reports = await asyncio.gather(*changes)
    assert len({report.version for report in reports}) == 12
    now = await people.now()
    assert [now[at]["name"] for at in range(5, 17)] == [f"n{at}" for at in range(5, 17)]
    last = max(zip([report.version for report in reports], range(5, 17), strict=True))
    assert now[1]["phone"] == last[1]


async def test_two_processes_race_and_both_are_applied(people: People) -> None:
    """Without a common turn, the commit alone decides who reads again."""
    other = People(people.lake)
    parts = people.lake.ingest.parts
    twin = type(parts)(parts.settings, parts.catalog, parts.buckets, parts.clock, parts.ids)
    await twin.start(people.lake.ingest._spool.new_folder())
    other.rows = Rows(twin)
    try:
        steps = [
            who.change([{"id": 50 + at, "name": "x"}, {"id": 1, "phone": at}])
            for at, who in enumerate([people, other] * 4)
        ]
        await asyncio.gather(*steps)
    finally:
        await twin.close()
    assert set(range(50, 58)) <= (await people.now()).keys()
    assert [event["field"] for event in await people.events() if event["kind"] == "update"] == [
        "name",
        *["phone"] * 8,
    ]


async def test_composite_keys(lake: Lake) -> None:
    data = b"day,shop,n\n2026-01-01,a,1\n2026-01-01,b,2\n"
    await lake.put(data, "people", key=("day", "shop"))
    people = People(lake)
    report = await people.change([{"key": ["2026-01-01", "a"], "set": {"n": 7}}], "patch")
    assert report.updated == 1
    report = await people.change(["2026-01-01", "b"], "delete")
    assert report.deleted == 1
    entities = {event["entity"] for event in await people.events()}
    assert entities == {'["2026-01-01","a"]', '["2026-01-01","b"]'}


class FixedQuery:
    """A query service that answers with given ids, and remembers what it was asked."""

    def __init__(self, ids: list[Any]) -> None:
        self.ids = ids
        self.asked: list[QueryRequest] = []

    async def run(self, ctx: Context, request: QueryRequest) -> QueryStream:
        self.asked.append(request)
        header = QueryHeader("q", request.engine, 1, (), (), ResultFormat.ARROW)

        async def chunks() -> AsyncIterator[bytes]:
            data = _arrow(pa.table({"id": pa.array(self.ids)}), False)
            yield data[:10]
            yield data[10:]

        return QueryStream(header, chunks())


async def test_a_predicate_chooses_keys_at_the_version_that_is_read(people: People) -> None:
    error = await people.refused(b"", "delete", where="id > 1")
    assert error.kind is ErrorKind.UNAVAILABLE
    query = FixedQuery([2, 3, 999])
    people.lake.ingest.parts.query = query  # type: ignore[assignment]
    report = await people.change(b"", "patch", where="id > 1 -- x", set_json='{"phone": 0}')
    assert report.updated == 2
    assert query.asked[0].as_of.version is not None
    assert query.asked[0].sql == 'SELECT "id" FROM "people" WHERE (\nid > 1 -- x\n)'
    report = await people.change(b"", "delete", where="id > 1")
    assert report.deleted == 2
    for wrong in ({"where": "true", "change": "upsert"}, {"where": "true", "change": "patch"}):
        assert (await people.refused(b"", **wrong)).kind is ErrorKind.INVALID


async def test_a_predicate_that_gives_no_keys_is_refused(people: People) -> None:
    people.lake.ingest.parts.query = FixedQuery(["x", "2"])  # type: ignore[assignment]
    union = "false) union all select name from others where (true"
    error = await people.refused(b"", "delete", where=union)
    assert (error.kind, error.fields["column"]) == (ErrorKind.INVALID, "id")


async def test_a_predicate_for_too_much_names_the_limit(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are too many, and few keys of rows that are too large."""
    monkeypatch.setattr("lakehouse.ingestd.rows.changing._LOOKED_UP", 2)
    await people.change([{"id": 3, "name": "x" * 10_000}])
    parts = people.lake.ingest.parts
    parts.query = FixedQuery([1, 2, 3])  # type: ignore[assignment]
    assert (await people.change(b"", "delete", where="true", dry_run=True)).deleted == 3
    parts.settings = replace(parts.settings, keyed_bytes_max=4_000)
    for ids in ([1, 2, 3], list(range(1000))):
        parts.query = FixedQuery(ids)  # type: ignore[assignment]
        error = await people.refused(b"", "delete", where="true")
        assert error.kind is ErrorKind.EXHAUSTED
        assert error.fields["limit"] == "ingest.keyed_bytes_max"


async def test_many_changes_ask_for_compaction(people: People) -> None:
    wanted: list[str] = []
    parts = people.lake.ingest.parts
    parts.compaction_wanted = wanted.append
    parts.settings = replace(parts.settings, compaction_files=3)
    for at in range(3):
        await people.change([{"id": 1, "phone": at}])
    assert wanted == ["people"]


async def test_what_is_told_of_rows_elsewhere_stays_with_them(lake: Lake) -> None:
    """Rows, keys and events of a dataset in another bucket: no value of theirs leaves it."""
    place = f"memory://rows-{id(lake)}"
    body = f'{{"name": "client_eu", "url": "{place}", "residency": "eu"}}'
    await lake.catalog.commit(CTX, c.CommitRequest((PutDocument("bucket", "client_eu", body),)))
    lake.buckets.add(BucketSettings("client_eu", place, residency="eu"))
    await lake.put(PEOPLE, "people", key=("id",), bucket="client_eu")
    people = People(lake)
    await people.change([{"id": 2, "name": "canary-1"}, {"id": 9, "name": "canary-2"}])
    await people.change([{"key": 9, "set": {"name": "canary-3"}}], "patch")
    assert (await people.now())[9]["name"] == "canary-3"
    assert {file.bucket for file in await people.files()} == {"client_eu"}
    primary = lake.buckets.get("primary")
    for meta in await primary.list(""):
        assert b"canary" not in await primary.get(meta.key), meta.key
