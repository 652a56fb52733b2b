"""``system.bucket_errors``, ``system.buckets`` and ``system.events``: asked by each query, narrowed
if it is sure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlglot

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.journal import EventsRequest, EventsResult
from lakehouse.contracts.storage import (
    BucketInfo,
    BucketsRequest,
    BucketsResult,
    ErrorsRequest,
    ErrorsResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.events import EventKind, JournalEvent
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.queryd import live
from lakehouse.queryd.live import LiveTables
from lakehouse.queryd.narrowing import narrowed, narrowed_events
from lakehouse.queryd.system import SYSTEM_TABLES, SystemTables, schema_of
from lakehouse.testing.clocks import ManualClock
from unit.gateway.fakes import failed_attempt

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TWO = datetime(2026, 11, 21, 2, tzinfo=UTC)
MICRO = timedelta(microseconds=1)
CTX = Context(Principal("op", (Scope.OPERATOR,)), "r-1")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("at >= '2026-11-21T02:00:00Z'", {"since": TWO}),
        ("at > timestamptz '2026-11-21 03:00:00+01:00'", {"since": TWO}),
        ("'2026-11-21T02:00:00Z' <= at", {"since": TWO}),
        ("at < '2026-11-21T02:00:00Z'", {"until": TWO + MICRO}),
        ("at = '2026-11-21T02:00:00Z'", {"since": TWO, "until": TWO + MICRO}),
        (
            "at between '2026-11-21T02:00:00Z' and '2026-11-21T02:00:00Z'",
            {"since": TWO, "until": TWO + MICRO},
        ),
        ("at > now() - interval '1 hour'", {"since": NOW - timedelta(hours=1)}),
        ("at > current_timestamp - interval '90 minutes'", {"since": NOW - timedelta(minutes=90)}),
        ("at >= (now() - interval '2' day)", {"since": NOW - timedelta(days=2)}),
        ("bucket = 'eu' and \"Operation\" = 'get' and 'timeout' = error_kind", None),
        ("at > '2026-11-21T02:00:00Z' and at > '2026-11-20T02:00:00Z'", {"since": TWO}),
        # Nothing that is not surely a bound of every row.
        ("at < now() - interval '1 hour'", {}),
        ("at > now() - interval '1 month'", {}),
        ("at > '2026-11-21T02:00:00'", {}),
        ("at > '2026-11-21T02:00:00Z' or bucket = 'eu'", {}),
        ("not (at > '2026-11-21T02:00:00Z')", {}),
        ("bucket <> 'eu'", {}),
        ("bucket in ('eu', 'us')", {}),
        ("bucket = ''", {}),
        ("bucket = key", {}),
        ("at > 'yesterday'", {}),
    ],
)
def test_what_a_where_clause_asks_of_the_journal(where: str, expected: Any) -> None:
    tree = sqlglot.parse_one(f"select * from system.bucket_errors where {where}", read="postgres")
    if expected is None:
        expected = {"bucket": "eu", "operation": "get", "error_kind": "timeout"}
    assert narrowed(tree, NOW) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 from system.bucket_errors a, system.bucket_errors b where a.bucket = 'eu'",
        "select 1 from system.bucket_errors where bucket = 'eu' union all"
        " select 1 from system.bucket_errors",
        "with x as (select * from system.bucket_errors) select 1 from x where bucket = 'eu'",
        "select 1 from (select * from system.bucket_errors) x where bucket = 'eu'",
        "select 1 from system.bucket_errors",
    ],
)
def test_only_the_plainest_statements_narrow(sql: str) -> None:
    assert narrowed(sqlglot.parse_one(sql, read="postgres"), NOW) == {}


class Storage:
    """Tells of ``count`` failed attempts, a page at a time."""

    def __init__(self, count: int = 1) -> None:
        self.attempts = [failed_attempt()] * count
        self.asked: list[ErrorsRequest] = []
        self.complete = True

    async def errors(self, ctx: Context, request: ErrorsRequest) -> ErrorsResult:
        self.asked.append(request)
        start = int(request.cursor or 0)
        end = start + request.limit
        page: tuple[FailedAttempt, ...] = tuple(self.attempts[start:end])
        after = str(end) if end < len(self.attempts) else ""
        return ErrorsResult(page, (), 0, 0, complete=self.complete, next=after)

    async def buckets(self, ctx: Context, request: BucketsRequest) -> BucketsResult:
        return BucketsResult((BucketInfo("eu", "tenant", "s3://eu", False, 1, 2, 3),))


def tables(storage: Any, folder: Path) -> LiveTables:
    return LiveTables(storage, folder, ManualClock())


async def test_the_rows_are_those_of_the_contract(tmp_path: Path) -> None:
    made = tables(Storage(), tmp_path)
    errors = await made.open(CTX, "bucket_errors", schema_of("bucket_errors"), None)
    (row,) = pq.read_table(errors.path).to_pylist()
    assert (errors.rows, row["key"], row["outcome"]) == (1, 'a "quoted", key', "failed")
    assert row["at"] == failed_attempt().at
    buckets = await made.open(CTX, "buckets", schema_of("buckets"), None)
    (row,) = pq.read_table(buckets.path).to_pylist()
    assert (row["name"], row["reachable"], row["breaker"]) == ("eu", False, "closed")
    assert row["last_error_at"] is None


async def test_rows_have_a_bound_and_are_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PAGE", 10)
    monkeypatch.setattr(live, "ROWS_MAX", 25)
    storage = Storage(100)
    found = await tables(storage, tmp_path).open(
        CTX, "bucket_errors", schema_of("bucket_errors"), None
    )
    assert found.rows == 25
    assert [request.cursor for request in storage.asked] == ["", "10", "20"]
    assert storage.asked[1].until == failed_attempt().at + MICRO


async def test_where_nobody_keeps_the_journal_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(LakehouseError) as caught:
        await tables(None, tmp_path).open(CTX, "buckets", schema_of("buckets"), None)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "node.peers.storaged" in str(caught.value.fields["hint"])


def test_they_are_among_the_system_tables() -> None:
    assert {"bucket_errors", "buckets"} <= set(SYSTEM_TABLES)


async def test_a_journal_that_cannot_be_read_whole_is_no_answer(tmp_path: Path) -> None:
    storage = Storage()
    storage.complete = False
    schema = schema_of("bucket_errors")
    with pytest.raises(LakehouseError, match="read whole") as caught:
        await tables(storage, tmp_path).open(CTX, "bucket_errors", schema, None)
    assert caught.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("dataset = 'people' and entity = '[7]'", {"dataset": "people", "entity_json": "[7]"}),
        ("'ann' = actor and Field = 'phone' and kind = 'update'", None),
        ("workspace = 'w' and request_id = 'r'", {"workspace": "w", "request_id": "r"}),
        ("version > 7", {"after_version": 7}),
        ("version >= 7 and version > 3", {"after_version": 6}),
        ("version < 7 and version <= 9", {"before_version": 6}),
        ("version = 7", {"after_version": 6, "before_version": 7}),
        ("version between 3 and 5", {"after_version": 2, "before_version": 5}),
        ("at >= '2026-11-21T02:00:00Z'", {"since": TWO}),
        ("at < '2026-11-21T02:00:00Z'", {"until": TWO + MICRO}),
        # Nothing that is not surely a bound of every row.
        ("entity = '[7]'", {}),
        ("version < 1", {"before_version": 1}),
        ("version > 7.5", {}),
        ("version > -1", {}),
        ("version > 99999999999999999999", {}),
        ("kind = 'odd'", {}),
        ("operation = 'upsert' or dataset = 'people'", {}),
        ("dataset in ('people', 'others')", {}),
        ("not (version > 7)", {}),
    ],
)
def test_what_a_where_clause_asks_of_the_events(where: str, expected: Any) -> None:
    tree = sqlglot.parse_one(f"select * from system.events where {where}", read="postgres")
    if expected is None:
        expected = {"actor": "ann", "field": "phone", "kind": "update"}
    assert narrowed_events(tree, NOW) == expected


class Journal:
    """Tells of ``count`` updates, a page at a time, newest first."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.asked: list[EventsRequest] = []
        self.error: LakehouseError | None = None

    async def events(self, ctx: Context, request: EventsRequest) -> EventsResult:
        ctx.require(Scope.READ)
        self.asked.append(request)
        if self.error is not None and (request.entity_json or self.error.kind.value != "invalid"):
            raise self.error
        top = min(self.count, request.before_version or self.count)
        top = int(request.cursor or top)
        low = max(0, top - request.limit)
        found = tuple(
            JournalEvent(
                version, 3, TWO, "d1", "people", EventKind.UPDATE, "patch", "ann",
                entity="[7]", field="phone", old_json='"555"', new_json=None, reason="moved",
            )
            for version in range(top, low, -1)
        )  # fmt: skip
        return EventsResult(found, self.count, str(low) if low else "")


