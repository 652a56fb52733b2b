"""More rows than one query may give: read in ranges of the key, all of them, each once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.contracts import vectors as c
from lakehouse.contracts.query import QueryLimits, QueryRequest, QueryService, QueryStream
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.vectors import VersionState
from lakehouse.vectord import ranges
from lakehouse.vectord.ranges import RangeReader, Scan
from support_vectors import ADA, Shelf
from unit.vectord.building_support import Service, built, found

pytestmark = pytest.mark.asyncio(loop_scope="module")
_BYTES = 24_000


@dataclass
class Tight:
    """Queries that may give ``bytes_max`` at most. ``refused``: which were over it."""

    query: QueryService
    bytes_max: int = _BYTES
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def run(self, ctx: Context, request: QueryRequest) -> QueryStream:
        self.asked.append(request.sql)
        limits = QueryLimits(bytes_max=self.bytes_max)
        try:
            stream = await self.query.run(ctx, replace(request, limits=limits))
        except LakehouseError:
            self.refused.append(request.sql)
            raise
        return QueryStream(stream.header, self._chunks(request, stream))

    async def _chunks(self, request: QueryRequest, stream: QueryStream) -> AsyncIterator[bytes]:
        try:
            async for chunk in stream.chunks:
                yield chunk
        except LakehouseError:
            self.refused.append(request.sql)
            raise


@asynccontextmanager
async def tight(store: Shelf, bytes_max: int = _BYTES) -> AsyncIterator[tuple[Service, Tight]]:
    query = Tight(store.query, bytes_max)
    other: Any = query
    async with replace(store, query=other).vectors() as service:
        yield service, query


def long(count: int, bytes_each: int = 500) -> list[dict[str, Any]]:
    return [
        {"id": f"ä{n:04}", "n": n % 3, "text": f"{n} " + "x" * bytes_each} for n in range(count)
    ]


async def test_a_dataset_over_the_limit_is_built_whole_and_searched(store: Shelf) -> None:
    rows = long(200)
    await store.put("large", rows)
    async with tight(store) as (service, query):
        await service[0].create_index(ADA, c.CreateIndexRequest("large", "large", ("text",)))
        version = await built(service[0], "large")
        assert (version.state, version.error) == (VersionState.READY, "")
        assert (version.documents, version.embedded_texts) == (200, 200)
        # The whole once, and quarters, and quarters of these at most: not one by one.
        assert 1 < len(query.refused) < 8
        texts = await found(store, version)
        assert {key: text[0] for key, text in texts.items()} == {
            f'["{row["id"]}"]': row["text"] for row in rows
        }
        refused = len(query.refused)
        request = c.SearchRequest("large", queries=(c.VectorQuery(text=rows[77]["text"]),), k=3)
        hits = (await service[0].search(ADA, request)).results[0].hits
        assert hits[0].key == '["ä0077"]'
        # What an image is made of was over the limit too.
        assert len(query.refused) > refused
        # A full weighing of what is there anew, by other queries: nothing is embedded again.
        await store.upsert("large", *({**row, "text": row["text"] + "."} for row in rows[:3]))
        await store.delete("large", "ä0150")
        version = await built(service[0], "large")
        assert (version.documents, version.embedded_texts) == (199, 203)


async def test_how_much_there_is_says_before_into_how_many_parts_it_is_read(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("parts", long(200))
    monkeypatch.setattr(ranges, "_ROWS_AT_ONCE", 15)
    async with tight(store) as (service, query):
        await service[0].create_index(ADA, c.CreateIndexRequest("parts", "parts", ("text",)))
        version = await built(service[0], "parts")
        assert (version.state, version.documents) == (VersionState.READY, 200)
        assert query.refused == []
        assert sum('"text" FROM "parts"' in sql for sql in query.asked) == 14


@pytest.mark.parametrize("key", [("id",), ("n", "id"), ("flag", "id"), ("id", "n")])
@pytest.mark.parametrize("sample", [10_000, 40])
async def test_every_row_is_read_once(
    store: Shelf, key: tuple[str, ...], sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_SAMPLE", sample)
    chance = random.Random(5)
    words = ["", "'", '"', "z", "Z", "é", "\u2028", "\U0001f600", "￿", "a" * 90]
    ids = {chance.choice(words) + str(chance.randrange(60)) for _ in range(150)}
    rows = [
        {"id": each, "n": chance.choice([-(2**63), -1, 2**63 - 1]), "flag": True, "text": "x" * 400}
        for each in ids
    ]
    name = f"each-{'-'.join(key)}-{sample}"
    await store.put(name, rows, key)
    query: Any = Tight(store.query, 9_000)
    async with store.vectors() as (_, profiles, _):
        parts = replace(profiles._parts, query=query)
        reader = RangeReader(parts)
        cut_by = tuple(one for one in key if one != "flag")
        scan = Scan(name, '"id", "n", "text"', cut_by, "length(text) = 400")
        version = (await store.dataset(name)).version
        table = await reader.whole(ADA, scan, version)
        assert query.refused
        assert sorted(table.column("id").to_pylist()) == sorted(ids)
        spools = [spool async for spool in reader.spools(ADA, scan, version, 12)]
        assert 8 < len(spools) < 40
        with pytest.raises(ValueError, match="closed file"):
            spools[0].whole()


async def test_most_rows_of_one_value_are_read_apart(store: Shelf) -> None:
    rows = [{"n": 7, "id": n, "text": "x" * 400} for n in range(60)]
    rows += [{"n": n, "id": 0, "text": "x" * 400} for n in range(3)]
    await store.put("skewed", rows, ("n", "id"))
    query: Any = Tight(store.query, 9_000)
    async with store.vectors() as (_, profiles, _):
        reader = RangeReader(replace(profiles._parts, query=query))
        scan = Scan("skewed", '"n", "id", "text"', ("n", "id"))
        table = await reader.whole(ADA, scan, (await store.dataset("skewed")).version)
    found = sorted(zip(table.column("n").to_pylist(), table.column("id").to_pylist(), strict=True))
    assert found == sorted((row["n"], row["id"]) for row in rows)


async def test_a_row_that_is_too_much_alone_is_refused_as_ever(store: Shelf) -> None:
    await store.put("huge", [*long(8, 50), {"id": "big", "n": 0, "text": "y" * 30_000}])
    query: Any = Tight(store.query)
    async with store.vectors() as (_, profiles, _):
        reader = RangeReader(replace(profiles._parts, query=query))
        scan = Scan("huge", '"id", "text"', ("id",))
        with pytest.raises(LakehouseError) as refused:
            await reader.whole(ADA, scan, (await store.dataset("huge")).version)
    assert refused.value.kind is ErrorKind.EXHAUSTED
    assert refused.value.fields["limit"] == "bytes_max"
    # All, a quarter, and what is left of it alone.
    assert len(query.refused) == 3


async def test_the_ends_of_ranges_leave_something_on_both_sides() -> None:
    chance = random.Random(9)
    for _ in range(300):
        values = [
            chance.randrange(chance.choice([1, 2, 5, 1000])) for _ in range(chance.randrange(40))
        ]
        ends: Any = ranges._ends(
            pa.table({"k": pa.array(values, pa.int64())}), chance.randrange(2, 9)
        )
        assert ends == sorted(set(ends))
        assert bool(ends) == (len(set(values)) > 1)
        for low, high in zip([-1, *ends], [*ends, 1001], strict=True):
            assert any(low < value <= high for value in values) or not ends
