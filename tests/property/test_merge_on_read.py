"""Reads of a dataset whose rows change by key equal a dict, on both engines, whatever the plan."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts.query import Engine, QueryRequest, ResultFormat
from lakehouse.model.dataset import KEYS, ROWS
from lakehouse.model.schema import Column, Schema
from lakehouse.queryd import scan
from lakehouse.queryd.service import Query
from lakehouse.table.merge import Layer, fold
from lakehouse.table.types import arrow_schema
from unit.queryd.fake_catalog import CTX, FakeCatalog, make_query

SEEDS = range(8)
STEPS = 9
ENGINES = (Engine.DUCKDB, Engine.DATAFUSION)
Row = dict[str, Any]

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Key columns by their types, and how to make the key of a number.
KEY_SHAPES: tuple[tuple[tuple[str, ...], Callable[[int], tuple[Any, ...]]], ...] = (
    (("int64",), lambda n: (n - 20,)),
    (("string",), lambda n: ("ä'\"" + "x" * (n % 3) + str(n),)),
    (("string", "int64"), lambda n: (f"k{n // 5}", n % 5)),
    (("date", "bool"), lambda n: (date.fromordinal(738_000 + n // 2), n % 2 == 0)),
    (("decimal(12,2)",), lambda n: (Decimal(n).scaleb(-1).quantize(Decimal("0.01")),)),
    (("timestamp", "binary"), lambda n: (datetime(2026, 1, 1 + n % 28), bytes([n, 0, 255]))),
    (("uint64",), lambda n: (2**64 - 1 - n,)),
    (("time",), lambda n: (datetime(2026, 1, 1, n % 24, n).time(),)),
)
# What a worker may read into memory: all of it, nothing, or what lies between.
BOUNDS = ((200_000, 10_000), (0, 0), (200_000, 0), (7, 5))


class Table:
    """A dataset of a fake catalog and, as a dict, what it must hold."""

    def __init__(self, catalog: FakeCatalog, seed: int) -> None:
        self.random = random.Random(seed)
        types, self.make = KEY_SHAPES[seed % len(KEY_SHAPES)]
        self.key = tuple(f"Key.{at}" if seed % 3 == 0 else f"k{at}" for at in range(len(types)))
        pairs = [*zip(self.key, types, strict=True), ("__seq", "int64"), ("note", "string")]
        columns = tuple(Column(at + 1, name, kind) for at, (name, kind) in enumerate(pairs))
        self.schema = Schema(1, columns)
        self.catalog, self.name = catalog, f"t{seed}"
        self.rows: dict[int, Row] = {}
        base = [self._row(n) for n in range(0, 40, 2)]
        catalog.put(self.name, *(self._table(part) for part in (base[:12], base[12:])))
        catalog.declare(self.name, *self.key)

    def step(self) -> None:
        """A commit of some kind."""
        kind = self.random.choice(["upsert"] * 5 + ["delete"] * 2 + ["minor", "major", "widen"])
        if kind == "upsert":
            self._change(self._some(0.25), ())
        elif kind == "delete":
            self._change((), self._some(0.15))
        elif kind == "widen":
            self._widen()
        else:
            self._compact(kind)

    def _some(self, share: float) -> list[int]:
        return [n for n in range(48) if self.random.random() < share] or [3]

    def _row(self, n: int) -> Row:
        known = dict(zip(self.key, self.make(n), strict=True))
        whole: Any = self.random.choice([None, self.random.randrange(5)])
        if self.schema.columns[len(self.key)].type == "string" and whole is not None:
            whole = str(whole)
        row = {**known, "__seq": whole, "note": self.random.choice([None, "", "a", "ü" * 30])}
        for column in self.schema.columns[len(row) :]:
            row[column.name] = self.random.choice([None, 1.5])
        self.rows[n] = row
        return row

    def _table(self, rows: list[Row]) -> pa.Table:
        return pa.Table.from_pylist(rows, arrow_schema(self.schema))

    def _change(self, upserted: Any, deleted: Any) -> None:
        hidden = [dict(self.rows[n]) for n in (*upserted, *deleted) if n in self.rows]
        files = []
        new = [self._row(n) for n in upserted]
        for n in deleted:
            self.rows.pop(n, None)
        if new:
            files.append((ROWS, self._table(new)))
        if hidden:
            keys = self._table([{name: row[name] for name in self.key} for row in hidden])
            files.append((KEYS, _with_meta(keys.select(self.key))))
        if files:
            self.catalog.change(self.name, *files, schema=self.schema)

    def _widen(self) -> None:
        """Another column at the end, and once a column of whole numbers becomes one of texts."""
        if self.schema.id > 3:
            return
        columns = list(self.schema.columns)
        if self.schema.id == 2:
            columns[len(self.key)] = replace(columns[len(self.key)], type="string")
        columns.append(Column(len(columns) + 1, f"more{len(columns)}", "float64"))
        self.schema = Schema(self.schema.id + 1, tuple(columns))
        for row in self.rows.values():
            row[columns[-1].name] = None
            if self.schema.id == 3 and row["__seq"] is not None:
                row["__seq"] = str(row["__seq"])
        self.catalog.change(self.name, schema=self.schema)

    def _compact(self, kind: str) -> None:
        """All changes as one, or everything as one file of rows."""
        snapshot = self.catalog.states[-1][self.name]
        first = min((file.seq for file in snapshot.files if file.content == KEYS), default=0)
        run = [file for file in snapshot.files if file.seq >= first or kind == "major"]
        if not first or any(file.schema_id != self.schema.id for file in run):
            return
        layers: dict[str, list[Layer]] = {ROWS: [], KEYS: []}
        for file in run:
            layers[file.content].append(Layer(file.seq, self.catalog.read(file)))
        folded = fold(layers[ROWS], layers[KEYS], self.key, self.schema)
        made = [(ROWS, folded.rows), (KEYS, folded.keys)]
        if kind == "major":
            assert folded.keys.num_rows == 0
            made = made[:1]
        seq = max(file.seq for file in run)
        self.catalog.rewrite(self.name, run, [part for part in made if part[1].num_rows], seq)


def _with_meta(keys: pa.Table) -> pa.Table:
    count = keys.num_rows
    more = {
        "__op": pa.array(["update"] * count),
        "__ordinal": pa.array(range(count), pa.int64()),
        "__row_hash": pa.array([1] * count, pa.uint64()),
    }
    for name, values in more.items():
        keys = keys.append_column(name, values)
    return keys


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[FakeCatalog, Query]]:
    catalog = FakeCatalog(tmp_path_factory.mktemp("bucket"))
    made, buckets = make_query(tmp_path_factory.mktemp("query"), catalog)
    await made.start()
    yield catalog, made
    await made.close()
    await buckets.close()


async def ask(query: Query, sql: str, engine: Engine, params: tuple[Any, ...] = ()) -> pa.Table:
    request = QueryRequest(
        sql,
        orjson.dumps([str(one) for one in params]).decode(),
        engine=engine,
        format=ResultFormat.ARROW,
    )
    stream = await query.run(CTX, request)
    body = b"".join([chunk async for chunk in stream.chunks])
    return pa.ipc.open_stream(body).read_all()


def _bag(rows: list[Row]) -> Counter[tuple[tuple[str, Any], ...]]:
    return Counter(tuple(sorted(row.items(), key=lambda pair: pair[0])) for row in rows)


async def _check(query: Query, table: Table, engine: Engine) -> None:
    there = list(table.rows.values())
    name = table.name
    whole = await ask(query, f"select * from {name}", engine)
    assert _bag(whole.to_pylist()) == _bag(there)
    assert whole.column_names == list(table.schema.names())
    counted = await ask(query, f"select count(*) n, count(note) m from {name}", engine)
    notes = sum(row["note"] is not None for row in there)
    assert counted.to_pylist() == [{"n": len(there), "m": notes}]
    grouped = await ask(query, f"select note, count(*) n from {name} group by note", engine)
    expected = Counter(row["note"] for row in there)
    assert {row["note"]: row["n"] for row in grouped.to_pylist()} == dict(expected)
    empty = await ask(query, f"select note from {name} where note is null", engine)
    assert empty.num_rows == expected[None]
    text = table.schema.columns[len(table.key)].type == "string"
    value = "3" if text else 3
    same = await ask(query, f"select note from {name} where __seq = ?", engine, (value,))
    assert Counter(same.column(0).to_pylist()) == Counter(
        row["note"] for row in there if row["__seq"] == value
    )
    await _check_keys(query, table, engine)


async def _check_keys(query: Query, table: Table, engine: Engine) -> None:
    """Rows by key, and by a bound of its first column."""
    if table.schema.columns[0].type in ("bool", "binary", "time", "uint64"):
        return
    first = table.key[0]
    for n in table.random.sample(range(48), 2):
        key = table.make(n)[0]
        found = await ask(
            query, f'select note, "{first}" from {table.name} where "{first}" = ?', engine, (key,)
        )
        wanted = [row for row in table.rows.values() if row[first] == key]
        assert Counter(found.column(0).to_pylist()) == Counter(row["note"] for row in wanted)
        above = await ask(
            query, f'select count(*) from {table.name} where "{first}" >= ?', engine, (key,)
        )
        count = sum(row[first] >= key for row in table.rows.values())
        assert above.column(0).to_pylist() == [count]


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_read_equals_a_dict(
    service: tuple[FakeCatalog, Query], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    catalog, query = service
    table = Table(catalog, seed)
    for step in range(STEPS):
        rows_max, base_max = table.random.choice(BOUNDS)
        monkeypatch.setattr(scan, "LAYERED_ROWS_MAX", rows_max)
        monkeypatch.setattr(scan, "BASE_ROWS_MAX", base_max)
        table.step()
        if step % 3 == 2:
            for engine in ENGINES:
                await _check(query, table, engine)
