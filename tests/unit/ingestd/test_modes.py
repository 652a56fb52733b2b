"""Modes, no-ops, drift and races, through a real catalog."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import CardHints
from lakehouse.errors import ErrorKind
from lakehouse.model.dataset import Card, Sensitivity
from support_ingest import CTX, Lake

A = b"id,name\n1,ann\n2,bob\n"
B = b"id,name\n3,cy\n"


async def test_a_new_dataset_is_created_with_a_card(lake: Lake) -> None:
    report = await lake.put(
        b"id,email\n007,ann@example.org\n008,bob@example.org\n",
        card=CardHints(description="people", tags=("x",), source_system="crm"),
        file_name="people.csv",
    )
    assert (report.created, report.no_op, report.rows, report.files) == (True, False, 2, 1)
    dataset = (await lake.catalog.get(CTX, c.GetRequest("t"))).dataset
    assert dataset.card.owner == "ada"
    assert dataset.card.description == "people"
    assert dataset.card.lineage.source_system == "crm"
    assert dataset.card.sensitivity is not Sensitivity.INTERNAL
    assert {finding.column for finding in dataset.card.pii} == {"email"}
    assert set(dataset.card.detected) == {"owner", "sensitivity", "pii"}
    assert await lake.rows() == [
        {"id": "007", "email": "ann@example.org"},
        {"id": "008", "email": "bob@example.org"},
    ]


async def test_the_same_content_again_is_a_no_op(lake: Lake) -> None:
    first = await lake.put(A)
    again = await lake.put(A)
    assert (again.no_op, again.version, again.rows) == (True, first.version, 2)
    assert again.created is False
    appended = await lake.put(A, mode="append")
    assert appended.no_op
    forced = await lake.put(A, mode="append", force=True)
    assert not forced.no_op
    assert len(await lake.rows()) == 4


async def test_ten_at_once_make_one(lake: Lake) -> None:
    reports = await asyncio.gather(*(lake.put(A) for _ in range(10)))
    assert sum(report.created for report in reports) == 1
    assert sum(report.no_op for report in reports) == 9
    assert len({report.version for report in reports}) == 1
    assert len(await lake.rows()) == 2


async def test_ten_appends_at_once_make_one(lake: Lake) -> None:
    await lake.put(A)
    reports = await asyncio.gather(*(lake.put(B, mode="append") for _ in range(10)))
    assert sum(report.no_op for report in reports) == 9
    assert len(await lake.rows()) == 3


async def test_ten_different_appends_at_once_all_count(lake: Lake) -> None:
    await lake.put(A)
    bodies = [f"id,name\n{n},x\n".encode() for n in range(10)]
    await asyncio.gather(*(lake.put(body, mode="append") for body in bodies))
    assert sorted(row["id"] for row in await lake.rows()) == sorted([1, 2, *range(10)])


async def test_other_content_needs_a_mode(lake: Lake) -> None:
    await lake.put(A)
    error = await lake.refused(B)
    assert error.kind is ErrorKind.CONFLICT
    assert error.fields["modes"] == ["append", "replace"]
    error = await lake.refused(B, mode="create")
    assert error.kind is ErrorKind.ALREADY_EXISTS


async def test_append_reads_against_the_schema(lake: Lake) -> None:
    await lake.put(b"id,name,score\n1,ann,1.5\n")
    await lake.put(b"SCORE,name\n2,7\n", mode="append")
    assert await lake.rows() == [
        {"id": 1, "name": "ann", "score": 1.5},
        {"id": None, "name": "7", "score": 2.0},
    ]


async def test_replace_puts_rows_in_place(lake: Lake) -> None:
    await lake.put(A)
    await lake.put(B, mode="append")
    report = await lake.put(A, mode="replace")
    assert not report.no_op
    assert [row["id"] for row in await lake.rows()] == [1, 2]
    assert (await lake.put(A, mode="replace")).no_op


async def test_append_and_replace_create_what_is_absent(lake: Lake) -> None:
    assert (await lake.put(A, "x", mode="append")).created
    assert (await lake.put(A, "y", mode="replace")).created


async def test_what_does_not_fit_is_drift(lake: Lake) -> None:
    await lake.put(A)
    error = await lake.refused(b"id,name\n3,cy\nx4,di\n", mode="append")
    assert error.kind is ErrorKind.CONFLICT
    assert error.fields["diff"] == [{"name": "id", "old_type": "int64", "new_type": "string"}]
    assert error.fields["samples"] == [{"column": "id", "value": "x4", "line": 3}]
    error = await lake.refused(b"id,name,extra\n3,cy,1\n", mode="append")
    assert error.fields["diff"] == [{"name": "extra", "old_type": None, "new_type": "string"}]
    assert len(await lake.rows()) == 2


async def test_a_retry_with_its_key_has_one_effect(lake: Lake) -> None:
    ctx = replace(CTX, idempotency_key="k-1")
    first = await lake.put(A, mode="create", ctx=ctx)
    again = await lake.put(A, mode="create", ctx=ctx)
    assert again == first
    assert again.created
    forced = replace(CTX, idempotency_key="k-2")
    one = await lake.put(A, mode="append", force=True, ctx=forced)
    two = await lake.put(A, mode="append", force=True, ctx=forced)
    assert two == one
    assert len(await lake.rows()) == 4
    error = await lake.refused(B, mode="append", ctx=forced)
    assert error.http_status == 422
    assert (await lake.refused(A, mode="append", ctx=forced)).http_status == 422


async def test_two_at_once_with_one_key_are_one_ingest(lake: Lake) -> None:
    ctx = replace(CTX, idempotency_key="k-1")
    calls = [lake.put(A, mode="create", ctx=ctx) for _ in range(4)]
    answers = await asyncio.gather(*calls)
    assert all(each == answers[0] for each in answers)
    assert len(await lake.rows()) == 2


async def test_a_key_is_checked_and_kept(lake: Lake) -> None:
    error = await lake.refused(b"id,v\n1,a\n2,b\n1,c\n", key=("ID",))
    assert error.kind is ErrorKind.INVALID
    assert error.fields["duplicates"] == [{"key": ["1"], "rows": [1, 3]}]
    error = await lake.refused(b"id,v\n1,a\n,b\n", key=("id",))
    assert error.fields["rows"] == [2]
    error = await lake.refused(b"id,v\n1,a\n", key=("nope",))
    assert error.fields["missing"] == ["nope"]
    await lake.put(b"id,v\n1,a\n2,b\n", key=("ID",))
    assert (await lake.catalog.get(CTX, c.GetRequest("t"))).dataset.primary_key == ("id",)
    error = await lake.refused(b"id,v\n3,a\n3,b\n", mode="append")
    assert "not unique" in error.message
    error = await lake.refused(b"id,v\n3,a\n", mode="append", key=("v",))
    assert error.kind is ErrorKind.CONFLICT


async def test_a_dry_run_commits_nothing(lake: Lake) -> None:
    report = await lake.put(A, dry_run=True)
    assert report.dry_run
    assert report.sample_json == '[{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]'
    assert [column.type for column in report.schema] == ["int64", "string"]
    assert await lake.buckets.get("primary").list("datasets/") == []


async def test_a_small_ingest_is_one_put_and_the_commit(lake: Lake) -> None:
    await lake.put(A)
    before = lake.buckets.footprint("primary").requests
    await lake.put(B, mode="append")
    after = lake.buckets.footprint("primary").requests
    spent = {op: after[op] - before.get(op, 0) for op in after if after[op] != before.get(op, 0)}
    assert spent == {"put": 2, "list": 1}


async def test_an_object_in_a_bucket_is_read_in_place_of_a_body(lake: Lake) -> None:
    await lake.buckets.get("primary").put("incoming/a.csv", A)
    report = await lake.put(b"", object_key="incoming/a.csv")
    assert report.rows == 2
    versions = await lake.catalog.versions(CTX, c.PageRequest("t"))
    assert versions.versions[0].source == "primary/incoming/a.csv"
    error = await lake.refused(b"", "u", object_key="incoming/none.csv")
    assert error.kind is ErrorKind.NOT_FOUND


async def test_what_is_said_of_an_existing_dataset_is_heard(lake: Lake) -> None:
    async def card() -> Card:
        return (await lake.catalog.get(CTX, c.GetRequest("t"))).dataset.card

    await lake.put(A)
    first = await card()
    await lake.put(B, mode="append", card=CardHints(description="people", owner="bob"))
    second = await card()
    assert (second.description, second.owner) == ("people", "bob")
    assert set(first.detected) - set(second.detected) == {"owner"}
    again = await lake.put(B, mode="append", card=CardHints(tags=("x",)))
    assert (again.no_op, [one.code for one in again.warnings]) == (True, ["card_unchanged"])
    quiet = await lake.put(B, mode="append", card=CardHints(description="people"))
    assert (quiet.no_op, quiet.warnings) == (True, ())
    assert await card() == second


async def test_a_replacement_is_looked_at_for_personal_data(lake: Lake) -> None:
    async def card() -> Card:
        return (await lake.catalog.get(CTX, c.GetRequest("t"))).dataset.card

    people = b"id,name\n1,ann@example.org\n2,bob@example.org\n3,cy@example.org\n"
    await lake.put(A)
    before = await card()
    await lake.put(people, mode="replace")
    found = await card()
    assert {finding.kind for finding in before.pii} == {"person_name"}
    assert "email" in {finding.kind for finding in found.pii}
    assert "pii" in found.detected
    await lake.put(A, mode="replace", card=CardHints(sensitivity="restricted"))
    stated = await card()
    assert (stated.pii, stated.sensitivity.value) == (before.pii, "restricted")
    await lake.put(people, mode="replace")
    assert (await card()).sensitivity.value == "restricted"
