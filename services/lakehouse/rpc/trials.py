"""Trials over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import trials as c
from lakehouse.contracts.vectors import IndexResult
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class TrialsClient:
    """``TrialsService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Trials", c.TrialsService)

    async def put_eval(self, ctx: Context, request: c.PutEvalRequest) -> c.EvalResult:
        return await self._peer.unary("put_eval", ctx, request, c.EvalResult)

    async def get_eval(self, ctx: Context, request: c.EvalRequest) -> c.EvalResult:
        return await self._peer.unary("get_eval", ctx, request, c.EvalResult)

    async def list_evals(self, ctx: Context, request: c.ListEvalsRequest) -> c.ListEvalsResult:
        return await self._peer.unary("list_evals", ctx, request, c.ListEvalsResult)

    async def delete_eval(self, ctx: Context, request: c.DeleteEvalRequest) -> c.DeleteEvalResult:
        return await self._peer.unary("delete_eval", ctx, request, c.DeleteEvalResult)

    async def evaluate(self, ctx: Context, request: c.EvaluateRequest) -> c.TrialsReport:
        return await self._peer.unary("evaluate", ctx, request, c.TrialsReport)

    async def autotune(self, ctx: Context, request: c.AutotuneRequest) -> c.TrialsReport:
        return await self._peer.unary("autotune", ctx, request, c.TrialsReport)

    async def get_run(self, ctx: Context, request: c.RunRequest) -> c.TrialsReport:
        return await self._peer.unary("get_run", ctx, request, c.TrialsReport)

    async def trials(self, ctx: Context, request: c.TrialsRequest) -> c.TrialsResult:
        return await self._peer.unary("trials", ctx, request, c.TrialsResult)

    async def promote(self, ctx: Context, request: c.PromoteRequest) -> IndexResult:
        return await self._peer.unary("promote", ctx, request, IndexResult)


class TrialsServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.TrialsService, edge: Edge) -> None:
        super().__init__("Trials", c.TrialsService, service, edge)
