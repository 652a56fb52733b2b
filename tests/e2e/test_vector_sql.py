"""``vector_search`` in SQL: a table like others on both engines, asked of the vectors contract."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from e2e.http_stack import OPERATOR, Stack, http_stack
from lakehouse.contracts import vectors as c
from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.catalog import GetRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import Rerank, SearchMode, Stage, StageScore
from lakehouse.model.vectors import VectorIndexInfo

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENGINES = ("duckdb", "datafusion")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATA = (
    b'{"Id":7,"day":"2026-01-02","title":"red"}\n{"Id":8,"day":"2026-01-02","title":"blue"}\n'
    b'{"Id":9,"day":"2026-01-03","title":"green"}\n'
)


class Near:
    """A vectors contract that finds what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, c.SearchRequest]] = []
        self.hits: dict[str, list[c.Hit]] = {}
        self.datasets: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.seconds = 0.0
        self.stages: dict[str, tuple[StageScore, ...]] = {}

    def put(self, index: str, dataset: str, *keys: str) -> None:
        self.datasets[index] = dataset
        self.hits[index] = [
            c.Hit(key, 1 - at / 4, at % 2, at, at + 5, f"text of {key}", 40 + at)
            for at, key in enumerate(keys)
        ]

    async def search(self, ctx: Context, request: c.SearchRequest) -> c.SearchResult:
        self.asked.append((ctx.principal.id, request))
        await asyncio.sleep(self.seconds)
        if request.index not in self.hits:
            raise LakehouseError(ErrorKind.NOT_FOUND, "there is no such index", nearest="docs")
        stages = self.stages.get(request.index, ())
        hits = [replace(hit, stages=stages) for hit in self.hits[request.index][: request.k]]
        found = c.Hits(tuple(hits))
        return c.SearchResult((found,), request.index, 1, "m", "parquet", "exact", 40, False, 41)

    async def get_index(self, ctx: Context, request: c.IndexRequest) -> c.IndexResult:
        dataset = self.datasets.get(request.name)
        if dataset is None:
            raise LakehouseError(ErrorKind.NOT_FOUND, "there is no such index", nearest="docs")
        columns = ("title",) if dataset else ()
        info = VectorIndexInfo(
            request.name, dataset, self.ids.get(dataset, ""), columns, "default", 1, 0, (), NOW
        )
        return c.IndexResult(info, 41)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("near")
    async with http_stack(folder) as one, one.client(timeout=60) as client:
        for name, key in (("docs", "Id,day"), ("odd", "rank")):
            body = DATA if name == "docs" else b'{"rank":"a"}\n{"rank":"b"}\n'
            params = {"key": key, "schema": "day:date"} if name == "docs" else {"key": key}
            answer = await client.post(f"/ingest/datasets/{name}", content=body, params=params)
            assert answer.status_code == 201, answer.text
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def near(stack: Stack) -> Near:
    made = Near()
    for name in ("docs", "odd"):
        found = await stack.services.catalog.get(OPERATOR, GetRequest(name))
        made.ids[name] = found.dataset.id
    made.put("docs", "docs", '[9,"2026-01-03"]', '[7,"2026-01-02"]', '[8,"2026-01-02"]')
    made.put("odd", "odd", '["b"]', '["a"]')
    made.put("given", "", "x/1", "[7]")
    made.put("empty", "docs")
    stack.services.query.use_vectors(made)  # type: ignore[attr-defined]
    return made


async def ask(stack: Stack, sql: str, engine: str, params: Any = None) -> httpx.Response:
    async with stack.client(timeout=60) as client:
        body = {"sql": sql, "engine": engine, "params": params or []}
        return await client.post("/query/sql", json=body)


async def rows(stack: Stack, sql: str, engine: str, params: Any = None) -> list[list[Any]]:
    answer = await ask(stack, sql, engine, params)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["rows"])


@pytest.mark.parametrize("engine", ENGINES)
async def test_hits_are_rows_with_typed_keys(stack: Stack, near: Near, engine: str) -> None:
    sql = "select * from vector_search('docs', 'crimson', 2)"
    answer = (await ask(stack, sql, engine)).json()
    assert answer["columns"] == [
        *("rank", "score", "key", "chunk", "start", "end", "text", "version", "Id", "day")
    ]
    assert answer["types"] == [
        *("int64", "float64", "string", "int64", "int64", "int64", "string", "int64"),
        *("int64", "date"),
    ]
    one = '[9,"2026-01-03"]'
    assert answer["rows"] == [
        [1, 1.0, one, 0, 0, 5, f"text of {one}", 40, 9, "2026-01-03"],
        [2, 0.75, '[7,"2026-01-02"]', 1, 1, 6, 'text of [7,"2026-01-02"]', 41, 7, "2026-01-02"],
    ]
    who, asked = near.asked[-1]
    wanted = c.SearchRequest("docs", (c.VectorQuery("crimson"),), 2, purpose="sql")
    assert (who, asked) == ("local", wanted)
    assert await rows(stack, "select * from vector_search('empty', 'x')", engine) == []


