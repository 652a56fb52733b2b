"""Retrievals over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import retrievals as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class RetrievalsClient:
    """``RetrievalsService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Retrievals", c.RetrievalsService)

    async def get(self, ctx: Context, request: c.RetrievalRequest) -> c.RetrievalResult:
        return await self._peer.unary("get", ctx, request, c.RetrievalResult)

    async def list(self, ctx: Context, request: c.ListRetrievalsRequest) -> c.ListRetrievalsResult:
        return await self._peer.unary("list", ctx, request, c.ListRetrievalsResult)

    async def replay(self, ctx: Context, request: c.RetrievalRequest) -> c.ReplayReport:
        return await self._peer.unary("replay", ctx, request, c.ReplayReport)

    async def explain(self, ctx: Context, request: c.RetrievalRequest) -> c.Explanation:
        return await self._peer.unary("explain", ctx, request, c.Explanation)

    async def pin(self, ctx: Context, request: c.PinRequest) -> c.PinResult:
        return await self._peer.unary("pin", ctx, request, c.PinResult)


class RetrievalsServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.RetrievalsService, edge: Edge) -> None:
        super().__init__("Retrievals", c.RetrievalsService, service, edge)
