"""The journal of a real catalog: changes, folds, collection; and the same told by plain DuckDB."""

from __future__ import annotations

import ast
import importlib.util
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts import catalog as c
from lakehouse.contracts import rows as r
from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.ingest import (
    ColumnOverride,
    IngestMode,
    IngestOptions,
    IngestRequest,
    SourceFormat,
)
from lakehouse.contracts.journal import EventsRequest, FeedRequest, HistoryRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.service import Journal
from lakehouse.ingestd.rows.service import Rows
from lakehouse.ingestd.service import Ingest
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.model.dataset import EVENTS
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from support_ingest import CTX, chunks

SCRIPT: Final = Path(__file__).resolve().parents[3] / "docs" / "examples" / "walk_back.py"
JSON: Final = IngestOptions(format=SourceFormat.JSON)


@dataclass
class Place:
    """A store in a folder, and its services over a dataset ``t``."""

    catalog: Catalog
    buckets: Buckets
    ingest: Ingest
    rows: Rows
    journal: Journal
    folder: Path

    async def load(self, rows: list[dict[str, Any]], mode: str = "auto", **schema: str) -> int:
        columns = tuple(ColumnOverride(name, kind) for name, kind in schema.items())
        request = IngestRequest("t", IngestMode(mode), options=replace(JSON, columns=columns))
        request = replace(request, key=("a", "b")) if mode == "auto" else request
        nulls = dict.fromkeys(schema)
        data = json.dumps([nulls | row for row in rows]).encode()
        return (await self.ingest.ingest(CTX, request, chunks(data))).version

    async def change(self, change: r.RowChange, body: list[Any]) -> int:
        request = r.ChangeRowsRequest("t", change, json.dumps(body).encode(), JSON)
        return (await self.rows.change(CTX, request)).version

    async def compact(self, full: bool = False) -> None:
        await self.rows.compact(CTX, r.CompactRequest("t", full))

    async def now(self) -> pa.Table:
        snapshot, _ = await self.ingest.parts.reader.snapshot(CTX, "t")
        return await self.ingest.parts.reader.read(snapshot)

    async def event_files(self) -> list[tuple[str, int]]:
        page = await self.catalog.files(CTX, c.PageRequest("t"))
        found = [file for file in page.files if file.content == EVENTS]
        return [(str(self.folder / file.key), file.seq) for file in found]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock = SystemClock()
    ids = SystemIds(clock)
    folder = tmp_path / "bucket"
    buckets = Buckets([BucketSettings("primary", f"file://{folder}")], clock, ids)
    await init_store(buckets.get("primary"), clock, ids)
    settings = CatalogSettings(history_seconds=0.0, collect_seconds=0.0)
    catalog = await open_catalog(settings, buckets, WriterInfo("tests", ""), clock, ids)
    ingest = Ingest(IngestSettings(spool_dir=str(tmp_path / "spool")), catalog, buckets, clock, ids)
    await ingest.start()
    rows = Rows(ingest.parts)
    yield Place(catalog, buckets, ingest, rows, Journal(ingest.parts), folder)
    await ingest.close()
    await catalog.close()
    await buckets.close()