@pytest.mark.parametrize("engine", ENGINES)
async def test_it_joins_with_anything(stack: Stack, near: Near, engine: str) -> None:
    sql = """
        with wanted as (select * from vector_search('docs', ?, ?, filter => ?) where score > 0.6)
        select d.title, w.rank, o.key from wanted w join docs d on d.id = w.id and d.day = w.day
        left join vector_search('given', [1, 0.5]) o on o.rank = w.rank
        where d.title <> ? order by w.rank
    """
    found = await rows(stack, sql, engine, ["near", 3, "day > '2026-01-01'", "blue"])
    assert found == [["green", 1, "x/1"], ["red", 2, "[7]"]]
    asked = {one.index: one for _, one in near.asked}
    assert asked["docs"].filter == "day > '2026-01-01'"
    assert asked["given"].queries == (c.VectorQuery(vector=struct.pack("<2f", 1, 0.5)),)
    text = "select count(*) as n from vector_search('docs', 'a') a, vector_search('odd', 'b') b"
    assert await rows(stack, text, engine) == [[6]]


@pytest.mark.parametrize("engine", ENGINES)
async def test_words_and_both_are_tables_too(stack: Stack, near: Near, engine: str) -> None:
    sql = """
        select t.rank, h.rank, h.vector_rank, h.text_rank, h.id from text_search('docs', 'a', 1) t
        join hybrid_search('docs', 'b', 2, candidates => 9, rerank => 'vectors') h
        on h.rank = t.rank
    """
    near.stages["docs"] = (StageScore(Stage.TEXT, 4, 0.5), StageScore(Stage.FUSION, 1, 0.1))
    assert await rows(stack, sql, engine) == [[1, 1, None, 4, 9]]
    asked = {one.mode: one for _, one in near.asked}
    assert asked[SearchMode.TEXT].queries == (c.VectorQuery("a"),)
    both = asked[SearchMode.HYBRID]
    assert (both.candidates, both.rerank, both.purpose) == (9, Rerank.VECTORS, "sql")
    wrong = await ask(stack, "select * from hybrid_search('docs', 'b', rerank => 'x')", engine)
    assert (wrong.status_code, wrong.json()["kind"]) == (400, "invalid"), wrong.text


async def test_a_search_is_as_of_when_its_statement_is(stack: Stack, near: Near) -> None:
    async with stack.client(timeout=60) as client:
        body = {"sql": "select * from text_search('docs', 'a')", "as_of": 3}
        answer = await client.post("/query/sql", json=body)
    assert answer.status_code == 200, answer.text
    assert near.asked[-1][1].as_of == AsOf(version=3)


@pytest.mark.parametrize("engine", ENGINES)
async def test_names_without_an_alias_and_odd_keys(stack: Stack, near: Near, engine: str) -> None:
    sql = "select vector_search.id, vector_search.\"end\" from vector_search('given', 'x')"
    assert await rows(stack, sql, engine) == [["x/1", 5], ["[7]", 6]]
    sql = "select rank, key_rank from vector_search('odd', 'x', 1, exact => true, ef => 50)"
    assert await rows(stack, sql, engine) == [[1, "b"]]
    assert (near.asked[-1][1].exact, near.asked[-1][1].ef) == (True, 50)


@pytest.mark.parametrize("engine", ENGINES)
async def test_long_vectors_as_literals_and_parameters(
    stack: Stack, near: Near, engine: str
) -> None:
    vector = [at / 1024 for at in range(2048)]
    wanted = struct.pack("<2048f", *vector)
    sql = "select v.id from vector_search('given', ?, 1) v where v.rank = ?"
    assert await rows(stack, sql, engine, [vector, 1]) == [["x/1"]]
    assert near.asked[-1][1].queries[0].vector == wanted
    sql = f"select v.id from vector_search('given', {vector}, 1) v where v.rank = 1"
    assert await rows(stack, sql, engine) == [["x/1"]]
    assert near.asked[-1][1].queries[0].vector == wanted
    # A statement that is large for other reasons is planned in a process of its own.
    many = ", ".join(f"id as c{at}" for at in range(400))
    sql = f"select {many} from vector_search('given', $q, 1)"
    assert await rows(stack, sql, engine, {"q": vector}) == [["x/1"] * 400]


