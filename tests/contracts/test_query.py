"""The query contract, direct and over gRPC, on both engines."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from contracts.world import OPERATOR, READER, WRITER, World, caller, world
from lakehouse.contracts.catalog import (
    AsOf,
    CommitRequest,
    ForeignObject,
    Pin,
    RegisterRequest,
    SessionRequest,
)
from lakehouse.contracts.query import (
    CancelRequest,
    Engine,
    QueryLimits,
    QueryRequest,
    QueryStream,
    ResultFormat,
    RunningRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import AddFiles, CreateDataset
from lakehouse.model.dataset import Card, DataFile, stats_key
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.queryd.service import Query
from lakehouse.queryd.settings import QuerySettings
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.stats import file_stats
from lakehouse.table.statsfile import encode_stats
from lakehouse.table.types import arrow_schema, schema_from_arrow

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENGINES = [Engine.DATAFUSION, Engine.DUCKDB]
PEOPLE = pa.table(
    {
        "id": pa.array(range(1, 101), pa.int64()),
        "name": pa.array([f"name {n % 7}" for n in range(100)], pa.string()),
        "score": pa.array([None if n % 10 == 0 else n / 4 for n in range(100)], pa.float64()),
    }
)
BIG = pa.table({"n": pa.array(range(200_000), pa.int64())})
SLOW = "select count(*) from big a, big b, big c where a.n + b.n + c.n = 7"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["direct", "wire"])
async def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """One store with data for all tests of this file: a query worker is a process."""
    folder = tmp_path_factory.mktemp("query")
    async with world(folder) as made:
        buckets = made.open_buckets()
        catalog = await made.open_catalog()
        settings = QuerySettings(cache_dir=f"{folder}/cache", spill_dir=f"{folder}/spill")
        query = Query(settings, catalog, buckets, made.clock, made.ids)
        await query.start()
        made.stack.push_async_callback(query.close)
        made.near["query"] = query
        await put_table(made, "people", PEOPLE)
        await put_table(made, "big", BIG)
        made.near["asked"] = await made.connect(str(request.param), "query")
        yield made


@pytest.fixture
def query(here: World) -> Any:
    return here.near["asked"]


async def put_table(here: World, name: str, table: pa.Table, dataset_id: str = "") -> int:
    """Commit ``table`` as a dataset, or as more rows of the one that is there."""
    schema = schema_from_arrow(table.schema)
    sink = io.BytesIO()
    pq.write_table(table.cast(arrow_schema(schema)), sink)
    data = sink.getvalue()
    catalog = here.near["catalog"]
    session = (await catalog.session(WRITER, SessionRequest("tests", "ingestd"))).session_id
    key = f"datasets/{session}/id-{name}/{here.ids.ulid()}.parquet"
    await here.buckets.get("primary").put(key, data)
    file = DataFile(key, len(data), table.num_rows, sha256(data).hexdigest())
    create = CreateDataset(f"id-{name}", name, fingerprint(schema.columns), schema, Card())
    changes = (*([] if dataset_id else [create]), AddFiles(f"id-{name}", (file,)))
    return int((await catalog.commit(WRITER, CommitRequest(changes))).version)


async def collected(stream: QueryStream) -> bytes:
    return b"".join([chunk async for chunk in stream.chunks])


async def rows(query: Any, sql: str, ctx: Context = READER, **fields: Any) -> list[dict[str, Any]]:
    stream = await query.run(ctx, QueryRequest(sql, **fields))
    table = ipc.open_stream(await collected(stream)).read_all()
    return list(table.to_pylist())


async def refused(call: Any, kind: ErrorKind) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind, (caught.value, caught.value.fields)
    return caught.value


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_header_comes_before_the_rows(query: Any, engine: Engine) -> None:
    sql = "select id, name, score from people order by id"
    stream = await query.run(READER, QueryRequest(sql, engine=engine))
    header = stream.header
    assert header.query_id
    assert (header.engine, header.format) == (engine, ResultFormat.ARROW)
    assert [(column.name, column.type) for column in header.columns] == [
        ("id", "int64"),
        ("name", "string"),
        ("score", "float64"),
    ]
    assert [pin.dataset for pin in header.versions] == ["people"]
    assert header.version >= header.versions[0].version > 0
    table = ipc.open_stream(await collected(stream)).read_all()
    assert table.to_pylist() == PEOPLE.to_pylist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("format_", ResultFormat)
async def test_every_format_says_the_same(
    query: Any, engine: Engine, format_: ResultFormat
) -> None:
    sql = "select id, name from people where id <= 3 order by id"
    stream = await query.run(READER, QueryRequest(sql, engine=engine, format=format_))
    data = await collected(stream)
    assert stream.header.format is format_
    if format_ is ResultFormat.JSON:
        whole = json.loads(data)
        assert whole["columns"] == ["id", "name"]
        found = whole["rows"]
    elif format_ is ResultFormat.NDJSON:
        found = [list(json.loads(line).values()) for line in data.splitlines()]
    elif format_ is ResultFormat.CSV:
        head, *lines = csv.reader(io.StringIO(data.decode()))
        assert head == ["id", "name"]
        found = [[int(id_), name] for id_, name in lines]
    else:
        table = (
            pq.read_table(io.BytesIO(data))
            if format_ is ResultFormat.PARQUET
            else ipc.open_stream(data).read_all()
        )
        found = [list(row.values()) for row in table.to_pylist()]
    assert found == [[1, "name 0"], [2, "name 1"], [3, "name 2"]]


@pytest.mark.parametrize("engine", [*ENGINES, Engine.AUTO])
async def test_both_engines_mean_the_same(query: Any, engine: Engine) -> None:
    sql = """
        select name, count(*) as n, sum(score) as total, 7 / 2 as half
        from people group by name order by name limit 2
    """
    assert await rows(query, sql, engine=engine) == [
        {"name": "name 0", "n": 15, "total": 166.25, "half": 3},
        {"name": "name 1", "n": 15, "total": 175.0, "half": 3},
    ]


@pytest.mark.parametrize("engine", ENGINES)
async def test_parameters_are_values_never_text(query: Any, engine: Engine) -> None:
    sql = "select id from people where name = $1 and id < $2 order by id"
    found = await rows(query, sql, params_json='["name 1", 10]', engine=engine)
    assert found == [{"id": 2}, {"id": 9}]
    sql = "select count(*) as n from people where name = $who"
    evil = json.dumps({"who": "x' or 1 = 1 --"})
    assert await rows(query, sql, params_json=evil, engine=engine) == [{"n": 0}]


async def test_an_empty_result_has_its_columns(query: Any) -> None:
    stream = await query.run(READER, QueryRequest("select id, name from people where id < 0"))
    assert [column.name for column in stream.header.columns] == ["id", "name"]
    table = ipc.open_stream(await collected(stream)).read_all()
    assert (table.num_rows, table.column_names) == (0, ["id", "name"])


async def test_the_past_stays_readable(query: Any, here: World) -> None:
    name = f"grown_{here.ids.ulid().lower()}"
    first = await put_table(here, name, PEOPLE)
    second = await put_table(here, name, PEOPLE, dataset_id="yes")
    sql = f"select count(*) as n from {name}"
    assert await rows(query, sql) == [{"n": 200}]
    assert await rows(query, sql, as_of=AsOf(version=first)) == [{"n": 100}]
    for spelled in (name, name.upper()):
        pins = (Pin(spelled, AsOf(version=first)),)
        assert await rows(query, sql, pins=pins) == [{"n": 100}]
    stream = await query.run(READER, QueryRequest(sql, as_of=AsOf(version=second)))
    assert [pin.version for pin in stream.header.versions] == [second]
    await collected(stream)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("selec 1", ErrorKind.INVALID),
        ("select nothing from people", ErrorKind.INVALID),
        ("select 1 / 0 as x", ErrorKind.INVALID),
        ("select * from nobody", ErrorKind.NOT_FOUND),
        ("drop table people", ErrorKind.FORBIDDEN),
        ("select 1; select 2", ErrorKind.FORBIDDEN),
        ("copy people to '/tmp/x.csv'", ErrorKind.FORBIDDEN),
        ("select * from read_csv('/etc/passwd')", ErrorKind.FORBIDDEN),
    ],
)
async def test_what_cannot_be_run_is_refused(
    query: Any, engine: Engine, sql: str, kind: ErrorKind
) -> None:
    async def whole() -> None:
        await collected(await query.run(READER, QueryRequest(sql, engine=engine)))

    error = await refused(whole(), kind)
    assert "Traceback" not in f"{error.message}{error.fields}"


async def test_a_query_over_its_own_limit_is_a_422(query: Any) -> None:
    async def whole(limits: QueryLimits) -> None:
        request = QueryRequest("select n from big order by n", limits=limits)
        await collected(await query.run(READER, request))

    error = await refused(whole(QueryLimits(rows_max=10)), ErrorKind.EXHAUSTED)
    assert error.http_status == 422
    await whole(QueryLimits(rows_max=200_000))


async def test_a_query_over_its_own_time_is_a_422(query: Any) -> None:
    async def whole() -> None:
        limits = QueryLimits(timeout_seconds=0.3)
        await collected(await query.run(READER, QueryRequest(SLOW, limits=limits)))

    error = await refused(whole(), ErrorKind.EXHAUSTED)
    assert error.http_status == 422


async def seen_running(query: Any, ctx: Context, count: int) -> Any:
    """The running queries, once there are ``count`` of them."""
    async with asyncio.timeout(10):
        while True:
            queries = (await query.running(ctx, RunningRequest())).queries
            if len(queries) == count:
                return queries
            await asyncio.sleep(0.02)


async def test_a_running_query_is_seen_and_can_be_cancelled(query: Any) -> None:
    task = asyncio.ensure_future(rows(query, SLOW))
    (running,) = await seen_running(query, READER, 1)
    assert (running.sql, running.actor) == (SLOW, "read")
    assert running.elapsed_ms >= 0
    assert not (await query.running(WRITER, RunningRequest())).queries, "it is another caller's"
    assert len((await query.running(OPERATOR, RunningRequest())).queries) == 1
    await refused(query.cancel(WRITER, CancelRequest(running.query_id)), ErrorKind.NOT_FOUND)
    result = await query.cancel(READER, CancelRequest(running.query_id))
    assert (result.query_id, result.cancelled) == (running.query_id, True)
    with pytest.raises(LakehouseError):
        await asyncio.wait_for(task, 10)
    await seen_running(query, OPERATOR, 0)
    await refused(query.cancel(READER, CancelRequest("nothing")), ErrorKind.NOT_FOUND)


async def test_a_result_that_nobody_reads_is_let_go(query: Any) -> None:
    sql = "select a.n as x, b.n as y from big a, big b"
    stream = await query.run(READER, QueryRequest(sql))
    await anext(stream.chunks)
    await seen_running(query, READER, 1)
    await stream.chunks.aclose()
    await seen_running(query, READER, 0)


async def test_a_caller_that_is_cancelled_lets_its_query_go(query: Any) -> None:
    task = asyncio.ensure_future(rows(query, SLOW))
    await seen_running(query, READER, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await seen_running(query, READER, 0)


async def test_a_deadline_ends_a_query(query: Any, here: World) -> None:
    # The test before may have cost a worker; this one is not about waiting for the next.
    await rows(query, "select 1 as x")
    ctx = caller(Scope.READ, deadline=here.clock.monotonic() + 0.5)
    await refused(rows(query, SLOW, ctx), ErrorKind.TIMEOUT)
    await seen_running(query, READER, 0)


async def test_a_large_result_arrives_whole(query: Any) -> None:
    sql = "select a.n as x, 'some text that takes room' as y from big a, people p where p.id <= 5"
    stream = await query.run(READER, QueryRequest(sql))
    size = 0
    reader = ipc.open_stream(await collected(stream))
    for batch in reader:
        size += batch.num_rows
    assert size == 1_000_000


async def test_exact_types_survive(query: Any) -> None:
    for engine in ENGINES:
        found = await rows(
            query,
            "select cast('1.10' as decimal(10, 2)) as d, date '2026-01-31' as day, 1.5 as f",
            engine=engine,
        )
        assert found[0]["d"] == Decimal("1.10")
        assert str(found[0]["day"]) == "2026-01-31"


async def test_reading_needs_a_scope(here: World) -> None:
    nobody = Context(Principal("x", ()), "request-1")
    await refused(rows(here.near["query"], "select 1 as x", nobody), ErrorKind.FORBIDDEN)


async def test_one_key_in_two_buckets_is_two_objects(here: World, query: Any) -> None:
    catalog = here.near["catalog"]
    for number, bucket in enumerate(("primary", "extra")):
        sink = io.BytesIO()
        pq.write_table(pa.table({"id": [1], "place": [bucket]}), sink)
        await here.buckets.get(bucket).put("inbox/same.parquet", sink.getvalue())
        card = Card(owner="anna", description="in a bucket of its own")
        objects = (ForeignObject("inbox/same.parquet", bucket),)
        await catalog.register(WRITER, RegisterRequest(f"same{number}", objects, card))
    sql = "select a.place as a, b.place as b from same0 a join same1 b on a.id = b.id"
    for engine in ENGINES:
        assert await rows(query, sql, engine=engine) == [{"a": "primary", "b": "extra"}]
    await here.buckets.get("extra").delete(["inbox/same.parquet"])


async def test_files_elsewhere_are_left_out_by_what_stands_beside_them(
    here: World, query: Any
) -> None:
    catalog, store, name = here.near["catalog"], here.buckets.get("extra"), f"far{here.ids.ulid()}"
    schema = schema_from_arrow(pa.schema({"id": pa.int64()}))
    session = (await catalog.session(WRITER, SessionRequest("tests", "ingestd"))).session_id
    files = []
    for number in range(4):
        sink = io.BytesIO()
        table = pa.table({"id": [10 * number, 10 * number + 9]})
        pq.write_table(table.cast(arrow_schema(schema)), sink)
        data, key = sink.getvalue(), f"datasets/{session}/id-{name}/{number}.parquet"
        beside = encode_stats(file_stats(table, schema))
        await store.put(key, data)
        await store.put(stats_key(key), beside)
        digests = (sha256(data).hexdigest(), sha256(beside).hexdigest())
        file = DataFile(key, len(data), 2, digests[0], "extra", stats_sha256=digests[1])
        files.append(file)
    create = CreateDataset(f"id-{name}", name, fingerprint(schema.columns), schema, Card())
    changes = (replace(create, bucket="extra"), AddFiles(f"id-{name}", tuple(files)))
    await catalog.commit(WRITER, CommitRequest(changes))

    def gets() -> int:
        return here.buckets.footprint("extra").requests.get("get", 0)

    before = gets()
    assert await rows(query, f"select id from {name} where id = 19") == [{"id": 19}]
    assert gets() - before == len(files) + 1
    assert await rows(query, f"select id from {name} where id = 1000") == []
    assert gets() - before == len(files) + 1
    assert await rows(query, f"select count(*) as n from {name}") == [{"n": 8}]
    assert gets() - before == 2 * len(files)
