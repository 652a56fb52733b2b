"""Around the rows of a real catalog: one row, keys, wider schemas, repeated calls."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts import rows as r
from lakehouse.contracts.catalog import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows import keying
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.dataset import KEYS
from lakehouse.model.identity import Context
from support_around import READER, Around, refused
from support_ingest import CTX, Lake


@pytest.fixture
async def around(lake: Lake) -> Around:
    return Around(lake, Rows(lake.ingest.parts))


# One row.


async def test_a_row_now_and_at_a_version(around: Around) -> None:
    first = await around.keyed()
    second = await around.upsert({"id": 1, "name": "z", "n": 9})
    await around.delete(1)
    assert await around.get([1], AsOf(version=first)) == {"id": 1, "name": "a", "n": 5}
    assert await around.get(1, AsOf(version=second)) == {"id": 1, "name": "z", "n": 9}
    error = await refused(around.get(1), ErrorKind.NOT_FOUND)
    assert (error.fields["key"], error.fields["dataset"]) == ("[1]", "t")
    assert error.fields["version"] == second + 1


async def test_a_row_of_what_has_no_key_or_is_not_there(around: Around) -> None:
    await refused(around.get(1), ErrorKind.NOT_FOUND)
    await around.lake.put(b"id\n1\n")
    await refused(around.get(1))
    await around.set_key("id")
    await refused(around.get("x"))
    await refused(around.get([1, 2]))
    await refused(around.get([None]))


async def test_a_row_from_before_the_key_was_declared(around: Around) -> None:
    await around.lake.put(b"id,n\n1,1\n2,2\n")
    first = (await around.dataset()).version
    await around.lake.put(b"id,n\n2,3\n", mode="append")
    twice = (await around.dataset()).version
    await around.lake.put(b"id,n\n1,9\n", mode="replace")
    await around.set_key("id")
    assert await around.get(2, AsOf(version=first)) == {"id": 2, "n": 2}
    error = await refused(around.get(2, AsOf(version=twice)), ErrorKind.CONFLICT)
    assert error.fields["rows"] == 2


async def test_beyond_the_horizon_the_journal_answers(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await around.keyed()
    await around.upsert({"id": 1, "name": "z", "n": 9})
    snapshot = around.lake.catalog.snapshot

    async def short(ctx: Context, request: c.SnapshotRequest) -> c.SnapshotResult:
        if request.as_of.version is not None and request.as_of.version <= first:
            raise LakehouseError(ErrorKind.NOT_FOUND, "below the horizon", horizon=first + 1)
        return await snapshot(ctx, request)

    monkeypatch.setattr(around.lake.catalog, "snapshot", short)
    result = await around.rows.get(READER, r.RowRequest("t", "1", AsOf(version=first)))
    assert result.served_from == "journal"
    assert result.version == first
    assert json.loads(result.row_json) == {"id": 1, "name": "a", "n": 5}


async def test_scopes_are_asked_for(around: Around) -> None:
    version = await around.keyed()
    calls = (
        around.set_key("id", ctx=READER),
        around.widen("x:string", ctx=READER),
        around.restore(version, ctx=READER),
    )
    for call in calls:
        await refused(call, ErrorKind.FORBIDDEN)


# Keys.


async def test_a_key_is_declared_later_and_confirmed(around: Around) -> None:
    await around.lake.put(b"id,name\n1,a\n2,a\n")
    await around.lake.put(b"id,name\n3,a\n", mode="append")
    report = await around.set_key("id")
    assert (report.rows_checked, report.no_op, report.primary_key) == (3, False, ("id",))
    assert (await around.dataset()).primary_key == ("id",)
    again = await around.set_key("id")
    assert (again.no_op, again.version) == (True, report.version)
    error = await refused(around.set_key("id", "name"), ErrorKind.CONFLICT)
    assert error.fields["primary_key"] == ["id"]


@pytest.mark.parametrize("at_once", [4, 1_000])
async def test_repeated_keys_are_named_with_their_rows(
    around: Around, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(keying, "_AT_ONCE", at_once)
    await around.lake.put(b"id,name\n1,a\n2,b\n3,c\n4,d\n5,e\n")
    await around.lake.put(b"id,name\n2,x\n6,f\n5,y\n", mode="append")
    error = await refused(around.set_key("id"))
    if at_once > 4:
        assert error.fields["count"] == 2
        assert error.fields["duplicates"] == [
            {"key": "[2]", "rows": [2, 6]},
            {"key": "[5]", "rows": [5, 8]},
        ]
    else:
        assert error.fields["duplicates"][0] in (  # type: ignore[index]
            {"key": "[2]", "rows": [2, 6]},
            {"key": "[5]", "rows": [5, 8]},
        )
    assert (await around.dataset()).primary_key == ()
    assert (await around.set_key("id", "name")).rows_checked == 8


async def test_null_keys_are_named_with_their_rows(around: Around) -> None:
    await around.lake.put(b"id,name\n1,a\n,b\n3,c\n,d\n")
    error = await refused(around.set_key("id"))
    assert (error.fields["count"], error.fields["rows"]) == (2, [2, 4])


async def test_equal_hashes_are_no_duplicates(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        keying, "key_hashes", lambda rows, *_: pa.repeat(pa.scalar(1, pa.uint64()), rows.num_rows)
    )
    await around.lake.put(b"id\n1\n2\n3\n")
    assert (await around.set_key("id")).rows_checked == 3


@pytest.mark.parametrize("columns", [(), ("nix",), ("id", "id"), ("x",)])
async def test_columns_that_can_be_no_key(around: Around, columns: tuple[str, ...]) -> None:
    await around.lake.put(b"id,x\n1,0.5\n")
    await refused(around.set_key(*columns))


async def test_rows_that_came_meanwhile_are_looked_at_too(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    await around.lake.put(b"id\n1\n2\n")
    check = keying.check_unique

    async def late(*args: Any) -> int:
        rows = await check(*args)
        if rows == 2:
            await around.lake.put(b"id\n2\n", mode="append")
        return rows

    monkeypatch.setattr(keying, "check_unique", late)
    error = await refused(around.set_key("id"))
    assert error.fields["duplicates"] == [{"key": "[2]", "rows": [2, 3]}]


# Wider schemas.


async def test_columns_are_added_and_types_widened(around: Around) -> None:
    before = await around.keyed()
    dry = await around.widen("phone:string", "n:string", dry_run=True)
    report = await around.widen("phone:string", "n:string")
    assert dry == replace(report, version=before, dry_run=True)
    shown = [(one.name, one.old_type, one.new_type) for one in report.differences]
    assert shown == [("n", "int64", "string"), ("phone", None, "string")]
    assert [(x.id, x.name, x.type) for x in report.schema] == [
        (1, "id", "int64"),
        (2, "name", "string"),
        (3, "n", "string"),
        (4, "phone", "string"),
    ]
    assert (await around.widen("phone:string", "n:string")).no_op
    await around.upsert({"id": 2, "name": "b", "n": "x", "phone": "1"})
    assert await around.get(1) == {"id": 1, "name": "a", "n": "5", "phone": None}
    assert await around.get(2) == {"id": 2, "name": "b", "n": "x", "phone": "1"}
    assert await around.get(2, AsOf(version=before)) == {"id": 2, "name": "b", "n": 6}


async def test_a_widened_dataset_is_compacted_and_stays_what_it_is(around: Around) -> None:
    await around.keyed(b"id,n,f,d\n1,5,0.1,2026-01-01\n2,,1e300,2026-02-01\n")
    await around.widen("", "n:decimal(20,0) f:string d:timestamp")
    await around.upsert({"id": 3, "n": "7", "f": "x", "d": "2026-03-01T01:00:00"})
    before = [await around.get(n) for n in (1, 2, 3)]
    assert before[0] == {"id": 1, "n": 5, "f": "0.1", "d": "2026-01-01T00:00:00"}
    await around.rows.compact(CTX, r.CompactRequest("t", full=True))
    assert [await around.get(n) for n in (1, 2, 3)] == before


@pytest.mark.parametrize(
    ("add", "widen"),
    [
        ("", ""),
        ("name:string", ""),
        ("NAME:string", ""),
        ("x:string x:string", ""),
        ("x:nonsense", ""),
        ("", "nix:string"),
        ("", "id:string"),
        ("", "name:int64"),
        ("", "n:float64"),
        ("", "n:decimal(18,0)"),
        ("", "n:decimal(20,2)"),
        ("n:string", "n:string"),
    ],
)
async def test_what_is_no_widening(around: Around, add: str, widen: str) -> None:
    await around.keyed()
    if (add, widen) == ("name:string", ""):
        # It is there as it is asked for.
        assert (await around.widen(add, widen)).no_op
        return
    await refused(around.widen(add, widen))
    assert (await around.dataset()).schema.id == 1


async def test_who_declared_and_widened_and_why_is_told(around: Around) -> None:
    await around.lake.put(b"id\n1\n")
    ctx = replace(CTX, workspace="w", source="s")
    await around.set_key("id", ctx=ctx, reason="to change rows")
    entry = await around.entry()
    assert (entry.operation, entry.reason) == ("primary_key", "to change rows")
    assert (entry.actor, entry.workspace, entry.source) == ("ada", "w", "s")
    await around.widen("x:string", ctx=ctx, reason="a new field")
    entry = await around.entry()
    assert (entry.operation, entry.reason, entry.workspace) == ("schema", "a new field", "w")


# Calls that are repeated.


async def test_repeated_calls_have_the_same_answer(around: Around) -> None:
    await around.lake.put(b"id,n\n1,1\n2,2\n")

    def ctx(key: str) -> Context:
        return replace(CTX, idempotency_key=key)

    keyed = await around.set_key("id", ctx=ctx("a"))
    wide = await around.widen("x:string", "n:string", ctx=ctx("b"))
    before = (await around.dataset()).version
    await around.upsert({"id": 1, "n": "9"})
    back = await around.restore(before, ctx=ctx("c"))
    after = (await around.dataset()).version
    assert await around.set_key("id", ctx=ctx("a")) == keyed
    assert await around.widen("x:string", "n:string", ctx=ctx("b")) == wide
    assert await around.restore(before, ctx=ctx("c")) == back
    assert (await around.dataset()).version == after
    for call in (
        around.set_key("n", ctx=ctx("a")),
        around.widen("y:string", ctx=ctx("b")),
        around.restore(before, ctx=ctx("c"), reason="another"),
    ):
        error = await refused(call)
        assert error.http_status == 422


async def test_reading_a_version_leaves_no_keys_unread(around: Around) -> None:
    await around.keyed()
    for step in range(5):
        await around.upsert({"id": 1, "name": str(step)})
    files = (await around.lake.catalog.files(CTX, c.PageRequest("t"))).files
    assert sum(file.content == KEYS for file in files) == 5
    fresh = Rows(around.lake.ingest.parts)
    result = await fresh.get(READER, r.RowRequest("t", "1"))
    assert json.loads(result.row_json)["name"] == "4"
