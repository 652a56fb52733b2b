"""Versions of a dataset: going back to one, comparing two."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts import rows as r
from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.errors import ErrorKind
from lakehouse.ingestd.rows import comparing
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.dataset import Card
from lakehouse.model.identity import Context
from support_around import READER, Around, refused
from support_ingest import CTX, Lake


@pytest.fixture
async def around(lake: Lake) -> Around:
    return Around(lake, Rows(lake.ingest.parts))


# Going back.


async def test_a_keyed_dataset_goes_back_by_row_changes(around: Around) -> None:
    before = await around.keyed()
    await around.upsert({"id": 1, "name": "z", "n": 9}, {"id": 7, "name": "q"})
    await around.delete(2)
    await around.widen("phone:string", "n:string")
    dry = await around.restore(before, dry_run=True)
    assert dry.dry_run
    report = await around.restore(before, reason="it was wrong")
    assert (report.inserted, report.updated, report.deleted) == (1, 1, 1)
    assert replace(report, version=dry.version, dry_run=True) == dry
    for n, name, count in ((1, "a", "5"), (2, "b", "6"), (3, "c", "7")):
        assert await around.get(n) == {"id": n, "name": name, "n": count, "phone": None}
    await refused(around.get(7), ErrorKind.NOT_FOUND)
    again = await around.restore(before)
    assert (again.no_op, again.version) == (True, report.version)
    entry = await around.entry()
    assert (entry.operation, entry.reason) == ("restore", "it was wrong")
    assert (entry.rows_added, entry.rows_removed) == (2, 2)
    assert (await around.diff(before)).rows == ()


async def test_an_unkeyed_dataset_goes_back_by_its_files(around: Around) -> None:
    lake = around.lake
    await lake.put(b"a\n1\n2\n")
    await lake.put(b"a\n3\n", mode="append")
    before = (await around.dataset()).version
    await lake.put(b"a\n9\n", mode="replace")
    await lake.ingest.parts.sessions.close()
    report = await around.restore(before, reason="why")
    assert (report.inserted, report.deleted) == (3, 1)
    assert [row["a"] for row in await lake.rows()] == [1, 2, 3]
    assert (await around.restore(before)).no_op
    assert (await around.dataset()).row_count == 3


async def test_an_unkeyed_dataset_that_was_widened_goes_back(around: Around) -> None:
    lake = around.lake
    await lake.put(b"a\n1\n2\n")
    before = (await around.dataset()).version
    await around.widen("b:string", "a:string")
    await lake.put(b"a,b\nx,y\n", mode="replace")
    assert (await around.restore(before)).inserted == 2
    assert [row["a"] for row in await lake.rows()] == [1, 2]
    dataset = await around.dataset()
    assert dataset.schema.names() == ("a", "b")
    await around.set_key("a")
    assert await around.get("1") == {"a": "1", "b": None}


async def test_rows_without_a_key_are_not_lost_by_going_back(around: Around) -> None:
    await around.lake.put(b"id,n\n1,1\n,2\n")
    nulls = (await around.dataset()).version
    await around.lake.put(b"id,n\n1,1\n1,2\n", mode="replace")
    twice = (await around.dataset()).version
    await around.lake.put(b"id,n\n5,5\n", mode="replace")
    await around.set_key("id")
    for version in (nulls, twice):
        await refused(around.restore(version))
    assert await around.get(5) == {"id": 5, "n": 5}


async def test_a_restore_needs_a_point_to_go_back_to(around: Around) -> None:
    await around.keyed()
    await refused(around.rows.restore(CTX, r.RestoreRowsRequest("t", AsOf())))
    await refused(around.restore(99), ErrorKind.NOT_FOUND)
    long_ago = AsOf(time=datetime(2001, 1, 1, tzinfo=UTC))
    request = r.RestoreRowsRequest("t", long_ago)
    await refused(around.rows.restore(CTX, request), ErrorKind.NOT_FOUND)


async def test_a_restore_that_meets_a_writer_is_worked_out_again(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await around.keyed()
    await around.upsert({"id": 1, "name": "z", "n": 9})
    commit = around.lake.catalog.commit
    other = Rows(around.lake.ingest.parts)
    met = []

    async def late(ctx: Context, request: c.CommitRequest) -> c.CommitResult:
        if any(getattr(one, "operation", "") == "restore" for one in request.changes) and not met:
            met.append(1)
            options = IngestOptions(format=SourceFormat.JSON)
            body = b'[{"id": 8, "name": "new"}]'
            async with around.lake.ingest.parts.turns.of("elsewhere"):
                await _behind_turns(other, options, body)
        return await commit(ctx, request)

    async def _behind_turns(rows: Rows, options: IngestOptions, body: bytes) -> None:
        # As another process would: it waits for no turn of this one.
        fresh = type(around.lake.ingest.parts.turns)()
        monkeypatch.setattr(around.lake.ingest.parts, "turns", fresh)
        await rows.change(CTX, r.ChangeRowsRequest("t", r.RowChange.UPSERT, body, options))

    monkeypatch.setattr(around.lake.catalog, "commit", late)
    report = await around.restore(before)
    assert (report.updated, report.deleted) == (1, 1)
    await refused(around.get(8), ErrorKind.NOT_FOUND)
    assert (await around.get(1))["name"] == "a"


# Comparing.


async def test_added_removed_and_changed_rows(around: Around) -> None:
    before = await around.keyed()
    await around.upsert({"id": 1, "name": None, "n": 5}, {"id": 7, "name": "q"})
    await around.delete(2)
    found = await around.diff(before)
    assert (found.added, found.removed, found.changed) == (1, 1, 1)
    assert found.rows == (
        r.RowDifference("[1]", "changed", (r.FieldChange("name", '"a"', "null"),)),
        r.RowDifference(
            "[2]",
            "removed",
            tuple(r.FieldChange(f, v) for f, v in (("id", "2"), ("name", '"b"'), ("n", "6"))),
        ),
        r.RowDifference(
            "[7]",
            "added",
            (r.FieldChange("id", None, "7"), r.FieldChange("name", None, '"q"')),
        ),
    )
    back = await around.rows.diff(READER, r.DiffRequest("t", AsOf(), AsOf(version=before)))
    assert (back.added, back.removed, back.changed) == (1, 1, 1)
    await refused(around.diff(before, limit=0))
    await refused(around.diff(before, cursor="nonsense"))


@pytest.mark.parametrize("at_once", [150, 500_000])
async def test_random_differences_against_a_dict(
    around: Around, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(comparing, "_AT_ONCE", at_once)
    monkeypatch.setattr(comparing, "_KEPT_ROWS", 20 if at_once == 150 else 50_000)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    model: dict[int, int] = dict.fromkeys(range(200), 0)
    lines = "".join(f"{n},0\n" for n in model)
    states = {await around.keyed(b"id,n\n" + lines.encode()): dict(model)}
    for step in range(1, 7):
        chosen = chance.sample(range(300), 30)
        gone = [n for n in chosen if n in model][:8]
        rows = [{"id": n, "n": chance.randint(0, 2)} for n in chosen if n not in gone]
        await around.upsert(*rows)
        model |= {row["id"]: row["n"] for row in rows}
        version = await around.delete(*gone) if gone else 0
        for n in gone:
            del model[n]
        if step == 4:
            await around.rows.compact(CTX, r.CompactRequest("t", full=True))
        states[version or (await around.dataset()).version] = dict(model)
    for old, new in [chance.sample(list(states), 2) for _ in range(3)]:
        before, after = states[old], states[new]
        shown: dict[str, tuple[str, Any, Any]] = {}
        cursor, page = "", None
        while page is None or cursor:
            page = await around.diff(old, new, limit=25, cursor=cursor)
            keys = [json.loads(row.key_json)[0] for row in page.rows]
            assert keys == sorted(keys)
            for row in page.rows:
                assert row.key_json not in shown
                values = next(one for one in row.fields if one.field == "n")
                shown[row.key_json] = (row.change, values.old_json, values.new_json)
            cursor = page.cursor
        added = {n for n in after if n not in before}
        removed = {n for n in before if n not in after}
        changed = {n for n in before if n in after and before[n] != after[n]}
        assert (page.added, page.removed, page.changed) == (len(added), len(removed), len(changed))
        expected = {f"[{n}]": ("added", None, str(after[n])) for n in added}
        expected |= {f"[{n}]": ("removed", str(before[n]), None) for n in removed}
        expected |= {f"[{n}]": ("changed", str(before[n]), str(after[n])) for n in changed}
        assert shown == expected


async def test_a_comparison_that_goes_on_is_of_the_versions_it_began_with(around: Around) -> None:
    before = await around.keyed()
    await around.upsert({"id": 1, "name": "z"}, {"id": 2, "name": "z"})
    first = await around.diff(before, limit=1)
    await around.upsert({"id": 2, "name": "y"}, {"id": 9, "name": "y"})
    second = await around.diff(before, limit=1, cursor=first.cursor)
    assert (second.new_version, second.changed) == (first.new_version, 2)
    assert [row.key_json for row in (*first.rows, *second.rows)] == ["[1]", "[2]"]
    assert second.cursor == ""


async def test_versions_from_before_the_key_are_compared_by_it(around: Around) -> None:
    await around.lake.put(b"id,n\n1,1\n2,2\n")
    before = (await around.dataset()).version
    await around.set_key("id")
    await around.upsert({"id": 1, "n": 9})
    found = await around.diff(before)
    assert (found.added, found.removed, found.changed) == (0, 0, 1)
    assert (await around.restore(before)).updated == 1


async def test_versions_under_different_keys_are_not_mixed(around: Around) -> None:
    lake = around.lake
    await around.keyed()
    await around.upsert({"id": 1, "name": "z", "n": 9})
    before = (await around.dataset()).version
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1, 2], "name": ["a", "b"], "n": [5, 6]}), sink)
    await lake.buckets.get("primary").put("in/t.parquet", sink.getvalue().to_pybytes())
    name, objects = (await around.dataset()).name, (c.ForeignObject("in/t.parquet"),)
    card = Card(owner="ada", description="people")
    other = c.RegisterRequest(name, objects, card, primary_key=("name",))
    await lake.catalog.register(CTX, other)
    rows = (await around.dataset()).row_count
    for call in (around.diff(before), around.restore(before)):
        error = await refused(call, ErrorKind.INVALID)
        assert "different primary keys" in error.message
    assert ((await around.dataset()).row_count, rows) == (2, 2)
