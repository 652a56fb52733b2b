"""The catalog contract, direct and over gRPC."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.world import (
    COLUMNS,
    OPERATOR,
    READER,
    WRITER,
    World,
    caller,
    create,
    data_file,
    make_dataset,
)
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import changes as ch
from lakehouse.model.dataset import Card, DatasetStatus, Lineage, Sensitivity
from lakehouse.model.identity import Scope
from lakehouse.table.fingerprint import fingerprint


async def refused(call: Any, kind: ErrorKind) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind, caught.value.fields
    return caught.value


# -- commits


async def test_a_commit_is_seen_by_every_read_after_it(catalog: Any) -> None:
    made = await make_dataset(catalog, "people", files=3)
    assert (made.dataset.name, made.dataset.files, made.dataset.row_count) == ("people", 3, 30)
    assert made.dataset.schema.columns == COLUMNS
    assert made.dataset.card.tags == ("test", "id-people")
    assert made.version == made.dataset.version
    listed = await catalog.list(READER, c.ListRequest())
    assert listed.datasets == (made.dataset,)
    files = await catalog.files(READER, c.PageRequest("people"))
    assert [file.ordinal for file in files.files] == sorted(file.ordinal for file in files.files)
    snapshot = await catalog.snapshot(READER, c.SnapshotRequest(("people",)))
    assert snapshot.datasets[0].dataset == made.dataset
    assert snapshot.datasets[0].files == files.files
    assert [schema.columns for schema in snapshot.datasets[0].schemas] == [COLUMNS]
    (entry,) = (await catalog.versions(READER, c.PageRequest("people"))).versions
    assert (entry.version, entry.actor, entry.request_id) == (made.version, "write", "request-1")
    assert (entry.rows_added, entry.files_added) == (30, 3)


async def test_a_commit_applies_all_or_nothing(catalog: Any) -> None:
    await make_dataset(catalog, "people")
    before = (await catalog.status(READER, c.StatusRequest())).version
    changes = (create("id-2", "places"), ch.RenameDataset("id-nowhere", "other"))
    await refused(catalog.commit(WRITER, c.CommitRequest(changes)), ErrorKind.NOT_FOUND)
    changes = (create("id-2", "places"), create("id-3", "PEOPLE"))
    await refused(catalog.commit(WRITER, c.CommitRequest(changes)), ErrorKind.ALREADY_EXISTS)
    await refused(catalog.commit(WRITER, c.CommitRequest(())), ErrorKind.INVALID)
    await refused(catalog.get(READER, c.GetRequest("places")), ErrorKind.NOT_FOUND)
    assert (await catalog.status(READER, c.StatusRequest())).version == before


@pytest.mark.parametrize(
    "need",
    [
        ch.NameFree("people"),
        ch.DatasetAt("id-people", 1),
        ch.SchemaIs("id-people", "fp1:" + "0" * 64),
        ch.InputsLive("id-people", ("datasets/s/id-people/gone.parquet",)),
        ch.DocumentAt("profile", "p", 7),
    ],
    ids=lambda need: type(need).__name__,
)
async def test_a_requirement_that_fails_is_a_conflict(catalog: Any, need: Any) -> None:
    await make_dataset(catalog, "people")
    change = ch.SetCard("id-people", Card(owner="ben"))
    request = c.CommitRequest((change,), (need,))
    await refused(catalog.commit(WRITER, request), ErrorKind.CONFLICT)
    assert (await catalog.get(READER, c.GetRequest("people"))).dataset.card.owner == "anna"


async def test_requirements_that_hold_let_a_commit_through(catalog: Any) -> None:
    made = await make_dataset(catalog, "people")
    (file,) = (await catalog.files(READER, c.PageRequest("people"))).files
    needs = (
        ch.NameFree("places"),
        ch.DatasetAt("id-people", made.version),
        ch.SchemaIs("id-people", made.dataset.fingerprint),
        ch.InputsLive("id-people", (file.key,)),
        ch.DigestAbsent("id-people", "f" * 64),
        ch.DocumentAt("profile", "p", 0),
    )
    changes = (ch.RemoveFiles("id-people", (file.key,)), ch.PutDocument("profile", "p", "{}"))
    done = await catalog.commit(WRITER, c.CommitRequest(changes, needs))
    assert done.version == made.version + 1
    assert (await catalog.get(READER, c.GetRequest("people"))).dataset.files == 0


async def test_one_key_has_one_effect_and_one_answer(catalog: Any) -> None:
    ctx = caller(Scope.WRITE, idempotency_key="key-1")
    request = c.CommitRequest((create("id-1", "people"),))
    first = await catalog.commit(ctx, request)
    again = await catalog.commit(ctx, request)
    assert (again.version, first.replayed, again.replayed) == (first.version, False, True)
    other = c.CommitRequest((create("id-2", "places"),))
    error = await refused(catalog.commit(ctx, other), ErrorKind.INVALID)
    assert error.http_status == 422
    # The same key of another caller, or none at all, is another commit.
    await refused(catalog.commit(WRITER, request), ErrorKind.ALREADY_EXISTS)


async def test_a_commit_for_a_caller_keeps_the_callers_answer(catalog: Any) -> None:
    ctx = caller(Scope.WRITE, idempotency_key="key-1")
    asked = c.CommitRequest((), request_sha256="ab" * 32, route="ingest")
    assert not (await catalog.commit(ctx, asked)).replayed
    kept = replace(asked, changes=(create("id-1", "people"),), answer_json='{"rows": 3}')
    first = await catalog.commit(ctx, kept)
    again = replace(kept, changes=(create("id-2", "people"),), answer_json='{"rows": 4}')
    for request in (asked, again):
        told = await catalog.commit(ctx, request)
        assert told == c.CommitResult(first.version, True, '{"rows": 3}')
    other = replace(asked, request_sha256="cd" * 32)
    assert (await refused(catalog.commit(ctx, other), ErrorKind.INVALID)).http_status == 422
    # The key of one call is free for another.
    assert not (await catalog.commit(ctx, replace(other, route="token"))).replayed


async def test_commits_at_once_are_all_there_in_one_order(catalog: Any) -> None:
    calls = [
        catalog.commit(WRITER, c.CommitRequest((create(f"id-{n}", f"name {n:02d}"),)))
        for n in range(40)
    ]
    versions = [done.version for done in await asyncio.gather(*calls)]
    assert len(set(versions)) == 40
    listed = await catalog.list(READER, c.ListRequest())
    assert [dataset.name for dataset in listed.datasets] == [f"name {n:02d}" for n in range(40)]
    assert listed.version == max(versions)


async def test_a_file_needs_a_session_that_lives(catalog: Any) -> None:
    opened = await catalog.session(WRITER, c.SessionRequest("w", "ingestd"))
    await catalog.session(WRITER, c.SessionRequest("w", "ingestd", opened.session_id))
    await catalog.commit(WRITER, c.CommitRequest((create("id-1", "people"),)))
    add = ch.AddFiles("id-1", (data_file(opened.session_id, "id-1", "a"),))
    await catalog.commit(WRITER, c.CommitRequest((add,)))
    await catalog.session(WRITER, c.SessionRequest("w", "ingestd", opened.session_id, close=True))
    late = ch.AddFiles("id-1", (data_file(opened.session_id, "id-1", "b"),))
    await refused(catalog.commit(WRITER, c.CommitRequest((late,))), ErrorKind.CONFLICT)


# -- reads


async def test_a_name_that_is_not_there_is_answered_with_the_nearest(catalog: Any) -> None:
    await make_dataset(catalog, "people")
    error = await refused(catalog.get(READER, c.GetRequest("peeple")), ErrorKind.NOT_FOUND)
    assert "people" in str(error.fields)


async def test_the_past_can_be_read_by_version_and_by_time(catalog: Any, here: World) -> None:
    made = await make_dataset(catalog, "people")
    renamed = await catalog.rename(WRITER, c.RenameRequest("people", "folk"))
    then = c.AsOf(version=made.version)
    assert (await catalog.get(READER, c.GetRequest("people", then))).dataset == made.dataset
    at = c.AsOf(time=made.dataset.updated_at)
    assert (await catalog.get(READER, c.GetRequest("people", at))).dataset == made.dataset
    now = c.AsOf(time=renamed.dataset.updated_at + timedelta(seconds=1))
    assert (await catalog.get(READER, c.GetRequest("folk", now))).dataset.name == "folk"
    await refused(catalog.get(READER, c.GetRequest("people")), ErrorKind.NOT_FOUND)
    for spelled in ("people", "PEOPLE"):
        request = c.SnapshotRequest(("people",), pins=(c.Pin(spelled, then),))
        pinned = await catalog.snapshot(READER, request)
        assert pinned.datasets[0].dataset == made.dataset
    ahead = c.AsOf(version=renamed.version + 100)
    await refused(catalog.get(READER, c.GetRequest("folk", ahead)), ErrorKind.NOT_FOUND)
    wait = c.AsOf(min_version=renamed.version + 100)
    await refused(catalog.get(READER, c.GetRequest("folk", wait)), ErrorKind.UNAVAILABLE)
    both = c.AsOf(version=1, time=made.dataset.updated_at)
    await refused(catalog.get(READER, c.GetRequest("folk", both)), ErrorKind.INVALID)


async def test_lists_are_filtered_and_paged(catalog: Any) -> None:
    changes = tuple(create(f"id-{n}", f"set {n}") for n in range(7))
    await catalog.commit(WRITER, c.CommitRequest((*changes, create("id-x", "other"))))

    async def names(**filters: Any) -> list[str]:
        result = await catalog.list(READER, c.ListRequest(**filters))
        return [dataset.name for dataset in result.datasets]

    assert len(await names()) == 8
    assert await names(query="other") == ["other"]
    assert await names(tag="id-3") == ["set 3"]
    assert await names(owner="nobody") == []
    assert len(await names(query="NAME", owner="anna")) == 8
    cursor, seen = "", []
    while True:
        page = await catalog.list(READER, c.ListRequest(limit=3, cursor=cursor))
        seen += [dataset.name for dataset in page.datasets]
        cursor = page.cursor
        if not cursor:
            break
    assert seen == await names()
    for wrong in (c.ListRequest(limit=0), c.ListRequest(limit=1001), c.ListRequest(cursor="?")):
        await refused(catalog.list(READER, wrong), ErrorKind.INVALID)


async def test_files_and_versions_are_paged(catalog: Any) -> None:
    await make_dataset(catalog, "people", files=5)
    for owner in "abcd":
        await catalog.update_card(WRITER, c.UpdateCardRequest("people", owner=owner))
    whole = await catalog.files(READER, c.PageRequest("people"))
    pages, cursor = [], ""
    for _ in range(3):
        page = await catalog.files(READER, c.PageRequest("people", limit=2, cursor=cursor))
        pages += page.files
        cursor = page.cursor
    assert (tuple(pages), cursor) == (whole.files, "")
    newest = await catalog.versions(READER, c.PageRequest("people", limit=2))
    rest = await catalog.versions(READER, c.PageRequest("people", cursor=newest.cursor))
    versions = [entry.version for entry in (*newest.versions, *rest.versions)]
    assert versions == sorted(versions, reverse=True)
    assert len(versions) == 5


async def test_a_snapshot_keeps_the_order_of_the_names(catalog: Any) -> None:
    for name in ("a", "b", "c"):
        await make_dataset(catalog, name)
    result = await catalog.snapshot(READER, c.SnapshotRequest(("c", "a", "b")))
    assert [each.dataset.name for each in result.datasets] == ["c", "a", "b"]
    wrong = c.SnapshotRequest(("c", "nothing"))
    await refused(catalog.snapshot(READER, wrong), ErrorKind.NOT_FOUND)


async def test_a_large_snapshot_arrives_whole(catalog: Any) -> None:
    made = await make_dataset(catalog, "people", files=3_000)
    result = await catalog.snapshot(READER, c.SnapshotRequest(("people",)))
    assert len(result.datasets[0].files) == made.dataset.files == 3_000


# -- the life of a dataset


async def test_a_card_is_changed_where_something_is_given(catalog: Any) -> None:
    made = await make_dataset(catalog, "people")
    request = c.UpdateCardRequest("people", description="who", sensitivity="confidential")
    card = (await catalog.update_card(WRITER, request)).dataset.card
    assert (card.owner, card.description, card.tags) == ("anna", "who", made.dataset.card.tags)
    assert card.sensitivity is Sensitivity.CONFIDENTIAL
    request = c.UpdateCardRequest("people", tags=(), source_system="crm", freshness_sla_seconds=60)
    card = (await catalog.update_card(WRITER, request)).dataset.card
    assert (card.tags, card.lineage, card.freshness_sla_seconds) == ((), Lineage("crm"), 60)
    stale = c.UpdateCardRequest("people", owner="x", expected_version=made.version)
    await refused(catalog.update_card(WRITER, stale), ErrorKind.CONFLICT)
    wrong = c.UpdateCardRequest("people", sensitivity="top secret")
    await refused(catalog.update_card(WRITER, wrong), ErrorKind.INVALID)


async def test_drop_restore_and_purge(catalog: Any) -> None:
    made = await make_dataset(catalog, "people")
    await catalog.drop(WRITER, c.DropRequest("people"))
    await refused(catalog.get(READER, c.GetRequest("people")), ErrorKind.NOT_FOUND)
    shown = await catalog.get(READER, c.GetRequest("people", include_dropped=True))
    assert shown.dataset.status is DatasetStatus.DROPPED
    await make_dataset(catalog, "People2")
    back = await catalog.restore(WRITER, c.RestoreRequest("people", "people again"))
    assert (back.dataset.id, back.dataset.files) == (made.dataset.id, 1)
    await refused(
        catalog.rename(WRITER, c.RenameRequest("people again", "PEOPLE2")), ErrorKind.ALREADY_EXISTS
    )
    await catalog.drop(OPERATOR, c.DropRequest("people again", purge=True))
    await refused(catalog.restore(WRITER, c.RestoreRequest("people again")), ErrorKind.NOT_FOUND)


async def test_documents_are_kept_by_kind_and_id(catalog: Any) -> None:
    puts = tuple(ch.PutDocument("profile", id_, '{"n": 1}') for id_ in ("b", "a"))
    done = await catalog.commit(WRITER, c.CommitRequest(puts))
    both = await catalog.documents(READER, c.DocumentsRequest("profile"))
    assert [(each.id, each.body, each.version) for each in both.documents] == [
        ("a", '{"n": 1}', done.version),
        ("b", '{"n": 1}', done.version),
    ]
    await catalog.commit(WRITER, c.CommitRequest((ch.DeleteDocument("profile", "a"),)))
    missing = c.DocumentsRequest("profile", "a")
    await refused(catalog.documents(READER, missing), ErrorKind.NOT_FOUND)
    assert not (await catalog.documents(READER, c.DocumentsRequest("tool"))).documents


async def test_the_status_tells_who_holds_the_store(catalog: Any) -> None:
    made = await make_dataset(catalog, "people")
    status = await catalog.status(READER, c.StatusRequest())
    assert (status.version, status.datasets, status.endpoint) == (made.version, 1, "127.0.0.1:1")
    assert status.store_id
    assert status.epoch >= 1
    assert status.idempotency_seconds > 0


# -- registration, duplicates, checks


async def put_parquet(here: World, key: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    await here.buckets.get("primary").put(key, sink.getvalue().to_pybytes())


async def test_registration_is_idempotent_with_a_gate(catalog: Any, here: World) -> None:
    await put_parquet(here, "old/a.parquet", pa.table({"id": [1, 2], "name": ["x", "y"]}))
    await put_parquet(here, "old/b.parquet", pa.table({"id": [3], "age": [4]}))
    card = Card(owner="anna", description="an old export")
    request = c.RegisterRequest("legacy", (c.ForeignObject("old/a.parquet"),), card)
    made = await catalog.register(WRITER, request)
    assert made.created
    assert (made.dataset.row_count, made.dataset.files) == (2, 1)
    assert made.dataset.fingerprint == fingerprint(made.dataset.schema.columns)
    again = await catalog.register(WRITER, request)
    assert (again.created, again.dataset.id, again.dataset.files) == (False, made.dataset.id, 1)
    assert again.dataset.updated_at > made.dataset.updated_at
    drifted = c.RegisterRequest("legacy", (c.ForeignObject("old/b.parquet"),), card)
    error = await refused(catalog.register(WRITER, drifted), ErrorKind.CONFLICT)
    assert "age" in str(error.fields)
    missing = c.RegisterRequest("other", (c.ForeignObject("old/nothing.parquet"),), card)
    await refused(catalog.register(WRITER, missing), ErrorKind.NOT_FOUND)
    bare = c.RegisterRequest("other", (c.ForeignObject("old/a.parquet"),), Card())
    await refused(catalog.register(WRITER, bare), ErrorKind.INVALID)


async def test_duplicates_are_folded_by_a_plan_that_was_seen(catalog: Any, here: World) -> None:
    for name in "ab":
        await put_parquet(here, f"old/{name}.parquet", pa.table({"id": [1, 2]}))
    when = (await make_dataset(catalog, "people")).dataset.updated_at
    twins = tuple(
        c.ImportedDataset("twin", (f"old/{name}.parquet",), 2, when + timedelta(seconds=n))
        for n, name in enumerate("ab")
    )
    done = await catalog.import_datasets(OPERATOR, c.ImportRequest(twins))
    assert (done.imported, done.duplicates) == (2, 1)
    plan = await catalog.dedupe(OPERATOR, c.PlanRequest(dry_run=True))
    assert (plan.applied, len(plan.groups), plan.groups[0].name) == (False, 1, "twin")
    await refused(catalog.dedupe(OPERATOR, c.PlanRequest(plan="0" * 64)), ErrorKind.CONFLICT)
    report = await catalog.dedupe(OPERATOR, c.PlanRequest(plan=plan.plan))
    assert report.applied
    assert report.datasets_before - report.datasets_after == 1
    assert not (await catalog.dedupe(OPERATOR, c.PlanRequest(dry_run=True))).groups


async def test_fsck_finds_what_is_named_and_not_there(catalog: Any) -> None:
    await make_dataset(catalog, "people", files=2)
    report = await catalog.fsck(OPERATOR, c.FsckRequest())
    assert {finding.kind for finding in report.findings} == {"dangling"}
    assert {finding.dataset for finding in report.findings} == {"people"}
    assert (len(report.findings), report.applied) == (2, False)
    # What would be quarantined is said, and not done.
    assert report.quarantined == ("people",)
    shown = await catalog.get(READER, c.GetRequest("people"))
    assert shown.dataset.status is DatasetStatus.LIVE
    done = await catalog.fsck(OPERATOR, c.FsckRequest(dry_run=False, plan=report.plan))
    assert (done.applied, done.quarantined) == (True, ("people",))
    error = await refused(
        catalog.snapshot(READER, c.SnapshotRequest(("people",))), ErrorKind.CONFLICT
    )
    assert error.fields["reason"]


async def test_collection_shows_its_plan_first(catalog: Any) -> None:
    await make_dataset(catalog, "people")
    report = await catalog.collect(OPERATOR, c.PlanRequest(dry_run=True))
    assert not report.applied
    assert report.plan


# -- scopes

WRITES = [
    ("commit", c.CommitRequest((create("i", "n"),))),
    ("register", c.RegisterRequest("n", (c.ForeignObject("k"),), Card("o", "d"))),
    ("update_card", c.UpdateCardRequest("n")),
    ("rename", c.RenameRequest("n", "m")),
    ("drop", c.DropRequest("n")),
    ("restore", c.RestoreRequest("n")),
    ("session", c.SessionRequest("w", "r")),
]
OPERATIONS = [
    ("dedupe", c.PlanRequest(dry_run=True)),
    ("fsck", c.FsckRequest()),
    ("collect", c.PlanRequest(dry_run=True)),
    ("import_datasets", c.ImportRequest(())),
]


async def test_a_call_needs_its_scope(catalog: Any) -> None:
    for name, request in WRITES:
        error = await refused(getattr(catalog, name)(READER, request), ErrorKind.FORBIDDEN)
        assert error.fields["required"] == "write", name
    for name, request in OPERATIONS:
        for ctx in (READER, WRITER):
            error = await refused(getattr(catalog, name)(ctx, request), ErrorKind.FORBIDDEN)
            assert error.fields["required"] == "operator", name


# -- buckets


async def test_usage_is_counted_by_bucket_and_residency(catalog: Any) -> None:
    assert (await catalog.usage(READER, c.UsageRequest())).buckets == ()
    await make_dataset(catalog, "one")
    made = create("id-two", "two", bucket="extra")
    version = (await catalog.commit(WRITER, c.CommitRequest((made,)))).version
    found = await catalog.usage(READER, c.UsageRequest())
    assert found.buckets == (c.BucketUse("extra", "", 1), c.BucketUse("primary", "", 1))
    assert found.version == version


async def test_a_home_that_there_is_not_is_named_with_those_there_are(catalog: Any) -> None:
    made = create("id-one", "one", bucket="nowhere")
    error = await refused(catalog.commit(WRITER, c.CommitRequest((made,))), ErrorKind.NOT_FOUND)
    assert (error.fields["bucket"], error.fields["buckets"]) == ("nowhere", ["primary", "extra"])


async def test_buckets_are_documents_of_the_operator(catalog: Any) -> None:
    body = '{"name": "fresh", "url": "s3://b/p"}'
    put = c.CommitRequest((ch.PutDocument("bucket", "fresh", body),))
    await refused(catalog.commit(WRITER, put), ErrorKind.FORBIDDEN)
    await catalog.commit(OPERATOR, put)
    await catalog.commit(WRITER, c.CommitRequest((create("id-one", "one", bucket="fresh"),)))
    delete = c.CommitRequest((ch.DeleteDocument("bucket", "fresh"),))
    error = await refused(catalog.commit(OPERATOR, delete), ErrorKind.CONFLICT)
    assert error.fields["datasets"] == 1
