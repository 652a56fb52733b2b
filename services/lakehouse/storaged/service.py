"""The storage contract over the configured buckets."""

from __future__ import annotations

import asyncio
from typing import Final

from lakehouse.contracts.storage import (
    AddBucketRequest,
    BucketInfo,
    BucketsRequest,
    BucketsResult,
    ErrorsRequest,
    ErrorsResult,
    ProbeRequest,
    RemoveBucketRequest,
    RemoveBucketResult,
    ReportRequest,
    ReportResult,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import Context, Scope
from lakehouse.model.probe import ProbeReport
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.probe import probe_store

REACH_SECONDS: Final = 3.0
"""A bucket that has not answered by then is shown as not reachable."""


class Storage:
    """Implements ``contracts.storage.StorageService``; scope operator."""

    def __init__(self, buckets: Buckets, clock: Clock, ids: Ids) -> None:
        self._buckets = buckets
        self._clock = clock
        self._ids = ids

    async def buckets(self, ctx: Context, request: BucketsRequest) -> BucketsResult:
        """Every configured bucket, in the order of the configuration, asked at the same time."""
        ctx.require(Scope.OPERATOR)
        infos = await asyncio.gather(*(self._info(name) for name in self._buckets.names()))
        return BucketsResult(tuple(infos))

    async def probe(self, ctx: Context, request: ProbeRequest) -> ProbeReport:
        """The conformance probe, now. Raises ``not_found`` for a bucket that is not configured,
        ``unavailable``, ``timeout`` or ``forbidden`` for one that cannot be asked."""
        ctx.require(Scope.OPERATOR)
        store = self._buckets.raw(request.bucket)
        return await probe_store(store, request.bucket, self._clock, self._ids)

    async def add_bucket(self, ctx: Context, request: AddBucketRequest) -> BucketInfo:
        ctx.require(Scope.OPERATOR)
        raise _not_yet("buckets cannot be added at run time yet")

    async def remove_bucket(self, ctx: Context, request: RemoveBucketRequest) -> RemoveBucketResult:
        ctx.require(Scope.OPERATOR)
        raise _not_yet("buckets cannot be removed at run time yet")

    async def errors(self, ctx: Context, request: ErrorsRequest) -> ErrorsResult:
        ctx.require(Scope.OPERATOR)
        raise _not_yet("the error journal is not there yet")

    async def report(self, ctx: Context, request: ReportRequest) -> ReportResult:
        ctx.require(Scope.OPERATOR)
        raise _not_yet("the error journal is not there yet")

    async def _info(self, name: str) -> BucketInfo:
        settings = self._buckets.settings(name)
        try:
            store = self._buckets.raw(name)
        except LakehouseError as error:
            return BucketInfo(name, settings.bucket_class, "", False, 0, 0, 0, str(error))
        trouble = ""
        try:
            async with asyncio.timeout(REACH_SECONDS):
                # A list, for a missing bucket looks like a missing key to all else.
                await store.list(limit=1)
        except TimeoutError:
            trouble = f"timeout: no answer within {REACH_SECONDS:.0f} s"
        except LakehouseError as error:
            cause = error.fields.get("cause")
            trouble = f"{error}: {cause}" if cause else str(error)
        footprint = self._buckets.footprint(name)
        return BucketInfo(
            name=name,
            bucket_class=settings.bucket_class,
            url=store.url,
            reachable=not trouble,
            requests=sum(footprint.requests.values()),
            bytes_read=footprint.bytes_read,
            bytes_written=footprint.bytes_written,
            last_error=trouble or self._buckets.last_error(name),
        )


def _not_yet(why: str) -> LakehouseError:
    return LakehouseError(ErrorKind.UNAVAILABLE, why)
