"""Buckets over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import storage as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.model.probe import ProbeReport
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class StorageClient:
    """``StorageService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Storage", c.StorageService)

    async def buckets(self, ctx: Context, request: c.BucketsRequest) -> c.BucketsResult:
        return await self._peer.unary("buckets", ctx, request, c.BucketsResult)

    async def probe(self, ctx: Context, request: c.ProbeRequest) -> ProbeReport:
        return await self._peer.unary("probe", ctx, request, ProbeReport)

    async def add_bucket(self, ctx: Context, request: c.AddBucketRequest) -> c.BucketInfo:
        return await self._peer.unary("add_bucket", ctx, request, c.BucketInfo)

    async def remove_bucket(
        self, ctx: Context, request: c.RemoveBucketRequest
    ) -> c.RemoveBucketResult:
        return await self._peer.unary("remove_bucket", ctx, request, c.RemoveBucketResult)

    async def errors(self, ctx: Context, request: c.ErrorsRequest) -> c.ErrorsResult:
        return await self._peer.unary("errors", ctx, request, c.ErrorsResult)

    async def report(self, ctx: Context, request: c.ReportRequest) -> c.ReportResult:
        return await self._peer.unary("report", ctx, request, c.ReportResult)


class StorageServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.StorageService, edge: Edge) -> None:
        super().__init__("Storage", c.StorageService, service, edge)