def script() -> Any:
    spec = importlib.util.spec_from_file_location("walk_back", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TYPES: Final = {
    "a": "int64",
    "b": "string",
    "n": "int64",
    "d": "decimal(20,4)",
    "f": "float64",
    "day": "date",
    "at": "timestamptz",
    "t": "timestamp",
    "yes": "bool",
    "raw": "binary",
    "tags": "list<string>",
    "text": "string",
}


def random_row(chance: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {
        "n": chance.randint(-(2**60), 2**60),
        "d": f"{chance.randint(-(10**12), 10**12)}.{chance.randint(0, 9999):04d}",
        "f": chance.uniform(-1e9, 1e9),
        "day": f"20{chance.randint(10, 40)}-0{chance.randint(1, 9)}-11",
        "at": f"2026-01-01T00:00:{chance.randint(10, 59)}.{chance.randint(0, 999999):06d}Z",
        "t": f"2026-01-01T00:00:{chance.randint(10, 59)}",
        "yes": chance.random() < 0.5,
        "raw": chance.choice(["AAEC", "/w=="]),
        "tags": chance.choice([[], ["x"], ["y", None, 'ü "quoted"\n']]),
        "text": chance.choice(["", "null", "7", 'ü "quoted"\\\n\u0001', "[1]"]),
    }
    some = {name: value for name, value in values.items() if chance.random() < 0.7}
    return key_of(chance) | some


def key_of(chance: random.Random) -> dict[str, Any]:
    return {"a": chance.randint(1, 2), "b": chance.choice(["x", 'ü "q"\\\n\u0001', "7"])}


def ordered(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: (row["a"], row["b"]))


@pytest.mark.parametrize("seed", range(1))
async def test_plain_duckdb_walks_the_journal_back_to_any_row_at_any_version(
    place: Place, seed: int, tmp_path: Path
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    past = {await place.load([random_row(chance)], **TYPES): ordered(await place.now())}
    for _ in range(14):
        choice = chance.random()
        if choice < 0.7 or not (await place.now()).num_rows:
            batch = {(row["a"], row["b"]): row for row in [random_row(chance) for _ in range(2)]}
            version = await place.change(r.RowChange.UPSERT, list(batch.values()))
        elif choice < 0.85:
            gone = ordered(await place.now())[0]
            version = await place.change(r.RowChange.DELETE, [[gone["a"], gone["b"]]])
        else:
            version = await place.load([random_row(chance)], "replace")
        past[version] = ordered(await place.now())
        if chance.random() < 0.15:
            await place.compact(full=chance.random() < 0.5)
    now = tmp_path / "now.parquet"
    pq.write_table(await place.now(), now)
    files = await place.event_files()
    module = script()
    with duckdb.connect() as con:
        for version, expected in past.items():
            found = module.rows_at(con, str(now), files, ["a", "b"], version).to_arrow_table()
            assert ordered(found) == expected, version

    # And so do we, though nothing of then can be read any more.
    await place.catalog.collect(CTX, c.PlanRequest())
    with pytest.raises(LakehouseError):
        await place.ingest.parts.reader.snapshot(CTX, "t", AsOf(version=min(past)))
    last = max(past)
    keys = {(row["a"], row["b"]) for rows in past.values() for row in rows}
    for version in [*past][:-1][::3]:
        for key in keys:
            there = [row for row in past[version] if (row["a"], row["b"]) == key]
            ask = r.RowRequest("t", json.dumps(key), AsOf(version=version))
            if not there:
                with pytest.raises(LakehouseError) as caught:
                    await place.rows.get(CTX, ask)
                assert caught.value.fields["served_from"] == "journal"
                continue
            got = await place.rows.get(CTX, ask)
            assert (got.served_from, got.version) == ("journal", version)
            told = await place.journal.history(CTX, HistoryRequest("t", json.dumps(key), ask.as_of))
            assert (told.served_from, told.row_json) == ("journal", got.row_json)
            text = json.loads(got.row_json)
            assert [text["n"], text["text"], text["yes"], text["tags"]] == [
                _client(there[0]["n"]),
                there[0]["text"],
                there[0]["yes"],
                there[0]["tags"],
            ]
    assert last == (await place.catalog.get(CTX, c.GetRequest("t"))).dataset.rows_version


def _client(number: int | None) -> int | str | None:
    return number if number is None or abs(number) <= 2**53 else str(number)


def test_the_script_imports_nothing_of_ours() -> None:
    tree = ast.parse(SCRIPT.read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"json", "sys", "pathlib", "duckdb"}


async def test_the_journal_is_the_same_through_compaction_and_collection(place: Place) -> None:
    await place.load([{"a": 1, "b": "x"}], a="int64", b="string", n="int64")
    for number in range(16):
        body = [{"a": 1, "b": "x", "n": number}, {"a": number, "b": "y"}]
        await place.change(r.RowChange.UPSERT, body)
    await place.change(r.RowChange.DELETE, [[3, "y"], [4, "y"]])
    before = await place.journal.events(CTX, EventsRequest("t"))
    fed = [group async for group in (await place.journal.feed(CTX, FeedRequest("t"))).groups]
    assert [e for group in fed for e in group] == sorted(
        before.events, key=lambda event: (event.version, event.ordinal)
    )
    paged = []
    request = EventsRequest("t", limit=9)
    while True:
        result = await place.journal.events(CTX, request)
        paged += result.events
        if not result.cursor:
            break
        if len(paged) == 18:
            await place.compact()
        if len(paged) == 27:
            await place.compact(full=True)
            await place.catalog.collect(CTX, c.PlanRequest())
        request = replace(request, cursor=result.cursor)
    assert tuple(paged) == before.events
    assert len(await place.event_files()) == 1
    after = await place.journal.events(CTX, EventsRequest("t"))
    assert after.events == before.events
    again = [group async for group in (await place.journal.feed(CTX, FeedRequest("t"))).groups]
    assert again == fed


async def test_values_from_before_a_wider_type_are_read_back_beyond_the_horizon(
    place: Place,
) -> None:
    types = {"a": "int64", "b": "string", "n": "int64", "day": "date", "m": "int64"}
    first = await place.load([{"a": 1, "b": "x", "n": 7, "day": "2026-03-01", "m": 1}], **types)
    wider = (ColumnOverride("n", "string"), ColumnOverride("day", "timestamp"))
    wider += (ColumnOverride("m", "decimal(22,2)"),)
    await place.change(r.RowChange.UPSERT, [{"a": 1, "b": "x", "n": 8}])
    await place.rows.widen(CTX, r.WidenRequest("t", (ColumnOverride("new", "string"),), wider))
    await place.change(r.RowChange.UPSERT, [{"a": 1, "b": "x", "n": "many", "new": "1"}])
    await place.catalog.collect(CTX, c.PlanRequest())
    ask = r.RowRequest("t", '[1,"x"]', AsOf(version=first))
    result = await place.rows.get(CTX, ask)
    assert result.served_from == "journal"
    row = json.loads(result.row_json)
    assert (row["n"], row["new"]) == ("7", None)
    assert row["day"].startswith("2026-03-01")
    assert float(row["m"]) == 1.0


async def test_a_dropped_dataset_and_one_of_its_name(place: Place) -> None:
    await place.load([{"a": 1, "b": "x"}], a="int64", b="string")
    await place.change(r.RowChange.UPSERT, [{"a": 2, "b": "x"}])
    await place.catalog.drop(CTX, c.DropRequest("t"))
    told = await place.journal.events(CTX, EventsRequest("t"))
    assert [event.operation for event in told.events] == ["upsert", "create"]
    assert (await place.journal.events(CTX, EventsRequest())).events == told.events
    history = await place.journal.history(CTX, HistoryRequest("t", '[2,"x"]'))
    assert (history.row_json, len(history.revisions)) == (None, 1)
    await place.catalog.drop(CTX, c.DropRequest("t", purge=True))
    with pytest.raises(LakehouseError) as caught:
        await place.journal.events(CTX, EventsRequest("t"))
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert (await place.journal.events(CTX, EventsRequest())).events == ()
