"""Files for a dataset with a primary key: upsert, append, replace, and what is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.rows import ChangeRowsRequest, RowChange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, Card, Dataset
from support_ingest import CTX, Lake, MakeLake

PEOPLE = b"id,name,phone\n1,ada,111\n2,bob,222\n3,cy,333\n"


async def keyed(lake: Lake) -> Lake:
    await lake.put(PEOPLE, "people", key=("id",))
    return lake


async def dataset_of(lake: Lake) -> Dataset:
    return (await lake.catalog.get(CTX, c.GetRequest("people"))).dataset


async def now(lake: Lake) -> dict[int, tuple[str, int]]:
    snapshot, _ = await lake.ingest.parts.reader.snapshot(CTX, "people")
    table = await lake.ingest.parts.reader.read(snapshot)
    rows = {row["id"]: (row["name"], row["phone"]) for row in table.to_pylist()}
    assert len(rows) == table.num_rows == (await dataset_of(lake)).row_count
    return rows


async def events(lake: Lake) -> list[dict[str, Any]]:
    files = (await lake.catalog.files(CTX, c.PageRequest("people"))).files
    told: list[dict[str, Any]] = []
    for file in files:
        if file.content == EVENTS:
            data = await lake.buckets.get(file.bucket).get(file.key)
            told += pq.read_table(pa.BufferReader(data)).to_pylist()
    return sorted(told, key=lambda row: (row["base_version"], row["ordinal"]))


async def contents(lake: Lake) -> list[str]:
    files = (await lake.catalog.files(CTX, c.PageRequest("people"))).files
    return [file.content for file in files]


async def test_an_upsert_makes_the_dataset_then_changes_it(lake: Lake) -> None:
    first = await lake.put(PEOPLE, "people", mode="upsert", key=("id",))
    assert (first.created, first.inserted) == (True, 3)
    body = b"phone,id,name\n999,2,bob\n333,3,cy\n444,4,di\n"
    ctx = replace(CTX, workspace="w-1")
    report = await lake.put(body, "people", mode="upsert", ctx=ctx, reason="monthly")
    assert (report.inserted, report.updated, report.unchanged, report.rows) == (1, 1, 1, 3)
    assert await now(lake) == {1: ("ada", 111), 2: ("bob", 999), 3: ("cy", 333), 4: ("di", 444)}
    assert await contents(lake) == [ROWS, ROWS, KEYS, EVENTS]
    insert, update = await events(lake)
    assert (insert["kind"], insert["entities"], insert["reason"]) == ("insert", ["[4]"], "monthly")
    assert (update["field"], update["old"], update["new"]) == ("phone", "222", "999")
    assert (update["operation"], update["workspace"]) == ("upsert", "w-1")
    entries = (await lake.catalog.versions(CTX, c.PageRequest("people"))).versions
    assert (entries[0].operation, entries[0].reason) == ("upsert", "monthly")
    # The same again changes nothing, and after a change by somebody else it does.
    assert (await lake.put(body, "people", mode="upsert")).no_op
    await lake.put(b"id,name,phone\n2,bob,1\n", "people", mode="upsert")
    again = await lake.put(body, "people", mode="upsert")
    assert (again.no_op, again.updated) == (False, 1)


async def test_an_upsert_needs_a_key(lake: Lake) -> None:
    error = await lake.refused(PEOPLE, "people", mode="upsert")
    assert error.kind is ErrorKind.INVALID
    await lake.put(PEOPLE, "people")
    assert (await lake.refused(PEOPLE, "people", mode="upsert")).kind is ErrorKind.INVALID
    # One that is said with it is declared, unless the rows that are there do not have it.
    await lake.put(b"id,name,phone\n3,cy,334\n", "people", mode="append")
    error = await lake.refused(b"id,name\n9,x\n", "people", mode="upsert", key=("id",))
    assert error.kind is ErrorKind.INVALID
    report = await lake.put(b"phone,name\n222,bo\n", "people", mode="upsert", key=("PHONE",))
    assert report.updated == 1
    assert (await dataset_of(lake)).primary_key == ("phone",)


async def test_a_key_twice_in_the_file_is_refused(lake: Lake) -> None:
    await keyed(lake)
    error = await lake.refused(b"id,name\n7,a\n7,b\n", "people", mode="upsert")
    assert error.kind is ErrorKind.INVALID
    assert await contents(lake) == [ROWS]


async def test_an_append_brings_new_keys_only(lake: Lake) -> None:
    await keyed(lake)
    error = await lake.refused(b"id,name\n2,x\n9,y\n3,z\n", "people", mode="append")
    assert error.kind is ErrorKind.CONFLICT
    named = error.fields["existing_keys"]
    assert isinstance(named, list)
    assert sorted(map(str, named)) == ["[2]", "[3]"]
    assert "upsert" in str(error.fields["hint"])
    assert await contents(lake) == [ROWS]
    since = (await dataset_of(lake)).history_since
    await lake.put(b"id,name\n8,x\n9,y\n", "people", mode="append")
    (insert,) = await events(lake)
    assert (insert["entities"], insert["rows"]) == (["[8]", "[9]"], 2)
    assert insert["object_key"].startswith("datasets/")
    assert (await dataset_of(lake)).history_since == since
    assert len(await now(lake)) == 5


async def test_a_replace_tells_the_difference(lake: Lake) -> None:
    await keyed(lake)
    changes = Rows(lake.ingest.parts)
    batch = ChangeRowsRequest("people", RowChange.UPSERT, b'[{"id": 3, "name": "c", "phone": 3}]')
    await changes.change(CTX, batch)
    since = (await dataset_of(lake)).history_since
    body = b"id,name,phone\n3,c,4\n1,ada,111\n5,ed,5\n"
    report = await lake.put(body, "people", mode="replace")
    counts = (report.inserted, report.updated, report.deleted, report.unchanged)
    assert counts == (1, 1, 1, 1)
    assert await now(lake) == {3: ("c", 4), 1: ("ada", 111), 5: ("ed", 5)}
    # What was before is gone, but for what was told of it.
    assert sorted(await contents(lake)) == [EVENTS, EVENTS, ROWS]
    told = [e for e in await events(lake) if e["operation"] == "replace"]
    kinds = [(e["kind"], e["entity"], e["field"], e["old"], e["new"]) for e in told]
    assert kinds == [
        ("insert", None, None, None, None),
        ("update", "[3]", "phone", "3", "4"),
        ("delete", "[2]", "id", "2", None),
        ("delete", "[2]", "name", '"bob"', None),
        ("delete", "[2]", "phone", "222", None),
    ]
    assert (await dataset_of(lake)).history_since == since


async def test_a_replace_by_a_subset_and_by_the_same(lake: Lake) -> None:
    await keyed(lake)
    report = await lake.put(b"id,name,phone\n2,bob,222\n", "people", mode="replace")
    assert (report.deleted, report.unchanged) == (2, 1)
    assert await now(lake) == {2: ("bob", 222)}
    before = await contents(lake)
    same = await lake.put(b"id,phone,name\n2,222,bob\n", "people", mode="replace")
    assert (same.no_op, same.files) == (True, 0)
    assert await contents(lake) == before
    none = await lake.put(b"id,name,phone\n", "people", mode="replace")
    assert none.deleted == 1
    assert await now(lake) == {}


async def test_dead_letters_of_an_upsert_are_kept(lake: Lake) -> None:
    await keyed(lake)
    body = b"id,name,phone\n2,bob,5\n4,a,b,c,d\n"
    report = await lake.put(body, "people", mode="upsert")
    assert (report.updated, report.dead_letters) == (1, 1)
    assert len(await lake.rows("people__dead_letters")) == 1
    # Also where no row changes.
    report = await lake.put(body + b"5,a,b,c,d\n", "people", mode="upsert")
    assert (report.updated, report.unchanged, report.dead_letters) == (0, 1, 2)
    assert len(await lake.rows("people__dead_letters")) == 3


async def test_large_files_are_taken_step_by_step(make_lake: MakeLake) -> None:
    """Each step within its memory, all of them one commit; ordinals go on from step to step."""
    lake = await keyed(await make_lake(keyed_bytes_max=40_000, row_group_rows=100))
    rows = {at: (f"n{at}", at) for at in range(1, 1001)}
    report = await lake.put(_csv(rows), "people", mode="upsert")
    assert (report.inserted, report.updated, report.unchanged) == (997, 3, 0)
    assert await now(lake) == rows
    assert (await contents(lake)).count(EVENTS) > 3
    more = {at: (f"m{at}", at) for at in range(2001, 2501)}
    await lake.put(_csv(more), "people", mode="append")
    assert await now(lake) == rows | more
    wanted = {at: (f"n{at}", at % 7) for at in range(500, 1500)}
    report = await lake.put(_csv(wanted), "people", mode="replace")
    same = sum(rows.get(at) == row for at, row in wanted.items())
    counts = (report.inserted, report.deleted, report.updated, report.unchanged)
    assert counts == (499, 999, 501 - same, same)
    assert await now(lake) == wanted
    told = await events(lake)
    places = [(event["base_version"], event["ordinal"]) for event in told]
    assert len(set(places)) == len(places)
    deleted = {e["entity"] for e in told if e["kind"] == "delete"}
    assert len(deleted) == 999


async def test_what_does_not_fit_into_memory_names_the_limit(make_lake: MakeLake) -> None:
    lake = await keyed(await make_lake(keyed_bytes_max=1))
    error = await lake.refused(PEOPLE + b"4,d,1\n", "people", mode="replace")
    assert (error.kind, error.fields["limit"]) == (ErrorKind.EXHAUSTED, "ingest.keyed_bytes_max")
    assert await contents(lake) == [ROWS]


def _csv(rows: dict[int, tuple[str, int]]) -> bytes:
    lines = [b"%d,%s,%d\n" % (at, name.encode(), phone) for at, (name, phone) in rows.items()]
    return b"id,name,phone\n" + b"".join(lines)


async def test_what_keyed_files_cost(lake: Lake) -> None:
    await keyed(lake)
    await lake.put(b"id,name,phone\n1,x,1\n", "people", mode="upsert")
    for mode, body, puts in (
        ("upsert", b"id,name,phone\n1,y,1\n7,z,1\n", 4),
        ("append", b"id,name,phone\n11,y,1\n", 3),
        ("replace", b"id,name,phone\n11,y,2\n", 3),
    ):
        before = dict(lake.buckets.footprint("primary").requests)
        await lake.put(body, "people", mode=mode)
        after = lake.buckets.footprint("primary").requests
        spent = {op: after[op] - before.get(op, 0) for op in ("put", "list")}
        assert (mode, spent) == (mode, {"put": puts, "list": 1})


async def test_a_dry_run_counts_rows(lake: Lake) -> None:
    await keyed(lake)
    body = b"id,name,phone\n2,bob,5\n9,x,1\n"
    report = await lake.put(body, "people", mode="upsert", dry_run=True)
    assert (report.dry_run, report.inserted, report.updated) == (True, 1, 1)
    report = await lake.put(body, "people", mode="replace", dry_run=True)
    assert (report.inserted, report.updated, report.deleted) == (1, 1, 2)
    assert await contents(lake) == [ROWS]


async def test_files_and_batches_at_once_lose_nothing(lake: Lake) -> None:
    await keyed(lake)
    changes = Rows(lake.ingest.parts)

    async def batch(at: int) -> None:
        body = b'[{"id": %d, "name": "b", "phone": 1}]' % at
        await changes.change(CTX, ChangeRowsRequest("people", RowChange.UPSERT, body))

    files = [
        lake.put(b"id,name,phone\n%d,f,1\n1,f,%d\n" % (at, at), "people", mode="upsert")
        for at in range(20, 26)
    ]
    more = [
        lake.put(b"id,name,phone\n%d,a,1\n" % at, "people", mode="append") for at in range(30, 34)
    ]
    await asyncio.gather(*files, *more, *(batch(at) for at in range(40, 52)))
    seen = await now(lake)
    assert set(seen) == {1, 2, 3, *range(20, 26), *range(30, 34), *range(40, 52)}


async def test_a_repeated_upsert_gets_its_first_answer(lake: Lake) -> None:
    await keyed(lake)
    ctx = replace(CTX, idempotency_key="u-1")
    body = b"id,name,phone\n2,bob,5\n"
    first = await lake.put(body, "people", mode="upsert", ctx=ctx)
    await lake.put(b"id,name,phone\n2,bob,6\n", "people", mode="upsert")
    assert await lake.put(body, "people", mode="upsert", ctx=ctx) == first
    assert (await now(lake))[2] == ("bob", 6)


async def test_a_file_sent_twice_at_once_has_one_answer(lake: Lake) -> None:
    await keyed(lake)
    for mode, body in (
        ("append", b"id,name,phone\n4,di,4\n"),
        ("upsert", b"id,name,phone\n1,q,1\n"),
    ):
        ctx = replace(CTX, idempotency_key=f"once-{mode}")
        sent = [lake.put(body, "people", mode=mode, ctx=ctx) for _ in range(4)]
        first, *others = await asyncio.gather(*sent)
        assert not first.no_op
        assert others == [first] * 3
    assert await now(lake) == {1: ("q", 1), 2: ("bob", 222), 3: ("cy", 333), 4: ("di", 4)}


async def test_a_key_of_doubles_is_refused(lake: Lake) -> None:
    error = await lake.refused(b"x,y\n1.5,a\n2.5,b\n", "people", key=("x",))
    assert (error.kind, error.fields["column"]) == (ErrorKind.INVALID, "x")


async def test_a_key_that_was_only_said_is_looked_at_before_rows_change(lake: Lake) -> None:
    """Of objects that were registered nobody looked whether their keys repeat."""
    rows, table = Rows(lake.ingest.parts), pa.table({"id": [1, 1, 2], "name": ["a", "b", "c"]})
    sink = pa.BufferOutputStream()
    pq.write_table(table.append_column("phone", pa.array([1, 2, 3])), sink)
    await lake.buckets.get("primary").put("in/p.parquet", sink.getvalue().to_pybytes())
    objects, card = (c.ForeignObject("in/p.parquet"),), Card(owner="ada", description="people")
    await lake.catalog.register(
        CTX, c.RegisterRequest("people", objects, card, primary_key=("id",))
    )
    delete = ChangeRowsRequest("people", RowChange.DELETE, b"[1]")
    with pytest.raises(LakehouseError) as caught:
        await rows.change(CTX, delete)
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["duplicates"] == [{"key": "[1]", "rows": [1, 2]}]
    for mode in ("append", "upsert"):
        error = await lake.refused(b"id,name,phone\n9,z,9\n", "people", mode=mode)
        assert (error.kind, error.message) == (ErrorKind.INVALID, "the key is not unique")
    assert (await dataset_of(lake)).row_count == 3
    await lake.put(PEOPLE, "people", mode="replace")
    assert (await rows.change(CTX, delete)).deleted == 1
    assert set(await now(lake)) == {2, 3}
