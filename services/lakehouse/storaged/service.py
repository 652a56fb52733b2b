"""The storage contract over the configured buckets."""

from __future__ import annotations

from collections.abc import Iterator

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
    RescueInfo,
)
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import Readout
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import Context, Scope
from lakehouse.model.probe import ProbeReport
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.probe import probe_store
from lakehouse.storaged.errors import check_report
from lakehouse.storaged.figures import journal_figures, rescue_figures
from lakehouse.storaged.infos import Infos
from lakehouse.storaged.journal import Journal
from lakehouse.storaged.ports import BucketRegistry, RescueSource


class Storage:
    """Implements ``contracts.storage.StorageService``; scope operator."""

    def __init__(
        self,
        buckets: Buckets,
        registry: BucketRegistry,
        journal: Journal,
        clock: Clock,
        ids: Ids,
        rescue: RescueSource | None = None,
    ) -> None:
        self._buckets = buckets
        self._registry = registry
        self._infos = Infos(buckets, registry)
        self._journal = journal
        self._rescue = rescue
        self._clock = clock
        self._ids = ids

    def figures(self) -> Iterator[Readout]:
        """The journal's figures, and the copier's if there is one."""
        yield from journal_figures(self._journal.state())
        if self._rescue is not None:
            yield from rescue_figures(self._rescue.info())

    async def buckets(self, ctx: Context, request: BucketsRequest) -> BucketsResult:
        """Every bucket, asked at the same time."""
        ctx.require(Scope.OPERATOR)
        infos = await self._infos.every()
        rescue = RescueInfo() if self._rescue is None else self._rescue.info()
        return BucketsResult(infos, rescue)

    async def probe(self, ctx: Context, request: ProbeRequest) -> ProbeReport:
        """The conformance probe, now. Raises ``not_found`` for a bucket that is not configured,
        ``unavailable``, ``timeout`` or ``forbidden`` for one that cannot be asked."""
        ctx.require(Scope.OPERATOR)
        store = self._buckets.raw(request.bucket)
        report = await probe_store(store, request.bucket, self._clock, self._ids)
        self._infos.probed(report)
        return report

    async def add_bucket(self, ctx: Context, request: AddBucketRequest) -> BucketInfo:
        ctx.require(Scope.OPERATOR)
        await self._registry.add_bucket(ctx, request)
        return await self._infos.one(request.name)

    async def remove_bucket(self, ctx: Context, request: RemoveBucketRequest) -> RemoveBucketResult:
        ctx.require(Scope.OPERATOR)
        return await self._registry.remove_bucket(ctx, request)

    async def errors(self, ctx: Context, request: ErrorsRequest) -> ErrorsResult:
        ctx.require(Scope.OPERATOR)
        return await self._journal.errors(request)

    async def report(self, ctx: Context, request: ReportRequest) -> ReportResult:
        """Raises ``invalid`` for more than 4,096 attempts, or fewer than no drops."""
        ctx.require(Scope.OPERATOR)
        check_report(request)
        await self._journal.report(request.attempts, request.dropped)
        return ReportResult(len(request.attempts))
