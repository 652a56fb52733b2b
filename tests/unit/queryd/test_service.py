"""The query service over real worker processes; most tests share one, for it takes a second."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from lakehouse.contracts.catalog import AsOf, Pin
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
from lakehouse.model.identity import Principal, Scope
from lakehouse.model.schema import Schema
from lakehouse.queryd.service import Query
from unit.queryd.fake_catalog import CTX, FakeCatalog, columns, make_query

ENGINES = (Engine.DUCKDB, Engine.DATAFUSION)
SLOW = {
    Engine.DUCKDB: "select length(repeat('a', 2000000000)) + count(*) from"
    " generate_series(1, 100000) a(n), generate_series(1, 100000) b(m) where n * m % 7 = 3",
    Engine.DATAFUSION: "select count(*) from generate_series(1, 1000000) a(n),"
    " generate_series(1, 1000000) b(m) where n * m % 7 = 3",
}
HUGE = "select n, repeat('x', 100) as s from generate_series(1, 3000000) g(n)"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> FakeCatalog:
    made = FakeCatalog(tmp_path_factory.mktemp("bucket"))
    made.put("people", pa.table({"ID": [1, 2, 3], "Name": ["Ann", "Bob", None]}))  # version 1
    made.put("people", pa.table({"ID": [4], "Name": ["Eve"]}), append=True)  # version 2
    made.put("other", pa.table({"x": [1]}))  # version 3
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def query(
    catalog: FakeCatalog, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Query]:
    made, buckets = make_query(
        tmp_path_factory.mktemp("query"), catalog, memory_slack_bytes=400 << 20, workers_max=2
    )
    await made.start()
    yield made
    await made.close()
    await buckets.close()


async def read(stream: QueryStream) -> bytes:
    return b"".join([chunk async for chunk in stream.chunks])


async def ask(query: Query, sql: str, **options: Any) -> dict[str, Any]:
    request = QueryRequest(sql, format=ResultFormat.JSON, **options)
    found: dict[str, Any] = orjson.loads(await read(await query.run(CTX, request)))
    return found


async def refusal(query: Query, sql: str, **options: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await ask(query, sql, **options)
    return caught.value


async def test_json_says_what_was_read(query: Query) -> None:
    found = await ask(query, "select id, name from PEOPLE order by Id")
    assert found["columns"] == ["ID", "Name"]
    assert found["types"] == ["int64", "string"]
    assert found["rows"] == [[1, "Ann"], [2, "Bob"], [3, None], [4, "Eve"]]
    assert found["versions"] == {"people": 3}
    assert (found["version"], found["row_count"], found["engine"]) == (3, 4, "duckdb")
    assert found["elapsed_ms"] > 0


async def test_the_header_comes_before_the_rows(query: Query) -> None:
    stream = await query.run(CTX, QueryRequest("select id from people", format=ResultFormat.CSV))
    assert [(one.name, one.type) for one in stream.header.columns] == [("ID", "int64")]
    assert stream.header.engine is Engine.DUCKDB
    await read(stream)


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_format(query: Query, engine: Engine) -> None:
    sql = "select id, name from people where id < 4 order by id"

    async def document(kind: ResultFormat) -> bytes:
        return await read(await query.run(CTX, QueryRequest(sql, engine=engine, format=kind)))

    rows = [{"ID": 1, "Name": "Ann"}, {"ID": 2, "Name": "Bob"}, {"ID": 3, "Name": None}]
    assert await document(ResultFormat.CSV) == b"ID,Name\n1,Ann\n2,Bob\n3,\n"
    lines = (await document(ResultFormat.NDJSON)).splitlines()
    assert [orjson.loads(line) for line in lines] == rows
    table = pa.ipc.open_stream(await document(ResultFormat.ARROW)).read_all()
    assert table.to_pylist() == rows
    assert table.schema.field("Name").type == pa.string()
    parquet = pq.read_table(io.BytesIO(await document(ResultFormat.PARQUET)))
    assert parquet.to_pylist() == rows


async def test_as_of_and_pins(query: Query) -> None:
    sql = "select count(*) from people"
    assert (await ask(query, sql, as_of=AsOf(version=1)))["rows"] == [[3]]
    assert (await ask(query, sql))["rows"] == [[4]]
    pinned = await ask(query, sql, pins=(Pin("People", AsOf(version=1)),))
    assert pinned["rows"] == [[3]]
    assert pinned["versions"] == {"people": 1}
    for unused, pins in (
        ("select count(*) from people", (Pin("nope", AsOf(version=1)),)),
        ("select count(*) from people", (Pin("people", AsOf()), Pin("other", AsOf(version=3)))),
        ("select 1", (Pin("people", AsOf(version=1)),)),
        ("select count(*) from system.files", (Pin("system.files", AsOf(version=1)),)),
    ):
        error = await refusal(query, unused, pins=pins)
        assert (error.kind, error.fields["datasets"]) == (ErrorKind.INVALID, [pins[-1].name])


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_short_decimal_is_a_number(query: Query, engine: Engine) -> None:
    sql = "select 1.5 as a, 0.1 + 0.2 as b, 1234567890.123456789 as c"
    assert (await ask(query, sql, engine=engine))["rows"] == [[1.5, 0.3, "1234567890.123456789"]]


@pytest.mark.parametrize("engine", ENGINES)
async def test_parameters_are_values(query: Query, engine: Engine) -> None:
    nasty = "'; drop table people; --\\ \" \n $1 ? é"
    params = orjson.dumps([nasty, 2, None, 2.5, True, 2**60]).decode()
    found = await ask(
        query,
        "select $1 as a, $2 + 1 as b, $3 as c, $4 as d, $5 as e, $6 as f",
        params_json=params,
        engine=engine,
    )
    assert found["rows"] == [[nasty, 3, None, 2.5, True, str(2**60)]]
    named = await ask(
        query,
        "select id from people where id = :id or name = $n order by 1",
        params_json='{"id": 1, "n": "Eve"}',
        engine=engine,
    )
    assert named["rows"] == [[1], [4]]


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("select $1", ""),
        ("select ?", "[1, 2]"),
        ("select $a", '{"b": 1}'),
        ("select 1", "{"),
        ("select 1", "7"),
        ("select $1, ?", "[1, 2]"),
        ("select $1", '[{"a": 1}]'),
        ("select $1", '["\\u0000"]'),
    ],
)
async def test_parameters_that_do_not_fit(query: Query, sql: str, params: str) -> None:
    assert (await refusal(query, sql, params_json=params)).kind is ErrorKind.INVALID


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_older_schema_is_read_by_column_id(
    tmp_path: Path, query: Query, catalog: FakeCatalog, engine: Engine
) -> None:
    name = f"evolved {engine.value}"
    first = Schema(1, columns((1, "a", "int64"), (2, "b", "string")))
    catalog.put(name, pa.table({"a": [1], "b": ["old"]}), schema=first)
    # b (2) was dropped, a (1) renamed to z, and another column is called b now.
    second = Schema(2, columns((1, "z", "int64"), (3, "b", "string")))
    catalog.put(name, pa.table({"z": [2], "b": ["new"]}), schema=second, append=True)
    found = await ask(query, f'select * from "{name}" order by z', engine=engine)
    assert found["columns"] == ["z", "b"]
    assert found["rows"] == [[1, None], [2, "new"]]


async def test_files_are_pruned_by_their_statistics(query: Query, catalog: FakeCatalog) -> None:
    tables = [pa.table({"n": [at * 10, at * 10 + 9]}) for at in range(20)]
    catalog.put("pruned", *tables)
    for sql, kept in (
        ("select n from pruned where n = 55", 1),
        ("select n from pruned where n between 50 and 69", 2),
        ("select n from pruned p where 190 <= p.n and n <> 3", 1),
        ("select n from pruned where n in (0, 199)", 2),
        ("select n from pruned where n = 55 or n = 66", 20),
        ("select n from pruned where n + 0 = 55", 20),
        ("select n from pruned where n = $1", 1),
    ):
        params = "[55]" if "$1" in sql else ""
        await ask(query, sql, params_json=params)
        prepared = [one for key, one in query._planning._prepared._values.items() if key[0] == sql]
        assert len(prepared[-1].objects) == kept, sql


async def test_system_tables_join(query: Query, catalog: FakeCatalog) -> None:
    found = await ask(
        query,
        "select d.name, d.row_count, count(*) as files from system.datasets d"
        " join system.files f on f.dataset = d.name where d.name = 'people' group by 1, 2",
    )
    assert found["rows"] == [["people", 4, 2]]
    assert found["versions"] == {
        "system.datasets": catalog.version,
        "system.files": catalog.version,
    }
    columns_found = await ask(
        query, "select name, type from system.columns where dataset = 'people' order by position"
    )
    assert columns_found["rows"] == [["ID", "int64"], ["Name", "string"]]
    then = await ask(query, "select count(*) from system.datasets", as_of=AsOf(version=1))
    assert then["rows"] == [[1]]
    assert (await ask(query, "select count(*) > 0 from system.versions"))["rows"] == [[True]]
    error = await refusal(query, "select * from system.nope")
    assert error.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("engine", ENGINES)
async def test_explain_shows_a_plan_and_no_path(query: Query, engine: Engine) -> None:
    for how in ("explain", "explain analyze"):
        found = orjson.dumps(await ask(query, f"{how} select * from people", engine=engine))
        assert b"rows" in found
        assert b"/bucket" not in found
        assert b"datasets/s" not in found


async def test_names_that_are_not_there(query: Query) -> None:
    error = await refusal(query, "select nmae from people")
    assert (error.kind, error.fields["nearest"]) == (ErrorKind.INVALID, ["Name"])
    assert (await refusal(query, "select * from nope")).kind is ErrorKind.NOT_FOUND
    ambiguous = await refusal(query, "select id from people a, people b")
    assert ambiguous.message == "this column is ambiguous"


@pytest.mark.parametrize("engine", ENGINES)
async def test_rows_and_bytes_are_limited(query: Query, engine: Engine) -> None:
    for limits in (QueryLimits(rows_max=1000), QueryLimits(bytes_max=100_000)):
        error = await refusal(query, HUGE, engine=engine, limits=limits)
        assert (error.kind, error.http_status) == (ErrorKind.EXHAUSTED, 422)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_statement_that_ran_before_runs_anew(query: Query, engine: Engine) -> None:
    sql = "select id, random(), now() from people where id = 4"
    rows = [(await ask(query, sql, engine=engine))["rows"][0] for _ in range(3)]
    assert [row[0] for row in rows] == [4, 4, 4]  # and the random and the time are new
    assert len({row[1] for row in rows}) == len({row[2] for row in rows}) == 3
    cut, long = QueryLimits(rows_max=10), HUGE.replace("3000000", "300000")
    for _ in range(2):
        assert (await refusal(query, long, engine=engine, limits=cut)).kind is ErrorKind.EXHAUSTED
        found = await query.run(CTX, QueryRequest(long, engine=engine, format=ResultFormat.CSV))
        assert (await read(found)).count(b"\n") == 300_001


@pytest.mark.parametrize(
    ("limits", "minimum"),
    [
        (QueryLimits(rows_max=0), 1),
        (QueryLimits(bytes_max=-1), 1),
        (QueryLimits(timeout_seconds=-1.0), 0.1),
        (QueryLimits(timeout_seconds=1e-9), 0.1),
        (QueryLimits(timeout_seconds=float("nan")), 0.1),
        (QueryLimits(memory_bytes_max=1), 16 << 20),
    ],
)
async def test_a_limit_that_cannot_be_kept_is_refused(
    query: Query, limits: QueryLimits, minimum: float
) -> None:
    error = await refusal(query, "select 1", limits=limits)
    assert (error.kind, error.fields["minimum"]) == (ErrorKind.INVALID, minimum)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_query_that_overruns_is_killed(query: Query, engine: Engine) -> None:
    begun = time.monotonic()
    error = await refusal(
        query, SLOW[engine], engine=engine, limits=QueryLimits(timeout_seconds=0.5)
    )
    assert time.monotonic() - begun < 3.0
    assert (error.kind, error.http_status) == (ErrorKind.EXHAUSTED, 422)
    assert (await ask(query, "select 1"))["rows"] == [[1]]


async def test_memory_is_limited(query: Query) -> None:
    error = await refusal(
        query,
        "select array_agg(md5(cast(n as text))) from generate_series(1, 30000000) g(n)",
        limits=QueryLimits(memory_bytes_max=64 << 20, timeout_seconds=20.0),
    )
    assert (error.kind, error.http_status) == (ErrorKind.EXHAUSTED, 422)
    assert (await ask(query, "select 1"))["rows"] == [[1]]


async def test_the_deadline_of_the_request_counts(query: Query) -> None:
    context = replace(CTX, deadline=query._clock.monotonic() + 0.3)
    with pytest.raises(LakehouseError) as caught:
        await query.run(context, QueryRequest(SLOW[Engine.DATAFUSION], engine=Engine.DATAFUSION))
    assert caught.value.kind is ErrorKind.TIMEOUT


async def test_running_queries_are_listed_and_cancelled(query: Query) -> None:
    task = asyncio.create_task(ask(query, SLOW[Engine.DATAFUSION], engine=Engine.DATAFUSION))
    while not (listed := (await query.running(CTX, RunningRequest())).queries):
        await asyncio.sleep(0.01)
    stranger = replace(CTX, principal=Principal("mallory", (Scope.READ,)))
    assert (await query.running(stranger, RunningRequest())).queries == ()
    with pytest.raises(LakehouseError) as caught:
        await query.cancel(stranger, CancelRequest(listed[0].query_id))
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert (await query.cancel(CTX, CancelRequest(listed[0].query_id))).cancelled
    with pytest.raises(LakehouseError) as stopped:
        await task
    assert stopped.value.message == "the query was cancelled"
    assert (await query.running(CTX, RunningRequest())).queries == ()


async def test_closing_the_iterator_ends_the_query(query: Query) -> None:
    stream = await query.run(CTX, QueryRequest(HUGE, format=ResultFormat.CSV))
    assert await anext(stream.chunks)
    await stream.chunks.aclose()  # type: ignore[attr-defined]
    assert (await query.running(CTX, RunningRequest())).queries == ()
    assert (await ask(query, "select 1"))["rows"] == [[1]]


async def test_a_stream_is_held_back_by_a_slow_reader(query: Query) -> None:
    stream = await query.run(CTX, QueryRequest(HUGE, format=ResultFormat.CSV))
    await anext(stream.chunks)
    inbox = stream.chunks._inbox  # type: ignore[attr-defined]
    while inbox.full_since is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert inbox._bytes < 12 << 20
    assert all(worker.resident_bytes() < 600 << 20 for worker in query._pool._all)
    rows = 0
    async for chunk in stream.chunks:
        rows += chunk.count(b"\n")
    assert rows > 2_900_000


async def test_an_error_midway_is_the_last_line_of_ndjson(query: Query) -> None:
    sql = "select n, 1 / (n - 400000) as x from generate_series(1, 500000) g(n)"
    stream = await query.run(CTX, QueryRequest(sql, format=ResultFormat.NDJSON))
    lines = (await read(stream)).splitlines()
    assert len(lines) > 1
    assert orjson.loads(lines[-1])["error"]["message"] == "division by zero"
    assert "n" in orjson.loads(lines[-2])
    broken = await query.run(CTX, QueryRequest(sql, format=ResultFormat.CSV))
    with pytest.raises(LakehouseError, match="division by zero"):
        await read(broken)


async def test_a_bombed_statement_is_an_error_and_no_crash(query: Query) -> None:
    for engine in ENGINES:
        for sql in (
            "select " + "(" * 5000 + "1" + ")" * 5000,
            "select " + " + ".join(["1"] * 5000),
            "select " + "not " * 3000 + "true",
            "select " + " or ".join(["1 = 1"] * 5000),
            "select '" + "x" * 300_000 + "'",
        ):
            assert (await refusal(query, sql, engine=engine)).kind is ErrorKind.INVALID
        long = "select " + " + ".join(["1"] * 100)
        assert (await ask(query, long, engine=engine))["rows"] == [[100]]
        wide = f"select 1 where 1 in ({', '.join(str(n) for n in range(5000))})"
        assert (await ask(query, wide, engine=engine))["rows"] == [[1]]


async def test_a_worker_has_no_environment_of_ours(query: Query) -> None:
    os.environ["LAKEHOUSE_TEST_CANARY"] = "secret"
    try:
        await ask(query, "select 1")
        for worker in query._pool._all:
            environment = Path(f"/proc/{worker.process.pid}/environ").read_bytes()
            names = {line.split(b"=")[0] for line in environment.split(b"\0") if line}
            assert names <= {b"PATH", b"LANG", b"TZ", b"HOME"}
    finally:
        del os.environ["LAKEHOUSE_TEST_CANARY"]


async def test_a_damaged_object_is_named_and_never_a_row(tmp_path: Path) -> None:
    catalog = FakeCatalog(tmp_path / "b")
    snapshot = catalog.put("t", pa.table({"a": list(range(1000))}))
    path = catalog.root / snapshot.files[0].key
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    query, buckets = make_query(tmp_path, catalog)
    await query.start()
    try:
        error = await refusal(query, "select sum(a) from t")
        assert (error.kind, error.fields["key"]) == (ErrorKind.CORRUPT, snapshot.files[0].key)
    finally:
        await query.close()
        await buckets.close()
    assert list((tmp_path / "cache").iterdir()) == []
    assert list((tmp_path / "spill").iterdir()) == []


async def test_one_get_a_file_at_first_touch_and_none_when_warm(tmp_path: Path) -> None:
    catalog = FakeCatalog(tmp_path / "b")
    snapshot = catalog.put("t", *[pa.table({"a": [at]}) for at in range(5)])
    query, buckets = make_query(tmp_path, catalog, url=f"memory://{tmp_path.name}-requests")
    store = buckets.get("primary")
    for file in snapshot.files:
        await store.put(file.key, (catalog.root / file.key).read_bytes())
    await query.start()
    try:
        await asyncio.gather(*[ask(query, "select sum(a) from t") for _ in range(8)])
        first = dict(buckets.footprint("primary").requests)
        assert first.get("get") == 5
        for engine in ENGINES:
            found = await ask(query, "select sum(a) from t", engine=engine)
            assert found["rows"] == [[10]]
        assert dict(buckets.footprint("primary").requests) == first
        assert not {"list", "head"} & {name for name, count in first.items() if count}
    finally:
        await query.close()
        await buckets.close()


async def test_a_full_queue_says_so(tmp_path: Path) -> None:
    catalog = FakeCatalog(tmp_path / "b")
    query, buckets = make_query(tmp_path, catalog, queue_max=1)
    await query.start()
    slow = SLOW[Engine.DATAFUSION]
    try:
        tasks = [asyncio.create_task(ask(query, slow, engine=Engine.DATAFUSION)) for _ in range(2)]
        while sum(one.state == "waiting" for one in await _queries(query)) != 1:
            await asyncio.sleep(0.01)
        assert (await refusal(query, "select 1")).kind is ErrorKind.UNAVAILABLE
        for one in await _queries(query):
            await query.cancel(CTX, CancelRequest(one.query_id))
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, LakehouseError)
            assert outcome.kind is ErrorKind.CONFLICT
    finally:
        await query.close()
        await buckets.close()


async def _queries(query: Query) -> Any:
    return (await query.running(CTX, RunningRequest())).queries