async def events_of(
    journal: Any, folder: Path, where: str = "true", version: int = 0
) -> list[dict[str, Any]]:
    tree = sqlglot.parse_one(f"select * from system.events where {where}", read="postgres")
    made = LiveTables(None, folder, ManualClock(), journal)
    opened = await made.open(CTX, "events", schema_of("events"), tree, version)
    rows: list[dict[str, Any]] = pq.read_table(opened.path).to_pylist()
    assert opened.rows == len(rows)
    return rows


async def test_events_are_rows_with_their_values_as_json(tmp_path: Path) -> None:
    (row,) = await events_of(Journal(), tmp_path)
    assert (row["dataset"], row["entity"], row["field"]) == ("people", "[7]", "phone")
    assert (row["old"], row["new"], row["kind"], row["ordinal"]) == ('"555"', None, "update", 3)
    assert (row["at"], row["actor"], row["reason"]) == (TWO, "ann", "moved")


async def test_all_pages_of_events_are_read_up_to_the_version_of_the_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PAGE", 10)
    journal = Journal(100)
    rows = await events_of(journal, tmp_path, version=25)
    assert [row["version"] for row in rows] == list(range(25, 0, -1))
    assert [one.cursor for one in journal.asked] == ["", "15", "5"]
    assert (await events_of(journal, tmp_path, "version <= 3", 25))[0]["version"] == 3
    assert (await events_of(journal, tmp_path, "version <= 30", 25))[0]["version"] == 25


