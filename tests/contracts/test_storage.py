"""The storage contract, direct and over gRPC."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts.world import OPERATOR, READER, WRITER, World, create
from lakehouse.contracts.catalog import CommitRequest, DropRequest
from lakehouse.contracts.storage import (
    AddBucketRequest,
    BucketsRequest,
    ErrorCount,
    ErrorsRequest,
    ProbeRequest,
    RemoveBucketRequest,
    ReportRequest,
    ReportResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.buckets import BucketSettings, S3Credentials
from unit.storaged.attempts import attempt

KEYS = S3Credentials("access", "secret-key")


async def test_every_bucket_is_listed_in_the_order_of_the_configuration(storage: Any) -> None:
    result = await storage.buckets(OPERATOR, BucketsRequest())
    assert [bucket.name for bucket in result.buckets] == ["primary", "extra"]
    assert [bucket.bucket_class for bucket in result.buckets] == ["primary", "extra"]
    assert all(bucket.reachable and not bucket.last_error for bucket in result.buckets)
    assert result.buckets[0].url.startswith("file://")


async def test_requests_and_bytes_are_counted(storage: Any, here: World) -> None:
    before = (await storage.buckets(OPERATOR, BucketsRequest())).buckets[0]
    await here.buckets.get("primary").put("notes/a", b"12345")
    after = (await storage.buckets(OPERATOR, BucketsRequest())).buckets[0]
    assert after.bytes_written - before.bytes_written == 5
    assert after.requests > before.requests


@pytest.mark.parametrize("bucket", ["primary", "extra"])
async def test_a_probe_says_line_by_line_what_a_bucket_does(storage: Any, bucket: str) -> None:
    report = await storage.probe(OPERATOR, ProbeRequest(bucket))
    assert (report.bucket, report.passed) == (bucket, True)
    assert len(report.checks) >= 5
    assert all(check.passed and check.name and check.elapsed_ms >= 0 for check in report.checks)


async def test_a_bucket_that_is_not_there_is_named_with_those_that_are(storage: Any) -> None:
    with pytest.raises(LakehouseError) as caught:
        await storage.probe(OPERATOR, ProbeRequest("nowhere"))
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.fields["buckets"] == ["primary", "extra"]


@pytest.mark.parametrize("ctx", [READER, WRITER], ids=["reader", "writer"])
async def test_storage_is_the_operators(storage: Any, ctx: Any) -> None:
    for call in (
        storage.buckets(ctx, BucketsRequest()),
        storage.probe(ctx, ProbeRequest("extra")),
        storage.add_bucket(ctx, AddBucketRequest("more", "memory://more")),
        storage.remove_bucket(ctx, RemoveBucketRequest("extra")),
        storage.errors(ctx, ErrorsRequest()),
        storage.report(ctx, ReportRequest(())),
    ):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.kind is ErrorKind.FORBIDDEN
        assert caught.value.fields["required"] == "operator"


async def test_an_empty_journal_says_so(storage: Any) -> None:
    result = await storage.errors(OPERATOR, ErrorsRequest())
    assert (result.errors, result.counts, result.next) == ((), (), "")
    assert (result.dropped, result.spooled, result.journal_failures) == (0, 0, 0)
    assert result.primary_unavailable_since is None
    assert result.complete


async def test_what_is_reported_is_told_whole_and_once(storage: Any) -> None:
    told = tuple(attempt(number, sent=number != 2, final=number > 1) for number in range(5))
    for _ in range(2):
        answer = await storage.report(OPERATOR, ReportRequest(told, 3))
        assert answer == ReportResult(5)
    result = await storage.errors(OPERATOR, ErrorsRequest())
    assert result.errors == tuple(reversed(told))
    assert result.counts == (ErrorCount("eu", "get", "timeout", 5, 3),)
    assert result.dropped == 6


async def test_a_page_at_a_time_newest_first(storage: Any) -> None:
    told = tuple(attempt(number, bucket="eu" if number % 2 else "us") for number in range(10))
    await storage.report(OPERATOR, ReportRequest(told))
    first = await storage.errors(OPERATOR, ErrorsRequest(bucket="eu", limit=2))
    assert first.counts == (ErrorCount("eu", "get", "timeout", 5, 5),)
    seen, cursor = list(first.errors), first.next
    while cursor:
        # Whatever comes in meanwhile, newer or of another bucket, moves nothing.
        late = (attempt(100 + len(seen)), attempt(0, id=f"L{len(seen)}", bucket="us"))
        await storage.report(OPERATOR, ReportRequest(late))
        page = await storage.errors(OPERATOR, ErrorsRequest(bucket="eu", limit=2, cursor=cursor))
        seen, cursor = [*seen, *page.errors], page.next
    assert [one.id for one in seen] == [attempt(number).id for number in (9, 7, 5, 3, 1)]


async def test_every_filter(storage: Any) -> None:
    told = (attempt(1, operation="put"), attempt(2, error_kind="corrupt"), attempt(3, final=False))
    await storage.report(OPERATOR, ReportRequest(told))
    for asked, expected in (
        (ErrorsRequest(operation="put"), [1]),
        (ErrorsRequest(error_kind="corrupt"), [2]),
        (ErrorsRequest(final_only=True), [2, 1]),
        (ErrorsRequest(since=attempt(2).at), [3, 2]),
        (ErrorsRequest(until=attempt(2).at), [1]),
        (ErrorsRequest(bucket="nowhere"), []),
    ):
        result = await storage.errors(OPERATOR, asked)
        assert [one.id for one in result.errors] == [attempt(number).id for number in expected]


@pytest.mark.parametrize(
    "request_",
    [
        ErrorsRequest(limit=0),
        ErrorsRequest(limit=10_001),
        ErrorsRequest(cursor="none of ours"),
    ],
    ids=["no page", "too large a page", "cursor"],
)
async def test_what_cannot_be_asked_of_the_journal(storage: Any, request_: ErrorsRequest) -> None:
    with pytest.raises(LakehouseError) as caught:
        await storage.errors(OPERATOR, request_)
    assert caught.value.kind is ErrorKind.INVALID


async def test_a_report_that_is_too_large_is_refused_whole(storage: Any) -> None:
    for wrong in (ReportRequest((attempt(1),) * 4097), ReportRequest((), -1)):
        with pytest.raises(LakehouseError) as caught:
            await storage.report(OPERATOR, wrong)
        assert caught.value.kind is ErrorKind.INVALID
    assert (await storage.errors(OPERATOR, ErrorsRequest())).errors == ()


async def test_what_fails_here_is_in_the_journal(storage: Any, here: World) -> None:
    settings = BucketSettings(
        "gone", "s3://gone/x", endpoint="http://127.0.0.1:1", credentials=KEYS
    )
    here.buckets.add(settings)
    with pytest.raises(LakehouseError):
        await storage.probe(OPERATOR, ProbeRequest("gone"))
    result = await storage.errors(OPERATOR, ErrorsRequest(bucket="gone"))
    assert result.errors
    assert {one.error_kind for one in result.errors} == {"unavailable"}
    assert {one.bucket for one in result.errors} == {"gone"}


def asked_for(here: World, name: str = "client_eu", **fields: Any) -> AddBucketRequest:
    place = (here.folder / "added" / name).as_uri()
    return AddBucketRequest(**{"name": name, "url": place, "residency": "eu", **fields})


async def test_a_bucket_is_added_used_and_removed(storage: Any, here: World) -> None:
    info = await storage.add_bucket(OPERATOR, asked_for(here, bucket_class="profile:anna"))
    assert (info.name, info.bucket_class, info.residency) == ("client_eu", "profile:anna", "eu")
    assert (info.origin, info.reachable, info.last_error) == ("operator", True, "")
    assert info.probe is not None
    assert info.probe.passed
    again = await storage.add_bucket(OPERATOR, asked_for(here, bucket_class="profile:anna"))
    assert again.name == "client_eu"
    listed = (await storage.buckets(OPERATOR, BucketsRequest())).buckets
    assert [bucket.name for bucket in listed] == ["primary", "extra", "client_eu"]
    made = create("id-one", "one", bucket="client_eu")
    await here.near["catalog"].commit(WRITER, CommitRequest((made,)))
    with pytest.raises(LakehouseError) as caught:
        await storage.remove_bucket(OPERATOR, RemoveBucketRequest("client_eu"))
    assert (caught.value.kind, caught.value.fields["datasets"]) == (ErrorKind.CONFLICT, 1)
    await here.near["catalog"].drop(OPERATOR, DropRequest("one", purge=True))
    gone = await storage.remove_bucket(OPERATOR, RemoveBucketRequest("client_eu"))
    assert (gone.name, gone.removed) == ("client_eu", True)
    with pytest.raises(LakehouseError) as caught:
        await storage.remove_bucket(OPERATOR, RemoveBucketRequest("client_eu"))
    assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_what_is_not_taken_up(storage: Any, here: World) -> None:
    nobody = {"url": "s3://b/p", "endpoint": "http://127.0.0.1:1", "secret_ref": "env:HOME"}
    for request, kind in (
        (asked_for(here, name="Client"), ErrorKind.INVALID),
        (asked_for(here, url="file:///etc/lake"), ErrorKind.FORBIDDEN),
        (asked_for(here, url="memory://x"), ErrorKind.INVALID),
        (asked_for(here, url="s3://b", endpoint="https://127.0.0.1:1"), ErrorKind.INVALID),
        (
            asked_for(
                here, url="s3://b", endpoint="https://169.254.169.254", secret_ref="env:HOME"
            ),
            ErrorKind.FORBIDDEN,
        ),
        (asked_for(here, name="extra"), ErrorKind.ALREADY_EXISTS),
        (replace(asked_for(here), **nobody), ErrorKind.FORBIDDEN),
    ):
        with pytest.raises(LakehouseError) as caught:
            await storage.add_bucket(OPERATOR, request)
        assert caught.value.kind is kind, (request, caught.value)
    with pytest.raises(LakehouseError) as caught:
        await storage.remove_bucket(OPERATOR, RemoveBucketRequest("extra"))
    assert caught.value.kind is ErrorKind.FORBIDDEN
    listed = (await storage.buckets(OPERATOR, BucketsRequest())).buckets
    assert [bucket.name for bucket in listed] == ["primary", "extra"]
