"""Around the rows of a real catalog: one row, keys, wider schemas, going back, comparing."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts import rows as r
from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.ingest import ColumnOverride, IngestOptions, SourceFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows import comparing, keying
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.dataset import KEYS, Dataset, VersionEntry
from lakehouse.model.identity import Context, Principal, Scope
from support_ingest import CTX, Lake

READER = replace(CTX, principal=Principal("eve", (Scope.READ,)))


@dataclass
class Around:
    """A dataset ``t`` and the rows service."""

    lake: Lake
    rows: Rows

    async def keyed(self, data: bytes = b"id,name,n\n1,a,5\n2,b,6\n3,c,7\n") -> int:
        """Ingest ``t`` with the key ``id``; its version."""
        await self.lake.put(data, key=("id",))
        return (await self.dataset()).version

    async def dataset(self) -> Dataset:
        return (await self.lake.catalog.get(CTX, c.GetRequest("t"))).dataset

    async def get(self, key: Any, as_of: AsOf | None = None) -> dict[str, Any]:
        request = r.RowRequest("t", json.dumps(key), as_of or AsOf())
        result = await self.rows.get(READER, request)
        assert result.served_from == "table"
        return dict(json.loads(result.row_json))

    async def upsert(self, *rows: dict[str, Any]) -> int:
        return await self._change(r.RowChange.UPSERT, list(rows))

    async def delete(self, *keys: Any) -> int:
        return await self._change(r.RowChange.DELETE, list(keys))

    async def _change(self, change: r.RowChange, body: list[Any]) -> int:
        options = IngestOptions(format=SourceFormat.JSON)
        request = r.ChangeRowsRequest("t", change, json.dumps(body).encode(), options)
        return (await self.rows.change(CTX, request)).version

    async def set_key(self, *columns: str, ctx: Context = CTX, reason: str = "") -> r.SetKeyReport:
        return await self.rows.set_key(ctx, r.SetKeyRequest("t", columns, reason))

    async def entry(self) -> VersionEntry:
        """The newest version entry."""
        return (await self.lake.catalog.versions(CTX, c.PageRequest("t"))).versions[0]

    async def widen(
        self, add: str = "", widen: str = "", ctx: Context = CTX, **more: Any
    ) -> r.WidenReport:
        """Columns as ``name:type name:type``."""
        request = r.WidenRequest("t", overrides(add), overrides(widen), **more)
        return await self.rows.widen(ctx, request)

    async def restore(self, version: int, ctx: Context = CTX, **more: Any) -> r.ChangeRowsReport:
        request = r.RestoreRowsRequest("t", AsOf(version=version), **more)
        return await self.rows.restore(ctx, request)

    async def diff(self, old: int, new: int | None = None, **more: Any) -> r.DiffResult:
        request = r.DiffRequest("t", AsOf(version=old), AsOf(version=new), **more)
        return await self.rows.diff(READER, request)


def overrides(text: str) -> tuple[ColumnOverride, ...]:
    pairs = (one.split(":") for one in text.split())
    return tuple(ColumnOverride(name, kind) for name, kind in pairs)


@pytest.fixture
async def around(lake: Lake) -> Around:
    return Around(lake, Rows(lake.ingest.parts))


async def refused(call: Any, kind: ErrorKind = ErrorKind.INVALID) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind, caught.value
    return caught.value


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
