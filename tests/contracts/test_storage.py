"""The storage contract, direct and over gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.world import OPERATOR, READER, WRITER, World
from lakehouse.contracts.storage import BucketsRequest, ProbeRequest
from lakehouse.errors import ErrorKind, LakehouseError


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
    for call in (storage.buckets(ctx, BucketsRequest()), storage.probe(ctx, ProbeRequest("extra"))):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.kind is ErrorKind.FORBIDDEN
        assert caught.value.fields["required"] == "operator"
