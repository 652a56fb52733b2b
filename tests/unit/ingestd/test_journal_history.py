"""The past of a row: its revisions, and the row at any version, from the table or the journal."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.journal import HistoryRequest, HistoryResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.past import row_from_journal
from lakehouse.kit.clock import to_datetime
from lakehouse.model.dataset import DatasetStatus
from unit.ingestd.journal_support import CTX, Desk, desk


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path / "desk") as made:
        yield made


async def ask(at: Desk, key: str, as_of: AsOf | None = None, **more: Any) -> HistoryResult:
    return await at.journal.history(CTX, HistoryRequest("people", key, as_of or AsOf(), **more))


def row(result: HistoryResult) -> dict[str, Any] | None:
    return None if result.row_json is None else json.loads(result.row_json)


async def story(at: Desk) -> None:
    at.catalog.create("people", {"id": 1, "name": "old", "phone": "0"})
    await at.catalog.upsert("people", {"id": 7, "name": "Ann", "phone": "1"}, {"id": 8})
    await at.catalog.upsert(
        "people", {"id": 7, "name": "Anna", "phone": "2"}, actor="bob", reason="moved"
    )
    await at.catalog.delete("people", 7)
    await at.catalog.upsert("people", {"id": 7, "name": "Ann", "phone": "3"})


async def test_who_changed_it_from_what_to_what_and_why(at: Desk) -> None:
    await story(at)
    result = await ask(at, "7")
    assert (result.dataset, result.key_json, result.version) == ("people", "[7]", 5)
    assert (result.history_since, result.cursor, result.served_from) == (1, "", "table")
    assert row(result) == {"id": 7, "name": "Ann", "phone": "3"}
    assert [(one.version, one.kind, one.operation) for one in result.revisions] == [
        (5, "insert", "upsert"),
        (4, "delete", "delete"),
        (3, "update", "upsert"),
        (2, "insert", "upsert"),
    ]
    update = result.revisions[2]
    assert (update.actor, update.reason) == ("bob", "moved")
    assert [(one.field, one.old_json, one.new_json) for one in update.fields] == [
        ("name", '"Ann"', '"Anna"'),
        ("phone", '"1"', '"2"'),
    ]
    assert result.revisions[0].fields == ()
    # One that was born with the dataset has none until it is changed; others are none of it.
    assert (await ask(at, "[1]")).revisions == ()
    assert (await ask(at, "99")).revisions == ()


@pytest.mark.parametrize("folded", [False, True])
async def test_pages_of_whole_revisions(at: Desk, folded: bool) -> None:
    at.catalog.create("people")
    for number in range(18):
        await at.catalog.upsert("people", {"id": 7, "name": f"{number}", "phone": f"{number}"})
    if folded:
        await at.catalog.fold("people", 3, 14)
    whole = (await ask(at, "7")).revisions
    assert [len(one.fields) for one in whole] == [2] * 17 + [0]
    found: list[Any] = []
    cursor = ""
    while True:
        result = await ask(at, "7", limit=7, cursor=cursor)
        found += result.revisions
        cursor = result.cursor
        if not cursor:
            break
        await at.catalog.upsert("people", {"id": 7, "name": f"later {len(found)}"})
    assert tuple(found) == whole


def when(version: int, micros: int = 0) -> datetime:
    return to_datetime(1_790_000_000_000_000) + timedelta(seconds=version, microseconds=micros)


@pytest.mark.parametrize("seed", range(2))
async def test_the_journal_gives_any_row_at_any_version_as_the_table_did(
    at: Desk, seed: int
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    at.catalog.create("people", {"id": 0, "name": "born", "phone": None}, {"id": 1})
    for _ in range(11):
        held = at.catalog.held["people"]
        if chance.random() < 0.7 or not held.rows.num_rows:
            ids = chance.sample(range(3), 2)
            names = [chance.choice(["a", "b", None]) for _ in ids]
            rows = [
                {"id": one, "name": name, "phone": str(at.catalog.version)}
                for one, name in zip(ids, names, strict=True)
            ]
            await at.catalog.upsert("people", *rows)
        else:
            await at.catalog.delete("people", held.rows["id"][0].as_py())
    last = at.catalog.version
    table: dict[tuple[int, int], Any] = {}
    for version in range(1, last + 1):
        for one in range(3):
            result = await ask(at, str(one), AsOf(version=version))
            assert result.served_from == "table"
            table[one, version] = row(result)
    await at.catalog.fold("people", 2, 7, entries=True)
    at.catalog.horizon = last + 1
    for (one, version), expected in table.items():
        if version == last:
            continue
        result = await ask(at, str(one), AsOf(version=version))
        assert (row(result), result.served_from) == (expected, "journal"), (one, version)
    for version in (1, last // 2):
        for shift in (0, 999_999):
            result = await ask(at, "1", AsOf(time=when(version, shift)))
            assert (row(result), result.served_from) == (table[1, version], "journal")


async def test_a_row_beyond_the_horizon_for_others(at: Desk) -> None:
    await story(at)
    at.catalog.horizon = 5
    dataset = at.catalog.held["people"].dataset
    keys = pa.table({"id": pa.array([7], pa.int64())})
    found, version = await row_from_journal(at.parts, CTX, dataset, keys, AsOf(time=when(3)))
    assert version == 3
    assert found is not None
    assert found.to_pylist() == [{"id": 7, "name": "Anna", "phone": "2"}]
    # What was decoded for it serves the next.
    at.reader.local = None  # type: ignore[assignment]
    assert await row_from_journal(at.parts, CTX, dataset, keys, AsOf(version=4)) == (None, 4)
    # What is committed after the row was read is not undone twice.
    real = at.reader.find

    async def find(snapshot: Any, keys: pa.Table) -> pa.Table:
        rows = await real(snapshot, keys)
        await at.catalog.upsert("people", {"id": 7, "name": "later", "phone": "later"})
        return rows

    at.reader.find = find  # type: ignore[method-assign]
    found, _ = await row_from_journal(at.parts, CTX, dataset, keys, AsOf(version=3))
    assert found is not None
    assert found.to_pylist() == [{"id": 7, "name": "Anna", "phone": "2"}]


async def test_what_is_before_the_journal_is_said(at: Desk) -> None:
    await story(at)
    held = at.catalog.held["people"]
    held.dataset = replace(held.dataset, history_since=3)
    at.catalog.horizon = 5
    assert row(await ask(at, "7", AsOf(version=3))) == {"id": 7, "name": "Anna", "phone": "2"}
    for as_of in (AsOf(version=2), AsOf(time=when(2)), AsOf(time=when(0))):
        with pytest.raises(LakehouseError) as caught:
            await ask(at, "7", as_of)
        assert caught.value.kind is ErrorKind.NOT_FOUND
        assert caught.value.fields["history_since"] == 3


async def test_a_dropped_dataset_has_a_past(at: Desk) -> None:
    await story(at)
    held = at.catalog.held["people"]
    at.catalog.version += 1
    held.dataset = replace(held.dataset, status=DatasetStatus.DROPPED, version=at.catalog.version)
    at.catalog.horizon = 5
    assert (await ask(at, "7")).row_json is None
    result = await ask(at, "7", AsOf(version=3))
    assert (len(result.revisions), row(result)) == (4, {"id": 7, "name": "Anna", "phone": "2"})


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (HistoryRequest("none", "7"), ErrorKind.NOT_FOUND),
        (HistoryRequest("people", "x"), ErrorKind.INVALID),
        (HistoryRequest("people", "[1,2]"), ErrorKind.INVALID),
        (HistoryRequest("people", "null"), ErrorKind.INVALID),
        (HistoryRequest("bulky", "7"), ErrorKind.INVALID),
        (HistoryRequest("people", "7", limit=0), ErrorKind.INVALID),
        (HistoryRequest("people", "7", limit=1001), ErrorKind.INVALID),
        (HistoryRequest("people", "7", cursor="odd"), ErrorKind.INVALID),
    ],
)
async def test_what_makes_no_sense_is_said(
    at: Desk, request_: HistoryRequest, kind: ErrorKind
) -> None:
    at.catalog.create("people")
    at.catalog.create("bulky", key=())
    with pytest.raises(LakehouseError) as caught:
        await at.journal.history(CTX, request_)
    assert caught.value.kind is kind
