"""Profiles over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import profiles as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class ProfilesClient:
    """``ProfilesService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Profiles", c.ProfilesService)

    async def get(self, ctx: Context, request: c.ProfileRequest) -> c.ProfileResult:
        return await self._peer.unary("get", ctx, request, c.ProfileResult)

    async def list(self, ctx: Context, request: c.ListProfilesRequest) -> c.ListProfilesResult:
        return await self._peer.unary("list", ctx, request, c.ListProfilesResult)

    async def put(self, ctx: Context, request: c.PutProfileRequest) -> c.ProfileResult:
        return await self._peer.unary("put", ctx, request, c.ProfileResult)

    async def delete(self, ctx: Context, request: c.DeleteProfileRequest) -> c.ProfileResult:
        return await self._peer.unary("delete", ctx, request, c.ProfileResult)


class ProfilesServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.ProfilesService, edge: Edge) -> None:
        super().__init__("Profiles", c.ProfilesService, service, edge)
