"""``system.bucket_errors`` and ``system.buckets``: asked by each query, narrowed if it is sure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlglot

from lakehouse.contracts.storage import (
    BucketInfo,
    BucketsRequest,
    BucketsResult,
    ErrorsRequest,
    ErrorsResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.queryd import live
from lakehouse.queryd.live import LiveTables, narrowed
from lakehouse.queryd.system import SYSTEM_TABLES, schema_of
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