@pytest.mark.parametrize(
    ("sql", "status", "kind"),
    [
        ("select * from vector_search('nothing', 'x')", 404, "not_found"),
        ("select vector_search('docs', 'x')", 400, "invalid"),
        ("select rank, vector_search('docs', 'x') from docs", 400, "invalid"),
        ("select * from vector_search('docs', title), docs", 400, "invalid"),
        ("select * from vector_search('docs', 'x') for version as of 1", 400, "invalid"),
        ("select nope from vector_search('docs', 'x')", 400, "invalid"),
        ("select * from vector_search('docs', ?)", 400, "invalid"),
        ("select * from vector_search('docs', 'x') v where v.rank = ?", 400, "invalid"),
        ("select * from public.vector_search('docs', 'x')", 400, "invalid"),
        ('select * from "vector_search:1".vector_search', 404, "not_found"),
        ("delete from vector_search('docs', 'x')", 403, "forbidden"),
    ],
)
async def test_refusals(stack: Stack, near: Near, sql: str, status: int, kind: str) -> None:
    answer = await ask(stack, sql, "duckdb")
    assert (answer.status_code, answer.json()["kind"]) == (status, kind), answer.text
    assert "vector_search:1" not in answer.text or "vector_search:1" in sql


async def test_keys_are_of_the_dataset_that_was_embedded(stack: Stack, near: Near) -> None:
    near.put("moved", "odd", '[9,"2026-01-03"]')
    near.ids["odd"] = near.ids["docs"]
    answer = await ask(stack, "select * from vector_search('moved', 'x')", "duckdb")
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found"), answer.text
    assert "dropped" in answer.text


async def test_without_vectors_it_is_unavailable(stack: Stack, near: Near) -> None:
    stack.services.query.use_vectors(None)  # type: ignore[attr-defined]
    answer = await ask(stack, "select * from vector_search('docs', 'x')", "duckdb")
    assert (answer.status_code, answer.json()["kind"]) == (503, "unavailable")


async def test_a_search_has_the_time_of_its_query(stack: Stack, near: Near) -> None:
    near.seconds = 60
    async with stack.client(timeout=60) as client:
        limits = {"timeout_seconds": 0.2}
        body = {"sql": "select * from vector_search('docs', 'x')", "limits": limits}
        answer = await client.post("/query/sql", json=body)
    assert (answer.status_code, answer.json()["kind"]) == (504, "timeout"), answer.text


async def test_nothing_is_left_behind(stack: Stack, near: Near) -> None:
    one, other = "vector_search('docs', 'x') a", "vector_search('nothing', 'x') b"
    for status, sql in ((200, one), (404, f"{one}, {other}"), (400, f"{one} where nope = 1")):
        answer = await ask(stack, f"select a.rank from {sql}", "duckdb")
        assert answer.status_code == status, answer.text
    query: Any = stack.services.query
    assert not list(query._claim.path.glob("vector_search*"))


@pytest.mark.parametrize("engine", ENGINES)
async def test_with_a_real_index(stack: Stack, engine: str) -> None:
    vectors = stack.services.vectors
    stack.services.query.use_vectors(vectors)  # type: ignore[attr-defined]
    await vectors.create_index(OPERATOR, c.CreateIndexRequest("real", "docs", ("title",)))
    await vectors.build(OPERATOR, c.BuildRequest("real", wait_seconds=30))
    sql = """
        select d.title, v.rank, v.score > 0.99 from vector_search('real', ?, 2) v
        join docs d on d.id = v.id and d.day = v.day order by v.rank
    """
    found = await rows(stack, sql, engine, ["green"])
    assert (found[0], len(found)) == (["green", 1, True], 2)
    sql = "select id from vector_search('real', 'green', 3, filter => 'id < 9') order by id"
    assert await rows(stack, sql, engine) == [[7], [8]]
    # The vectors themselves are rows like others, and what is found again is found exactly.
    own = "select vector from \"vectors.real.v1\" where entity like '[8,%'"
    ((vector,),) = await rows(stack, own, engine)
    again = "select id, round(score, 5) from vector_search('real', ?, 1)"
    assert await rows(stack, again, engine, [vector]) == [[8, 1.0]]
    refused = await ask(stack, "select * from vector_search('real', [1, 2])", engine)
    assert (refused.status_code, refused.json()["kind"]) == (400, "invalid")
    for k in (0, 10**6):
        refused = await ask(stack, f"select * from vector_search('real', 'x', {k})", engine)
        assert (refused.status_code, refused.json()["kind"]) == (400, "invalid")
