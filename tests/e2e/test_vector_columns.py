"""Columns of vectors from end to end: ingest, row changes, their past, compaction, and SQL."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from e2e.http_stack import Stack, http_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

KIND = pa.list_(pa.float32(), 4)
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
NAN = float("nan")
ENGINES = ("duckdb", "datafusion")


def table(ids: list[int], vectors: list[Any], kind: pa.DataType = KIND) -> pa.Table:
    return pa.table({"id": ids, "v": pa.array(vectors, kind), "s": [f"s{one}" for one in ids]})


def stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(folder: Path) -> AsyncIterator[Stack]:
    async with http_stack(folder) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with stack.client(timeout=60) as one:
        yield one


async def ok(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def create(client: httpx.AsyncClient, name: str, rows: pa.Table, **more: str) -> Any:
    path = f"/ingest/datasets/{name}"
    params = {"mode": "create", "key": "id", **more}
    return await ok(await client.post(path, content=stream(rows), params=params, headers=ARROW))


async def types(client: httpx.AsyncClient, name: str) -> dict[str, str]:
    found = await ok(await client.get(f"/catalog/datasets/{name}/schema"))
    return {column["name"]: column["type"] for column in found["columns"]}


async def select(client: httpx.AsyncClient, sql: str, engine: str = "duckdb") -> list[list[Any]]:
    body = {"sql": sql, "engine": engine}
    return list((await ok(await client.post("/query/sql", json=body)))["rows"])


async def test_rows_of_vectors_live_as_others(client: httpx.AsyncClient, stack: Stack) -> None:
    first = table([1, 2, 3], [[1, 2, 3, 0.1], None, [NAN, float("inf"), -0.0, 1e-40]])
    made = await create(client, "vecs.a.v1", first)
    assert (await types(client, "vecs.a.v1"))["v"] == "vector(4)"
    start = made["version"]

    second = table([2, 4], [[5, 6, 7, 8], [0.5, 0, 0, 0]])
    path = "/ingest/datasets/vecs.a.v1/rows"
    report = await ok(await client.post(path, content=stream(second), headers=ARROW))
    assert (report["inserted"], report["updated"]) == (1, 1)
    same = await ok(await client.post(path, content=stream(second), headers=ARROW))
    assert (same["inserted"], same["updated"], same["unchanged"]) == (0, 0, 2)
    rows = [{"id": 5, "v": [1, 2.5, 0.1, 4], "s": None}, {"id": 1, "v": None, "s": "x"}]
    await ok(await client.post(path, json=rows))
    patch = {"key": 4, "set": {"v": [9, 9, 9, 0.3]}}
    await ok(await client.post(path, json=patch, params={"mode": "patch"}))
    await ok(await client.post(path, json=[3], params={"mode": "delete"}))

    wanted = [[1, None], [2, [5, 6, 7, 8]], [4, [9, 9, 9, 0.3]], [5, [1, 2.5, 0.1, 4]]]
    sql = 'select id, v from "vecs.a.v1" order by id'
    for engine in ENGINES:
        assert await select(client, sql, engine) == wanted
        old = await select(client, f'select v from "vecs.a.v1" for version as of {start}', engine)
        assert sorted(old, key=str) == sorted(
            [[[1, 2, 3, 0.1]], [None], [[None, None, -0.0, 1e-40]]], key=str
        )
    row = await ok(await client.get("/datasets/vecs.a.v1/rows/4"))
    assert row["row"]["v"] == [9, 9, 9, 0.3]
    past = await ok(await client.get("/journal/rows/vecs.a.v1/4"))
    assert '"new":[9.0,9.0,9.0,0.3]' in json.dumps(past, separators=(",", ":"))
    gone = (await client.get("/journal/rows/vecs.a.v1/3")).text.replace(" ", "")
    assert '["NaN","Infinity",-0.0,1e-40]' in gone

    await ok(await client.post("/ingest/datasets/vecs.a.v1/compact", params={"full": "true"}))
    for engine in ENGINES:
        assert await select(client, sql, engine) == wanted
    back = {"as_of": str(start)}
    await ok(await client.post("/ingest/datasets/vecs.a.v1/restore-rows", json=back))
    for engine in ENGINES:
        found = await select(client, sql, engine)
        assert found[2] == [3, [None, None, -0.0, 1e-40]]


async def test_files_are_lists_of_one_size_to_any_reader(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    sink = io.BytesIO()
    pq.write_table(
        table(list(range(50)), [[i, 0.1, 2, 3] if i % 7 else None for i in range(50)]), sink
    )
    path = "/ingest/datasets/parqueted"
    await ok(
        await client.post(path, content=sink.getvalue(), params={"key": "id"}, headers=PARQUET)
    )
    assert (await types(client, "parqueted"))["v"] == "vector(4)"
    for engine in ENGINES:
        body = {"sql": "select * from parqueted order by id", "engine": engine}
        answers = {}
        for kind in ("application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"):
            answers[kind] = (
                await client.post("/query/sql", json=body, headers={"Accept": kind})
            ).content
        arrow = pa.ipc.open_stream(answers["application/vnd.apache.arrow.stream"]).read_all()
        parquet = pq.read_table(io.BytesIO(answers["application/vnd.apache.parquet"]))
        for found in (arrow, parquet):
            assert found.schema.field("v").type == KIND
            assert found.num_rows == 50
            assert found.column("v").null_count == 8
            assert found.column("v")[1].as_py() == pa.scalar([1, 0.1, 2, 3], KIND).as_py()
        lines = (
            await client.post("/query/sql", json=body, headers={"Accept": "application/x-ndjson"})
        ).text.splitlines()
        assert lines[1] == '{"id":1,"v":[1.0,0.1,2.0,3.0],"s":"s1"}'
        assert json.loads(lines[0])["v"] is None
        text = (await client.post("/query/sql", json=body, headers={"Accept": "text/csv"})).text
        assert text.splitlines()[1:3] == ["0,,s0", '1,"[1.0,0.1,2.0,3.0]",s1']


async def test_what_was_a_list_stays_one(client: httpx.AsyncClient) -> None:
    """Before there were vectors, a list of one size was a list: such a dataset takes both."""
    path = "/ingest/datasets/older"
    old = table([1, 2], [[1, 2, 3, 4], [0.5, None, 0, 0]])
    params = {"key": "id", "schema": "v:list<float64>"}
    await ok(await client.post(path, content=stream(old), params=params, headers=ARROW))
    assert (await types(client, "older"))["v"] == "list<float64>"
    before = (await client.get("/catalog/datasets/older/schema")).json()["fingerprint"]
    more = table([3], [[0.1, 0, 0, 1]])
    await ok(
        await client.post(path, content=stream(more), params={"mode": "append"}, headers=ARROW)
    )
    await ok(await client.post(f"{path}/rows", content=stream(more), headers=ARROW))
    after = (await client.get("/catalog/datasets/older/schema")).json()
    assert after["fingerprint"] == before
    tenth = pa.scalar(0.1, pa.float32()).as_py()  # as a double has it: nothing was rounded again
    wanted = [[1, [1, 2, 3, 4]], [2, [0.5, None, 0, 0]], [3, [tenth, 0, 0, 1]]]
    for engine in ENGINES:
        assert await select(client, "select id, v from older order by id", engine) == wanted


async def test_what_is_no_vector_is_refused_or_a_list(client: httpx.AsyncClient) -> None:
    await create(client, "strict", table([1], [[1, 2, 3, 4]]))
    path = "/ingest/datasets/strict"
    short = table([2], [[1, 2, 3]], pa.list_(pa.float32(), 3))
    for place, params in ((path, {"mode": "append"}), (f"{path}/rows", {})):
        answer = await client.post(place, content=stream(short), params=params, headers=ARROW)
        assert answer.status_code in (400, 409), answer.text
        assert "vector(4)" in answer.text
    for bad in ([1, 2, 3], [1, None, 3, 4], [1, 2, 3, 1e300], "x", 7):
        answer = await client.post(f"{path}/rows", json=[{"id": 2, "v": bad}])
        assert (answer.status_code, answer.json()["kind"]) == (400, "invalid"), bad
        patch = {"key": 1, "set": {"v": bad}}
        answer = await client.post(f"{path}/rows", json=patch, params={"mode": "patch"})
        assert (answer.status_code, answer.json()["kind"]) == (400, "invalid"), bad
    rows = await select(client, "select id, v from strict")
    assert rows == [[1, [1, 2, 3, 4]]]
    await create(client, "holes", table([1, 2], [[1, 2, 3, 4], [1, None, 3, 4]]))
    assert (await types(client, "holes"))["v"] == "list<float64>"
    doubles = table([1], [[0.1, 2, 3, 4]], pa.list_(pa.float64(), 4))
    await create(client, "doubles", doubles)
    assert (await types(client, "doubles"))["v"] == "list<float64>"
    await create(client, "rounded", doubles, schema="v:vector(4)")
    assert (await types(client, "rounded"))["v"] == "vector(4)"
    assert await select(client, "select v from rounded") == [[[0.1, 2, 3, 4]]]


async def test_texts_of_arrays_are_vectors_where_that_is_said(client: httpx.AsyncClient) -> None:
    params = {"schema": "v:vector(2)", "key": "id"}
    text = b'id,v\n1,"[1, 0.1]"\n2,\n'
    await ok(await client.post("/ingest/datasets/csv", content=text, params=params))
    lines = b'{"id":1,"v":[1,0.1]}\n{"id":2,"v":null}\n'
    await ok(await client.post("/ingest/datasets/lines", content=lines, params=params))
    for name in ("csv", "lines"):
        assert (await types(client, name))["v"] == "vector(2)"
        for engine in ENGINES:
            found = await select(client, f"select id, v from {name} order by id", engine)
            assert found == [[1, [1, 0.1]], [2, None]]
    guessed = await ok(await client.post("/ingest/datasets/guessed", content=lines))
    assert {one["name"]: one["type"] for one in guessed["schema"]}["v"] == "list<float64>"


SQLS = [
    ("select v[1], v[4] from maths where id = 1", [[1, 4]]),
    ("select array_length(v, 1), cardinality(v) from maths where id = 1", [[4, 4]]),
    ("select array_contains(v, 3) from maths where id = 1", [[True]]),
    ("select id from maths where v is null", [[3]]),
    ("select count(v), count(*) from maths", [[2, 3]]),
    ("select v::float8[] from maths where id = 1", [[[1, 2, 3, 4]]]),
    ("select sum(x) from (select unnest(v) as x from maths where id = 1) t", [[10]]),
    ("select a.id from maths a join maths b on a.v = b.v order by 1", [[1], [2]]),
    ("select coalesce(v, v) from maths where id = 2", [[[0, 0, 0, 1]]]),
    ("select id from maths order by l2_distance(v, array[0, 0, 0, 2]), id", [[2], [1], [3]]),
    ("select inner_product(v, array[1.0, 0, 0, 0.5]) from maths where id = 1", [[3]]),
    (
        "select a.id from maths a, maths b where b.id = 1 order by cosine_distance(a.v, b.v)"
        " nulls last",
        [[1], [2], [3]],
    ),
    (
        "select v from maths where id = 1 union all select v from maths where id = 9",
        [[[1, 2, 3, 4]]],
    ),
]


@pytest.mark.parametrize("engine", ENGINES)
async def test_sql_over_vectors(client: httpx.AsyncClient, engine: str) -> None:
    if (await client.get("/catalog/datasets/maths")).status_code != 200:
        await create(client, "maths", table([1, 2, 3], [[1, 2, 3, 4], [0, 0, 0, 1], None]))
    for sql, wanted in SQLS:
        assert await select(client, sql, engine) == wanted, sql


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_distance_to_a_long_parameter(client: httpx.AsyncClient, engine: str) -> None:
    if (await client.get("/catalog/datasets/long")).status_code != 200:
        kind = pa.list_(pa.float32(), 384)
        vectors = [[((at * 7919 + row) % 100) / 50 - 1 for at in range(384)] for row in range(20)]
        await create(client, "long", table(list(range(20)), vectors, kind))
    near = [((at * 7919 + 11) % 100) / 50 - 1 for at in range(384)]
    body = {
        "sql": "select id from long order by cosine_distance(v, ?) limit 1",
        "params": [near],
        "engine": engine,
    }
    assert (await ok(await client.post("/query/sql", json=body)))["rows"] == [[11]]


async def test_columns_that_are_added_and_widened(client: httpx.AsyncClient) -> None:
    path = "/ingest/datasets/grown"
    await ok(await client.post(path, content=b"id,s\n1,a\n2,b\n", params={"key": "id"}))
    add = {"add": [{"name": "v", "type": "vector(4)"}]}
    await ok(await client.post(f"{path}/schema", json=add))
    await ok(await client.post(f"{path}/rows", json=[{"id": 2, "s": "b", "v": [1, 0.1, 0, 0]}]))
    extra = table([3], [[3, 0, 0, 0]])
    await ok(
        await client.post(path, content=stream(extra), params={"mode": "append"}, headers=ARROW)
    )
    wanted = [[1, None], [2, [1, 0.1, 0, 0]], [3, [3, 0, 0, 0]]]
    for engine in ENGINES:
        assert await select(client, "select id, v from grown order by id", engine) == wanted
        assert await select(client, "select id from grown where v is null", engine) == [[1]]
    nested = {"add": [{"name": "w", "type": "list<vector(4)>"}]}
    assert (await client.post(f"{path}/schema", json=nested)).status_code == 400
    longer = {"widen": [{"name": "v", "type": "vector(5)"}]}
    assert (await client.post(f"{path}/schema", json=longer)).status_code == 400
    text = {"widen": [{"name": "v", "type": "string"}]}
    await ok(await client.post(f"{path}/schema", json=text))
    await ok(await client.post(f"{path}/rows", json=[{"id": 4, "s": "d", "v": "new"}]))
    texts = [[1, None], [2, "[1.0,0.1,0.0,0.0]"], [3, "[3.0,0.0,0.0,0.0]"], [4, "new"]]
    for engine in ENGINES:
        assert await select(client, "select id, v from grown order by id", engine) == texts


async def test_files_of_others_are_read_in_place(client: httpx.AsyncClient, folder: Path) -> None:
    raw = folder / "primary" / "raw"
    raw.mkdir(parents=True)
    plain = table([1, 2, 3], [[1, 2, 3, 0.1], None, [NAN, 1, 2, 3]])
    pq.write_table(plain, raw / "v.parquet")
    pq.write_table(table([4], [[1, None, 3, 4]]), raw / "holes.parquet")
    said = {"columns": [{"id": 1, "name": "id", "type": "int64"}]}
    said["columns"] += [{"id": 2, "name": "v", "type": "list<float64>"}]
    said["columns"] += [{"id": 3, "name": "s", "type": "string"}]
    for name, keys, more, kind in (
        ("seen", ["v"], {}, "vector(4)"),
        ("kept", ["v", "holes"], said, "list<float64>"),
        ("holed", ["holes"], {}, "vector(4)"),
    ):
        body = {
            "name": name,
            "objects": [{"bucket": "primary", "key": f"raw/{key}.parquet"} for key in keys],
            "card": {"owner": "me", "description": "theirs"},
            **more,
        }
        await ok(await client.post("/catalog/datasets", json=body))
        assert (await types(client, name))["v"] == kind
        for engine in ENGINES:
            found = await select(client, f"select id, v from {name} order by id", engine)
            tenth = 0.1 if kind == "vector(4)" else pa.scalar(0.1, pa.float32()).as_py()
            wanted = [[1, [1, 2, 3, tenth]], [2, None], [3, [None, 1, 2, 3]]]
            wanted = [] if keys == ["holes"] else wanted
            assert found == wanted + ([[4, [1, None, 3, 4]]] if "holes" in keys else [])
