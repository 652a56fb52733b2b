"""Both engines: the port's suite, the shared corpus, and what the service must refuse."""

from __future__ import annotations

import asyncio
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from conformance.corpus_attacks import ATTACKS
from conformance.corpus_refused import DIFFERENCES, REFUSED
from conformance.corpus_sql import CORPUS, ERROR, table_t, table_u
from lakehouse.contracts.query import Engine, QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.adapters.datafusion import DataFusionEngine
from lakehouse.queryd.adapters.duckdb import DuckDbEngine
from lakehouse.queryd.service import Query
from lakehouse.testing.suites.sql_engine import CANARY, SqlEngineSuite
from unit.queryd.fake_catalog import CTX, FakeCatalog, make_query

ENGINES = (Engine.DUCKDB, Engine.DATAFUSION)
Answer = tuple[list[str], list[str], list[list[Any]]]


class TestDuckDb(SqlEngineSuite):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> DuckDbEngine:
        return DuckDbEngine(1, str(tmp_path / "spill"), 1 << 20)


class TestDataFusion(SqlEngineSuite):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> DataFusionEngine:
        return DataFusionEngine(1, str(tmp_path / "spill"), 1 << 20)


async def ask(query: Query, sql: str, engine: Engine) -> Answer | LakehouseError:
    try:
        request = QueryRequest(sql, engine=engine, format=ResultFormat.JSON)
        stream = await query.run(CTX, request)
        body = b"".join([chunk async for chunk in stream.chunks])
    except LakehouseError as error:
        return error
    document = json.loads(body, parse_float=Decimal)
    kinds = document["types"]
    rows = [
        [_exact(value, kind) for value, kind in zip(row, kinds, strict=True)]
        for row in document["rows"]
    ]
    return document["columns"], kinds, rows


def _exact(value: Any, kind: str) -> Any:
    """A decimal as the text it was sent as, number or string: its zeros count."""
    if isinstance(value, list):
        return [_exact(item, "") for item in value]
    if kind.startswith("decimal") and value is not None:
        return str(value)
    return float(value) if isinstance(value, Decimal) else value


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Engine], Any]:
    """Every statement of the corpus on both engines, in one service."""
    root = tmp_path_factory.mktemp("corpus")
    canary = root / "b" / "canary.csv"
    canary.parent.mkdir()
    canary.write_text(f"secret\n{CANARY}\n")

    async def collect() -> dict[tuple[str, Engine], Any]:
        catalog = FakeCatalog(root / "b")
        catalog.put("t", table_t())
        catalog.put("U", table_u())
        query, buckets = make_query(root, catalog)
        await query.start()
        statements = [sql for sql, _ in CORPUS] + [sql for sql, _, _ in DIFFERENCES]
        statements += [sql.format(canary=canary) for sql in REFUSED + ATTACKS]
        try:
            return {
                (sql, engine): await ask(query, sql, engine)
                for engine in ENGINES
                for sql in statements
            } | {("canary", ENGINES[0]): canary}
        finally:
            await query.close()
            await buckets.close()

    return asyncio.run(collect())


def same(one: Any, other: Any) -> bool:
    """Equal in type and value; floats to 12 digits, for their sums depend on the order."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize(("sql", "wanted"), CORPUS, ids=[sql for sql, _ in CORPUS])
def test_both_engines_answer_alike(
    answers: dict[tuple[str, Engine], Any], sql: str, wanted: Any
) -> None:
    duckdb, datafusion = (answers[sql, engine] for engine in ENGINES)
    if wanted == ERROR:
        assert isinstance(duckdb, LakehouseError)
        assert isinstance(datafusion, LakehouseError)
        assert duckdb.kind is datafusion.kind is ErrorKind.INVALID
        return
    assert not isinstance(duckdb, LakehouseError), duckdb.fields
    assert not isinstance(datafusion, LakehouseError), datafusion.fields
    assert duckdb[:2] == datafusion[:2]
    assert same(duckdb[2], datafusion[2])
    if wanted is not None:
        assert same([row[0] for row in duckdb[2]], wanted)


@pytest.mark.parametrize(("sql", "duckdb", "datafusion"), DIFFERENCES)
def test_what_differs_is_as_documented(
    answers: dict[tuple[str, Engine], Any], sql: str, duckdb: Any, datafusion: Any
) -> None:
    for engine, wanted in zip(ENGINES, (duckdb, datafusion), strict=True):
        found = answers[sql, engine]
        if wanted == ERROR:
            assert isinstance(found, LakehouseError)
        else:
            assert not isinstance(found, LakehouseError), found.fields
            assert same([row[0] for row in found[2]], wanted)
    guide = Path(__file__).parents[2] / "docs" / "guides" / "sql.md"
    assert sql in guide.read_text()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sql", REFUSED + ATTACKS)
def test_it_is_refused(answers: dict[tuple[str, Engine], Any], sql: str, engine: Engine) -> None:
    canary = answers["canary", ENGINES[0]]
    found = answers[sql.format(canary=canary), engine]
    assert isinstance(found, LakehouseError)
    assert found.kind in (ErrorKind.FORBIDDEN, ErrorKind.INVALID, ErrorKind.NOT_FOUND)
    assert CANARY not in f"{found.message} {found.fields}"
    assert "engine" not in found.fields, "an engine was asked"


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len({sql for sql, _ in CORPUS}) >= 150
    assert len(set(REFUSED)) >= 40
