"""The janitor asks for what is due, once, and lets an idle store be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lakehouse.contracts.catalog import CatalogStatus, ListRequest, ListResult, StatusRequest
from lakehouse.contracts.rows import CompactReport, CompactRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.janitor.service import Janitor
from lakehouse.janitor.settings import JanitorSettings
from lakehouse.model.dataset import Card, Dataset, DatasetStatus
from lakehouse.model.identity import Context, Scope
from lakehouse.model.schema import Column, Schema
from lakehouse.testing.clocks import ManualClock, SeededIds

AT = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = Schema(1, (Column(1, "id", "int64"),))
REPORT = CompactReport("", 0, "nothing", *[0] * 7, "", 0, 0, 0, 0, 0.0, no_op=True)


def dataset(name: str, keys: int = 0, events: int = 0, rows: int = 1, **more: Any) -> Dataset:
    counts = {"files": keys + events + rows, "key_files": keys, "event_files": events}
    made = Dataset(name, name, "", SCHEMA, DatasetStatus.LIVE, Card(), AT, AT, 5, 0, 10**9, 0)
    return replace(made, **counts, **more)


@dataclass
class Store:
    """A catalog of some datasets, and what is asked of it and of compaction."""

    datasets: list[Dataset] = field(default_factory=list)
    version: int = 5
    lists: int = 0
    asked: list[str] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0

    async def status(self, ctx: Context, request: StatusRequest) -> CatalogStatus:
        return CatalogStatus("s", self.version, *[0] * 2, "", "", *[0] * 6)  # type: ignore[arg-type]

    async def list(self, ctx: Context, request: ListRequest) -> ListResult:
        self.lists += 1
        start = int(request.cursor or 0)
        end = start + 2
        cursor = str(end) if end < len(self.datasets) else ""
        return ListResult(tuple(self.datasets[start:end]), self.version, cursor)

    async def compact(self, ctx: Context, request: CompactRequest) -> CompactReport:
        ctx.require(Scope.WRITE)
        assert not request.full
        self.asked.append(request.dataset)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if request.dataset in self.fails:
            raise LakehouseError(ErrorKind.CORRUPT, "an object is not what the catalog says it is")
        return REPORT


def janitor(store: Store, clock: ManualClock | None = None, **settings: Any) -> Janitor:
    made: Any = store
    return Janitor(JanitorSettings(**settings), made, made, clock or ManualClock(), SeededIds())


async def test_it_asks_for_what_is_beyond_a_count() -> None:
    store = Store(
        [
            dataset("keys", keys=8),
            dataset("few", keys=7, events=64),
            dataset("events", events=65),
            dataset("small", rows=65),
            dataset("large", rows=65, size_bytes=65 << 26),
            dataset("gone", keys=99, status=DatasetStatus.DROPPED),
        ]
    )
    one = janitor(store)
    assert await one.look() == 3
    assert sorted(store.asked) == ["events", "keys", "small"]
    assert store.lists == 3, "it goes through all pages"
    assert store.most_at_once == 2


async def test_an_idle_store_costs_one_call_a_pass() -> None:
    store = Store([dataset("keys", keys=8)])
    one = janitor(store)
    assert [await one.look() for _ in range(4)] == [1, 0, 0, 0]
    assert store.lists == 1
    # Another dataset changed: this one is as it was left.
    store.version += 1
    assert await one.look() == 0
    store.datasets[0] = replace(store.datasets[0], version=6)
    store.version += 1
    assert await one.look() == 1


async def test_what_fails_is_asked_for_again_after_ever_more_passes() -> None:
    store = Store([dataset("bad", keys=8), dataset("good", keys=8)], fails={"bad"})
    one = janitor(store)
    asked = [await one.look() for _ in range(12)]
    assert asked == [2, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    store.fails.clear()
    while store.asked.count("bad") < 5:
        await one.look()
    lists = store.lists
    assert await one.look() == 0
    assert store.lists == lists, "nothing is left to be tried again"


@pytest.mark.parametrize("seconds", [60.0, 0.0])
async def test_the_timetable(seconds: float) -> None:
    store, clock = Store([dataset("keys", keys=8)]), ManualClock()
    one = janitor(store, clock, compact_seconds=seconds)
    one.start()
    await clock.advance(61)
    assert store.asked == (["keys"] if seconds else [])
    await one.close()
    await one.close()
    assert clock.sleepers == 0


async def test_a_catalog_that_does_not_answer_is_asked_again() -> None:
    store, clock = Store([dataset("keys", keys=8)]), ManualClock()
    status, failed = store.status, []

    async def broken(ctx: Context, request: StatusRequest) -> CatalogStatus:
        if not failed:
            failed.append(1)
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the catalog opens")
        return await status(ctx, request)

    store.status = broken  # type: ignore[method-assign]
    one = janitor(store, clock)
    one.start()
    await clock.advance(200)
    await one.close()
    assert store.asked == ["keys"]
    shown = {figure.name: values for figure, values in one.figures()}
    assert shown["lakehouse_janitor_passes"][("unavailable",)] == 1
    assert shown["lakehouse_janitor_compactions"] == {("no_op",): 1}
