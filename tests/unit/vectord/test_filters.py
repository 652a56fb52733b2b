"""Filters that are asked again: no query, and never an answer of before or of others."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts import vectors as c
from lakehouse.contracts.query import QueryRequest, QueryService, QueryStream
from lakehouse.errors import LakehouseError
from lakehouse.model.identity import Context
from lakehouse.vectord.filters import Filters, is_settled
from lakehouse.vectord.source import Source
from support_vectors import ADA, READER, Shelf
from unit.vectord.building_support import Service, built

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Counted:
    """``asked``: the conditions of filters, in their order."""

    query: QueryService
    asked: list[str] = field(default_factory=list)

    async def run(self, ctx: Context, request: QueryRequest) -> QueryStream:
        if "WHERE (\n" in request.sql:
            self.asked.append(request.sql.split("WHERE (\n")[1])
        return await self.query.run(ctx, request)


@pytest_asyncio.fixture(loop_scope="module")
async def counted(store: Shelf) -> AsyncIterator[tuple[Service, Counted]]:
    query: Any = Counted(store.query)
    async with replace(store, query=query).vectors(follow=True, follow_seconds=0.02) as service:
        yield service, query


async def made(service: Service, store: Shelf, name: str) -> None:
    rows = [{"id": n, "text": f"word{n}", "part": n % 3, "kind": "ab"[n % 2]} for n in range(30)]
    await store.put(name, rows)
    await service[0].create_index(ADA, c.CreateIndexRequest(name, name, ("text",)))
    await built(service[0], name)


async def keys(service: Service, name: str, condition: str, who: Context = ADA) -> set[int]:
    request = c.SearchRequest(name, (c.VectorQuery(text="word"),), k=100, filter=condition)
    found = await service[0].search(who, request)
    return {int(hit.key.strip("[]")) for hit in found.results[0].hits}


async def test_a_filter_that_is_asked_again_costs_no_query(
    store: Shelf, counted: tuple[Service, Counted]
) -> None:
    service, query = counted
    await made(service, store, "again")
    wanted = {n for n in range(30) if n % 3 == 1 and n % 2 == 0}
    for _ in range(4):
        assert await keys(service, "again", "part = 1 AND kind = 'a'") == wanted
    assert len(query.asked) == 1
    assert service[0]._searching.asking._filters.hits == 3
    assert await keys(service, "again", "part = 2 AND kind = 'a'") != wanted
    assert len(query.asked) == 2


async def test_rows_that_changed_are_seen_at_once(
    store: Shelf, counted: tuple[Service, Counted]
) -> None:
    service, query = counted
    await made(service, store, "moved")
    chance = random.Random(3)
    parts = {n: n % 3 for n in range(30)}
    for step in range(12):
        condition = f"part = {step % 2}"
        for _ in range(2):
            wanted = {n for n, part in parts.items() if part == step % 2}
            assert await keys(service, "moved", condition) == wanted
        # The text stays as it is: nothing is embedded, and only the filter says something else.
        n = chance.choice([*parts])
        if step % 3 == 2:
            await store.delete("moved", n)
            del parts[n]
        else:
            parts[n] = chance.randrange(3)
            row = {"id": n, "text": f"word{n}", "part": parts[n], "kind": "a"}
            await store.upsert("moved", row)
    assert len(query.asked) == 12


async def test_nobody_is_given_what_somebody_else_asked(
    store: Shelf, counted: tuple[Service, Counted]
) -> None:
    service, query = counted
    await made(service, store, "others")
    wanted = await keys(service, "others", "part = 1")
    assert await keys(service, "others", "part = 1", READER) == wanted
    assert len(query.asked) == 2
    # The same caller with fewer rights is another one, too.
    fewer = replace(ADA, principal=replace(ADA.principal, scopes=READER.principal.scopes))
    assert await keys(service, "others", "part = 1", fewer) == wanted
    assert len(query.asked) == 3
    await keys(service, "others", "part = 1", replace(ADA, request_id="another"))
    assert len(query.asked) == 3


@pytest.mark.parametrize(
    "condition",
    [
        "id IN (SELECT id FROM second)",
        "random() < 2 AND part = 1",
        "part = 1 OR EXISTS (SELECT 1 FROM second)",
    ],
)
async def test_what_may_say_something_else_next_time_is_asked_each_time(
    store: Shelf, counted: tuple[Service, Counted], condition: str
) -> None:
    service, query = counted
    name = f"each-{condition[:7].strip(' (')}"
    await made(service, store, name)
    await store.put("second", [{"id": 1}, {"id": 2}], mode="replace")
    before = await keys(service, name, condition)
    await keys(service, name, condition)
    assert len(query.asked) == 2
    await store.put("second", [{"id": 7}], mode="replace")
    after = await keys(service, name, condition)
    assert (after == {7}) if "IN" in condition else (after == before)


async def test_a_filter_that_is_none_is_refused_each_time(
    store: Shelf, counted: tuple[Service, Counted]
) -> None:
    service, query = counted
    await made(service, store, "wrong")
    for _ in range(2):
        with pytest.raises(LakehouseError, match="the filter does not parse") as refused:
            await keys(service, "wrong", "part = = 1")
    assert len(query.asked) == 2
    assert refused.value.fields["filter"] == "part = = 1"
    assert refused.value.fields["line"] == 1  # of what the caller wrote, not of what is around it
    with pytest.raises(LakehouseError, match="the filter does not parse") as cut:
        await keys(service, "wrong", "part =")
    assert "line" not in cut.value.fields
    assert "condition" in str(cut.value.fields["hint"])


class _Picture:
    """What filters ask of an image."""

    def __init__(self, count: int) -> None:
        self.count = count

    def matching(self, entities: pa.Array) -> Any:
        return np.ones(self.count, np.bool_)


async def test_what_is_kept_is_bounded(store: Shelf) -> None:
    rows = [{"id": n, "part": n % 3, "kind": ""} for n in range(30)]
    await store.put("bounded", rows)
    found = await store.dataset("bounded")
    source = Source(found, found.version)
    image: Any = _Picture(2_000)
    async with store.vectors() as (_, profiles, _):
        filters = Filters(profiles._parts, bytes_max=10_000)
        for n in range(20):
            await filters.matching(ADA, source, image, f"part < {n}")
            assert filters.size_bytes <= 10_000
        assert 2 <= len(filters._kept) <= 5
        await filters.matching(ADA, source, image, "part < 19")
        assert filters.hits == 1
        await filters.matching(ADA, source, image, "part < 0")
        assert filters.hits == 1
        # More than a quarter of all is not kept, and pushes nothing out.
        kept = [*filters._kept]
        large: Any = _Picture(9_000)
        await filters.matching(ADA, source, large, "part < 100")
        assert [*filters._kept] == kept
        # Another image of the same rows: the keys are known, its flags are not.
        other: Any = _Picture(7)
        assert len(await filters.matching(ADA, source, other, "part < 19")) == 7
        assert filters.hits == 2
        assert sum(each.size_bytes for each in filters._kept.values()) == filters.size_bytes


SETTLED = (
    "part = 1",
    "part IN (1, 2, 3) AND NOT (kind LIKE '%x' OR kind IS NULL)",
    "\"kind\" <> 'it''s' and Part >= -1.5",
    "born > DATE '2020-01-01' or born < '1999-01-01'",
    "part % 2 = 0 AND part * 3 - 1 BETWEEN 1 AND 10",
    "true",
)
PASSING = (
    "part = random()",
    "part = 1 AND born < now()",
    "born < current_date",
    "born < 'now'",
    "born < ' Today '",
    "born < localtimestamp",
    "current_thing = 1",
    "kind = kind('x')",
    "kind = E'a'",
    "kind (1)",
    "part IN (SELECT part FROM people)",
    "part = 1) UNION SELECT id FROM people WHERE (true",
    "part = 1 -- AND",
    "part /* */ = 1",
    "kind = $$a$$",
    "part = $1",
    "part::text = '1'",
    "upper(kind) = 'A'",
    "other = 1",
    '"other" = 1',
    "part = 1; select 1",
    "kind = 'open",
    "x'ab' = kind",
    "user = 'ada'",
    "part = 1 AND " * 400 + "true",
)


async def test_only_columns_constants_and_comparisons_are_remembered(store: Shelf) -> None:
    row = {"id": 1, "part": 1, "kind": "", "born": "2020-01-01", "current_thing": 1, "user": "a"}
    await store.put("settled", [row])
    dataset = await store.dataset("settled")
    assert [each for each in SETTLED if not is_settled(each, dataset)] == []
    assert [each for each in PASSING if is_settled(each, dataset)] == []
