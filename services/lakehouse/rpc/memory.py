"""Memory over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import memory as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class MemoryClient:
    """``MemoryService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Memory", c.MemoryService)

    async def remember(self, ctx: Context, request: c.RememberRequest) -> c.RememberReport:
        return await self._peer.unary("remember", ctx, request, c.RememberReport)

    async def recall(self, ctx: Context, request: c.RecallRequest) -> c.RecallResult:
        return await self._peer.unary("recall", ctx, request, c.RecallResult)

    async def catch_up(self, ctx: Context, request: c.CatchUpRequest) -> c.CatchUpResult:
        return await self._peer.unary("catch_up", ctx, request, c.CatchUpResult)

    async def memories(self, ctx: Context, request: c.MemoriesRequest) -> c.MemoriesResult:
        return await self._peer.unary("memories", ctx, request, c.MemoriesResult)


class MemoryServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.MemoryService, edge: Edge) -> None:
        super().__init__("Memory", c.MemoryService, service, edge)