async def test_more_events_than_a_query_may_have_are_refused_and_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PAGE", 10)
    monkeypatch.setattr(live, "ROWS_MAX", 25)
    with pytest.raises(LakehouseError) as caught:
        await events_of(Journal(26), tmp_path)
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert (caught.value.fields["limit"], caught.value.fields["http_status"]) == ("rows", 422)
    assert len(await events_of(Journal(25), tmp_path)) == 25


async def test_a_filter_that_no_event_can_pass_finds_none(tmp_path: Path) -> None:
    journal = Journal(3)
    journal.error = LakehouseError(ErrorKind.INVALID, "no key")
    rows = await events_of(journal, tmp_path, "dataset = 'people' and entity = 'odd'")
    assert len(rows) == 3  # the engine compares the texts itself
    assert [one.entity_json for one in journal.asked] == ["odd", ""]
    journal.error = LakehouseError(ErrorKind.NOT_FOUND, "no such dataset")
    assert await events_of(journal, tmp_path, "dataset = 'none'") == []
    with pytest.raises(LakehouseError):
        await events_of(journal, tmp_path)


async def test_where_nobody_reads_the_journal_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(LakehouseError) as caught:
        await events_of(None, tmp_path)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "ingestd" in str(caught.value.fields["hint"])


async def test_a_query_of_a_version_reads_the_events_up_to_it(tmp_path: Path) -> None:
    journal = Journal(30)
    made = LiveTables(None, tmp_path, ManualClock(), journal)  # type: ignore[arg-type]
    system = SystemTables(None, tmp_path, made)  # type: ignore[arg-type]
    opened = await system.open(CTX, "events", AsOf(version=25), 25)
    assert pq.read_table(opened.path)["version"].to_pylist() == list(range(25, 0, -1))
    assert opened.relation.snapshot.dataset.version == 25
