"""Whatever a statement is, the event loop goes on, and the statement ends in time."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts.query import Engine, QueryLimits, QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd import planning
from lakehouse.queryd.results import Chunks
from lakehouse.queryd.service import Query
from unit.queryd.fake_catalog import CTX, FakeCatalog, make_query

SIZE = 240_000
STALL_SECONDS_MAX = 0.25
WIDE = 3000
HOSTILE = {
    "comments": "/**/" * (SIZE // 4) + "select",
    "columns": "select " + ",".join("1" * 1 for _ in range(SIZE // 2)),
    "fewer columns": "select " + ",".join("1" for _ in range(9_000)),
    "subscripts": "select id" + "[1]" * (SIZE // 3) + " from people",
    "statements": "select 1;" * (SIZE // 9),
    "joins": "select * from people " + "join people on true " * 6_000,
    "casts": "select " + ",".join(f"id::text c{n}" for n in range(9_000)) + " from people",
    "ctes": "with c as (select 1),"
    + ",".join(f"c{n} as (select * from c)" for n in range(8_000))
    + " select nope from c1",
    "doubling": "with c0 as (select * from people),"
    + ",".join(f"c{n} as (select * from c{n - 1} a, c{n - 1} b)" for n in range(1, 24))
    + " select * from c23",
    "wide joins": "select * from " + ",".join(f"wide w{n}" for n in range(40)),
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def query(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Query]:
    catalog = FakeCatalog(tmp_path_factory.mktemp("bucket"))
    catalog.put("people", pa.table({"id": [1, 2], "name": ["'m", "__0"]}))
    catalog.put("wide", pa.table({f"c{n}": [n] for n in range(WIDE)}))
    made, buckets = make_query(tmp_path_factory.mktemp("query"), catalog, workers_max=2)
    await made.start()
    yield made
    await made.close()
    await buckets.close()


async def ask(query: Query, sql: str, **options: Any) -> dict[str, Any]:
    stream = await query.run(CTX, QueryRequest(sql, format=ResultFormat.JSON, **options))
    found: dict[str, Any] = orjson.loads(b"".join([chunk async for chunk in stream.chunks]))
    return found


async def longest_stall(work: asyncio.Future[Any]) -> float:
    """The longest the loop was held while ``work`` went on, in seconds of its own processor time:
    a machine that is busy with other things is no fault of ours."""
    longest, before = 0.0, time.thread_time()
    gc.disable()  # a full collection goes through all that other tests left in this process
    try:
        while not work.done():
            await asyncio.sleep(0.005)
            longest, before = max(longest, time.thread_time() - before), time.thread_time()
    finally:
        gc.enable()
    return longest


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_statement_holds_nobody_up(query: Query, name: str) -> None:
    await ask(query, "select 1")
    limits = QueryLimits(timeout_seconds=2)
    begun = time.monotonic()
    work = asyncio.ensure_future(ask(query, HOSTILE[name], limits=limits))
    stall = await longest_stall(work)
    error = work.exception()
    assert isinstance(error, LakehouseError), error
    assert 400 <= error.http_status < 500
    assert stall < STALL_SECONDS_MAX
    assert time.monotonic() - begun < 8
    assert (await ask(query, "select 1"))["rows"] == [[1]]


@pytest.mark.parametrize("engine", [Engine.DUCKDB, Engine.DATAFUSION])
async def test_a_wide_dataset_is_usable(query: Query, engine: Engine) -> None:
    await ask(query, "select 1")  # loads the parser, which a node does before it is asked
    work = asyncio.ensure_future(ask(query, "select * from wide", engine=engine))
    stall = await longest_stall(work)
    assert work.result()["rows"] == [list(range(WIDE))]
    assert stall < STALL_SECONDS_MAX
    begun = time.process_time()
    await ask(query, "select * from wide", engine=engine)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("engine", [Engine.DUCKDB, Engine.DATAFUSION])
async def test_a_large_statement_answers_as_a_small_one(query: Query, engine: Engine) -> None:
    large = " ".join(["/* a comment that makes it long */"] * 100)
    for sql, params in (
        ("select p.*, '__0' as x, ? as y from people p join people q on p.id = q.id", [7]),
        ("select name from people where id = 1", []),
        ("explain select name from people where id = 1", []),
    ):
        given = {"engine": engine, "params_json": orjson.dumps(params).decode()}
        small = await ask(query, sql + " order by 1", **given)
        other = await ask(query, f"{sql} {large} order by 1", **given)
        assert (small["columns"], small["types"]) == (other["columns"], other["types"])
        if not sql.startswith("explain"):
            assert small["rows"] == other["rows"]
    with pytest.raises(LakehouseError) as caught:
        await ask(query, f"select nam from people {large}", engine=engine)
    assert (caught.value.kind, caught.value.fields["nearest"]) == (ErrorKind.INVALID, ["name"])


async def test_a_remembered_statement_is_not_cut_into_tokens_again(
    query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(query, "select id from people where id = 2")
    cut: list[str] = []
    real = planning.token_count
    monkeypatch.setattr(planning, "token_count", lambda sql: cut.append(sql) or real(sql))
    assert (await ask(query, "select id from people where id = 2"))["rows"] == [[2]]
    assert cut == []
    assert (await ask(query, "select id from people where id = 1"))["rows"] == [[1]]
    assert cut != []


async def test_a_refusal_is_the_same_the_second_time(query: Query) -> None:
    for sql in ("drop table people", "select * from read_parquet('/etc/x')", "select nope(1)"):
        told = []
        for _ in range(2):
            with pytest.raises(LakehouseError) as caught:
                await ask(query, sql)
            told.append((caught.value.kind, caught.value.message))
        assert told[0] == told[1]


async def test_a_short_result_is_there_whole_and_a_long_one_is_not(query: Query) -> None:
    def asked(rows: int) -> QueryRequest:
        sql = f"select n, repeat('x', 100) as s from generate_series(1, {rows}) g(n)"
        return QueryRequest(sql, format=ResultFormat.CSV)

    stream = await query.run(CTX, asked(2))
    assert isinstance(stream.chunks, Chunks)
    row = "x" * 100
    assert stream.chunks.whole() == f"n,s\n1,{row}\n2,{row}\n".encode()
    assert stream.chunks.whole() is None
    assert [chunk async for chunk in stream.chunks] == []
    stream = await query.run(CTX, asked(20_000))
    assert isinstance(stream.chunks, Chunks)
    assert stream.chunks.whole() is None
    parts = [chunk async for chunk in stream.chunks]
    assert len(b"".join(parts).splitlines()) == 20_001


async def test_the_processes_end_with_the_service(tmp_path: Path) -> None:
    catalog = FakeCatalog(tmp_path / "bucket")
    made, buckets = make_query(tmp_path / "query", catalog)
    await made.start()
    await ask(made, "select 1 /*" + "x" * 3000 + "*/")
    work = asyncio.ensure_future(ask(made, HOSTILE["doubling"].replace("people", "(select 1) s")))
    while not made._planning._all:
        await asyncio.sleep(0.01)
    processes = list(made._planning._all)
    await made.close()
    await asyncio.gather(work, return_exceptions=True)
    await buckets.close()
    assert all(one._process is None or one._process.poll() is not None for one in processes)


async def test_a_misspelled_search_is_told_what_was_meant(query: Query) -> None:
    for called, meant in (("hybird_search('t', 'a', 1)", "hybrid_search"), ("read_csv('x')", "")):
        with pytest.raises(LakehouseError, match="table function is not allowed") as caught:
            await ask(query, f"select * from {called}")
        hint = str(caught.value.fields["hint"])
        assert (hint == f"did you mean {meant}") if meant else hint.startswith("query a dataset")
