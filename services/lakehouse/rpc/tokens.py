"""Service tokens over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import tokens as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context, Principal
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class TokensClient:
    """``TokenService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Tokens", c.TokenService)

    async def create(self, ctx: Context, request: c.CreateTokenRequest) -> c.CreatedToken:
        return await self._peer.unary("create", ctx, request, c.CreatedToken)

    async def list(self, ctx: Context, request: c.ListTokensRequest) -> c.ListTokensResult:
        return await self._peer.unary("list", ctx, request, c.ListTokensResult)

    async def revoke(self, ctx: Context, request: c.RevokeTokenRequest) -> c.RevokeTokenResult:
        return await self._peer.unary("revoke", ctx, request, c.RevokeTokenResult)

    async def verify(self, ctx: Context, request: c.VerifyTokenRequest) -> Principal:
        return await self._peer.unary("verify", ctx, request, Principal)


class TokensServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.TokenService, edge: Edge) -> None:
        super().__init__("Tokens", c.TokenService, service, edge)
