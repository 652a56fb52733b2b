"""Rows over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import rows as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class RowsClient:
    """``RowsService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Rows", c.RowsService)

    async def get(self, ctx: Context, request: c.RowRequest) -> c.RowResult:
        return await self._peer.unary("get", ctx, request, c.RowResult)

    async def change(self, ctx: Context, request: c.ChangeRowsRequest) -> c.ChangeRowsReport:
        return await self._peer.unary("change", ctx, request, c.ChangeRowsReport)

    async def set_key(self, ctx: Context, request: c.SetKeyRequest) -> c.SetKeyReport:
        return await self._peer.unary("set_key", ctx, request, c.SetKeyReport)

    async def widen(self, ctx: Context, request: c.WidenRequest) -> c.WidenReport:
        return await self._peer.unary("widen", ctx, request, c.WidenReport)

    async def restore(self, ctx: Context, request: c.RestoreRowsRequest) -> c.ChangeRowsReport:
        return await self._peer.unary("restore", ctx, request, c.ChangeRowsReport)

    async def diff(self, ctx: Context, request: c.DiffRequest) -> c.DiffResult:
        return await self._peer.unary("diff", ctx, request, c.DiffResult)

    async def compact(self, ctx: Context, request: c.CompactRequest) -> c.CompactReport:
        return await self._peer.unary("compact", ctx, request, c.CompactReport)


class RowsServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.RowsService, edge: Edge) -> None:
        super().__init__("Rows", c.RowsService, service, edge)
