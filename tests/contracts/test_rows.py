"""The rows contract, direct and over gRPC."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from contracts.people import change, created, dataset, patched, refused, row
from contracts.world import READER, WRITER, World, caller
from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.ingest import ColumnOverride, IngestOptions, SourceFormat
from lakehouse.contracts.rows import (
    ChangeRowsRequest,
    CompactRequest,
    DiffRequest,
    FieldChange,
    RestoreRowsRequest,
    RowChange,
    RowDifference,
    RowRequest,
    SetKeyRequest,
    WidenRequest,
)
from lakehouse.errors import ErrorKind
from lakehouse.model.identity import Scope

ANN = {"id": 1, "name": "Ann", "phone": "+49 1"}


async def test_a_row_by_its_key(rows: Any, here: World) -> None:
    version = await created(here)
    for key in ("1", "[1]"):
        found = await rows.get(READER, RowRequest("people", key))
        assert json.loads(found.row_json) == ANN
        assert list(json.loads(found.row_json)) == ["id", "name", "phone"]
        assert (found.dataset, found.key_json) == ("people", "[1]")
        assert (found.version, found.served_from) == (version, "table")
    for key in ("9", "[9]"):
        await refused(rows.get(READER, RowRequest("people", key)), ErrorKind.NOT_FOUND)
    await refused(rows.get(READER, RowRequest("nobody", "1")), ErrorKind.NOT_FOUND)
    for key in ("x", "[1,2]", "[]", "[null]", "{}"):
        await refused(rows.get(READER, RowRequest("people", key)), ErrorKind.INVALID)


async def test_upsert_patch_and_delete(rows: Any, here: World) -> None:
    first = await created(here)
    done = await change(rows, [{"id": 1, "name": "Anna", "phone": "5"}, {"id": 4, "name": "Di"}])
    assert (done.inserted, done.updated, done.unchanged, done.no_op) == (1, 1, 0, False)
    assert done.version == first + 1
    assert await row(rows, "4") == {"id": 4, "name": "Di", "phone": None}
    done = await patched(rows, 2, phone="555")
    assert (done.updated, done.inserted) == (1, 0)
    assert await row(rows, "2") == {"id": 2, "name": "Bob", "phone": "555"}
    done = await change(rows, [3, 99], RowChange.DELETE)
    assert (done.deleted, done.missing) == (1, 1)
    await refused(rows.get(READER, RowRequest("people", "3")), ErrorKind.NOT_FOUND)
    assert (await dataset(here)).row_count == 3
    assert await row(rows, "3", AsOf(first)) == {"id": 3, "name": "Cy", "phone": ""}
    assert await row(rows, "1", AsOf(first)) == ANN


async def test_what_is_already_so_commits_nothing(rows: Any, here: World) -> None:
    version = await created(here)
    for body, how in (
        ([ANN], RowChange.UPSERT),
        ({"key": 1, "set": {"phone": "+49 1"}}, RowChange.PATCH),
        ([99], RowChange.DELETE),
        ([], RowChange.UPSERT),
    ):
        done = await change(rows, body, how)
        assert (done.no_op, done.version) == (True, version), how
        assert (done.inserted, done.updated, done.deleted) == (0, 0, 0)


async def test_a_dry_run_changes_nothing(rows: Any, here: World) -> None:
    version = await created(here)
    done = await change(rows, [{"id": 1, "name": "x"}, {"id": 7}], dry_run=True)
    assert (done.inserted, done.updated, done.dry_run) == (1, 1, True)
    assert (await dataset(here)).version == version
    assert await row(rows, "1") == ANN


def arrow_stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


TABLE = pa.table({"id": [1, 4], "name": ["Anna", "Di"]})
BODIES = {
    SourceFormat.JSON: b'[{"id": 1, "name": "Anna"}, {"id": 4, "name": "Di"}]',
    SourceFormat.NDJSON: b'{"id": 1, "name": "Anna"}\n{"id": 4, "name": "Di"}\n',
    SourceFormat.CSV: b"id,name\n1,Anna\n4,Di\n",
    SourceFormat.ARROW: arrow_stream(TABLE),
    SourceFormat.PARQUET: parquet(TABLE),
}


@pytest.mark.parametrize("form", BODIES)
async def test_a_batch_in_every_format(rows: Any, here: World, form: SourceFormat) -> None:
    await created(here)
    done = await change(rows, BODIES[form], options=IngestOptions(format=form))
    assert (done.inserted, done.updated) == (1, 1)
    # A column that a row lacks is null.
    assert await row(rows, "1") == {"id": 1, "name": "Anna", "phone": None}


async def test_an_expectation_that_does_not_hold_tells_the_actual_value(
    rows: Any, here: World
) -> None:
    version = await created(here)
    body = {"key": 1, "set": {"phone": "5"}, "expect": {"phone": "+49 9"}}
    error = await refused(change(rows, body, RowChange.PATCH), ErrorKind.CONFLICT)
    assert "+49 1" in json.dumps(error.fields)
    assert (await dataset(here)).version == version
    held = await change(rows, {**body, "expect": {"phone": "+49 1"}}, RowChange.PATCH)
    assert held.updated == 1
    missing = {"key": 9, "set": {"phone": "5"}}
    await refused(change(rows, missing, RowChange.PATCH), ErrorKind.NOT_FOUND)


async def test_a_change_on_a_version(rows: Any, here: World) -> None:
    version = await created(here)
    late = change(rows, [{"id": 1}], expected_version=version + 7)
    await refused(late, ErrorKind.CONFLICT)
    done = await change(rows, [{"id": 1, "name": "A"}], expected_version=version)
    assert (await dataset(here)).rows_version == done.version
    await refused(change(rows, [{"id": 1}], expected_version=version), ErrorKind.CONFLICT)


BAD: list[tuple[object, RowChange, list[str]]] = [
    ([{"id": 8}, {"name": "y"}, {"id": None}], RowChange.UPSERT, ["2", "3"]),
    ([{"id": 8}, {"id": 9}, {"id": 8}], RowChange.UPSERT, ["1", "3"]),
    ([{"id": 8}, {"id": "many"}], RowChange.UPSERT, ["many"]),
    ({"key": 1, "set": {"id": 5}}, RowChange.PATCH, ["id"]),
    ({"key": 1}, RowChange.PATCH, []),
    ([{"key": 1, "set": {"name": "a"}}, {"key": 1, "set": {}}], RowChange.PATCH, []),
    ([1, 2, 1], RowChange.DELETE, ["1", "3"]),
    ([None], RowChange.DELETE, []),
]


@pytest.mark.parametrize(("body", "how", "told"), BAD)
async def test_one_bad_row_and_nothing_is_applied(
    rows: Any, here: World, body: object, how: RowChange, told: list[str]
) -> None:
    version = await created(here)
    error = await refused(change(rows, body, how), ErrorKind.INVALID)
    said = f"{error} {json.dumps(error.fields)}"
    assert [word for word in told if word not in said] == []
    assert (await dataset(here)).version == version


async def test_a_column_that_is_not_there_is_drift(rows: Any, here: World) -> None:
    await created(here)
    for body, how in (
        ([{"id": 1, "fone": "5"}], RowChange.UPSERT),
        ({"key": 1, "set": {"fone": 5}}, RowChange.PATCH),
    ):
        error = await refused(change(rows, body, how), ErrorKind.CONFLICT)
        assert "fone" in json.dumps(error.fields)


async def test_without_a_key_rows_are_not_changed(rows: Any, here: World) -> None:
    await created(here, key="")
    error = await refused(change(rows, [{"id": 1}]), ErrorKind.INVALID)
    assert "key" in str(error.fields["hint"])
    report = await rows.set_key(WRITER, SetKeyRequest("people", ("id",), "it is one"))
    assert (report.primary_key, report.rows_checked, report.no_op) == (("id",), 3, False)
    assert (await rows.set_key(WRITER, SetKeyRequest("people", ("id",)))).no_op
    assert (await change(rows, [{"id": 1, "name": "A"}])).updated == 1
    await refused(rows.set_key(WRITER, SetKeyRequest("people", ("name",))), ErrorKind.CONFLICT)


async def test_a_key_that_is_none_names_its_rows(rows: Any, here: World) -> None:
    await created(here, body=b"id,name\n1,a\n2,b\n2,c\n", key="")
    twice = await refused(rows.set_key(WRITER, SetKeyRequest("people", ("id",))), ErrorKind.INVALID)
    assert "2" in json.dumps(twice.fields)
    await refused(rows.set_key(WRITER, SetKeyRequest("people", ("no",))), ErrorKind.INVALID)


async def test_columns_come_and_grow(rows: Any, here: World) -> None:
    version = await created(here)
    added = WidenRequest("people", (ColumnOverride("mail", "string"),), dry_run=True)
    tried = await rows.widen(WRITER, added)
    assert (tried.dry_run, tried.version) == (True, version)
    report = await rows.widen(WRITER, WidenRequest("people", added.add))
    assert [column.name for column in report.schema] == ["id", "name", "phone", "mail"]
    assert (await row(rows, "1")) == {**ANN, "mail": None}
    assert await row(rows, "1", AsOf(version)) == ANN
    await change(rows, [{"id": 1, "mail": "a@x"}])
    assert (await row(rows, "1"))["mail"] == "a@x"
    for wrong in (
        WidenRequest("people", widen=(ColumnOverride("name", "int64"),)),
        WidenRequest("people", widen=(ColumnOverride("id", "string"),)),
        WidenRequest("people", add=(ColumnOverride("x", "nonsense"),)),
        WidenRequest("people", widen=(ColumnOverride("no", "string"),)),
    ):
        await refused(rows.widen(WRITER, wrong), ErrorKind.INVALID)


async def test_two_versions_apart(rows: Any, here: World) -> None:
    first = await created(here)
    await change(rows, [{**ANN, "phone": "5"}, {"id": 4, "name": "Di"}])
    last = await change(rows, [3], RowChange.DELETE)
    result = await rows.diff(READER, DiffRequest("people", AsOf(first)))
    assert (result.old_version, result.new_version) == (first, last.version)
    assert (result.added, result.removed, result.changed) == (1, 1, 1)
    by_key = {one.key_json: one for one in result.rows}
    changed = (FieldChange("phone", '"+49 1"', '"5"'),)
    assert by_key["[1]"] == RowDifference("[1]", "changed", changed)
    assert (by_key["[3]"].change, by_key["[4]"].change) == ("removed", "added")
    seen: list[RowDifference] = []
    cursor = ""
    for _ in range(3):
        page = await rows.diff(READER, DiffRequest("people", AsOf(first), limit=1, cursor=cursor))
        assert (page.added, page.removed, page.changed) == (1, 1, 1)
        seen += page.rows
        cursor = page.cursor
    assert (cursor, len(seen)) == ("", 3)
    assert {one.key_json for one in seen} == set(by_key)
    same = await rows.diff(READER, DiffRequest("people", AsOf(), AsOf(last.version)))
    assert same.rows == ()


async def test_back_to_a_version(rows: Any, here: World) -> None:
    first = await created(here)
    await change(rows, [{"id": 1, "name": "x"}, {"id": 4}])
    await change(rows, [2], RowChange.DELETE)
    tried = await rows.restore(WRITER, RestoreRowsRequest("people", AsOf(first), dry_run=True))
    done = await rows.restore(WRITER, RestoreRowsRequest("people", AsOf(first), "a mistake"))
    for report in (tried, done):
        assert (report.inserted, report.updated, report.deleted) == (1, 1, 1)
    assert [await row(rows, key) for key in ("1", "2")] == [
        ANN,
        {"id": 2, "name": "Bob", "phone": "+49 2"},
    ]
    assert (await dataset(here)).row_count == 3
    again = await rows.restore(WRITER, RestoreRowsRequest("people", AsOf(first)))
    assert again.no_op


async def test_compaction_keeps_every_row(rows: Any, here: World) -> None:
    await created(here)
    for number in range(4):
        await change(rows, [{"id": number, "name": str(number)}])
    before = await dataset(here)
    plan = await rows.compact(WRITER, CompactRequest("people", full=True, dry_run=True))
    assert (plan.dry_run, (await dataset(here)).version) == (True, before.version)
    report = await rows.compact(WRITER, CompactRequest("people", full=True))
    after = await dataset(here)
    assert (report.rows, report.key_files_after, report.no_op) == (4, 0, False)
    assert (after.row_count, after.rows_version) == (4, before.rows_version)
    assert after.files < before.files
    assert [(await row(rows, str(key)))["name"] for key in range(4)] == list("0123")
    assert (await rows.compact(WRITER, CompactRequest("people", full=True))).no_op


async def test_one_key_has_one_effect_and_one_answer(rows: Any, here: World) -> None:
    await created(here)
    ctx = caller(Scope.WRITE, idempotency_key="once")
    first = await change(rows, [{"id": 7}], ctx=ctx)
    await change(rows, [7], RowChange.DELETE)
    assert await change(rows, [{"id": 7}], ctx=ctx) == first
    await refused(rows.get(READER, RowRequest("people", "7")), ErrorKind.NOT_FOUND)
    other = await refused(change(rows, [{"id": 8}], ctx=ctx), ErrorKind.INVALID)
    assert other.http_status == 422


async def test_readers_change_nothing(rows: Any, here: World) -> None:
    await created(here)
    for call in (
        change(rows, [{"id": 1}], ctx=READER),
        rows.set_key(READER, SetKeyRequest("people", ("id",))),
        rows.widen(READER, WidenRequest("people", (ColumnOverride("x", "string"),))),
        rows.restore(READER, RestoreRowsRequest("people", AsOf(1))),
        rows.compact(READER, CompactRequest("people")),
    ):
        await refused(call, ErrorKind.FORBIDDEN)


async def test_a_predicate_needs_a_query_service(rows: Any, here: World) -> None:
    """This process has none, and says so instead of guessing."""
    version = await created(here)
    request = ChangeRowsRequest("people", RowChange.DELETE, where="id = 1")
    error = await refused(rows.change(WRITER, request), ErrorKind.UNAVAILABLE)
    assert "query" in f"{error} {error.fields}"
    assert (await dataset(here)).version == version
