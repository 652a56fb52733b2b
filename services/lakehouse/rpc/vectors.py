"""Vectors over gRPC."""

from __future__ import annotations

import grpc

from lakehouse.contracts import vectors as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.calls import Peer
from lakehouse.rpc.serving import Edge, Servicer


class VectorsClient:
    """``VectorsService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Vectors", c.VectorsService)

    async def create_index(self, ctx: Context, request: c.CreateIndexRequest) -> c.IndexResult:
        return await self._peer.unary("create_index", ctx, request, c.IndexResult)

    async def get_index(self, ctx: Context, request: c.IndexRequest) -> c.IndexResult:
        return await self._peer.unary("get_index", ctx, request, c.IndexResult)

    async def list_indexes(
        self, ctx: Context, request: c.ListIndexesRequest
    ) -> c.ListIndexesResult:
        return await self._peer.unary("list_indexes", ctx, request, c.ListIndexesResult)

    async def build(self, ctx: Context, request: c.BuildRequest) -> c.IndexResult:
        return await self._peer.unary("build", ctx, request, c.IndexResult)

    async def cut_over(self, ctx: Context, request: c.CutOverRequest) -> c.IndexResult:
        return await self._peer.unary("cut_over", ctx, request, c.IndexResult)

    async def delete_index(
        self, ctx: Context, request: c.DeleteIndexRequest
    ) -> c.DeleteIndexResult:
        return await self._peer.unary("delete_index", ctx, request, c.DeleteIndexResult)

    async def search(self, ctx: Context, request: c.SearchRequest) -> c.SearchResult:
        return await self._peer.unary("search", ctx, request, c.SearchResult)

    async def put_vectors(self, ctx: Context, request: c.PutVectorsRequest) -> c.PutVectorsReport:
        return await self._peer.unary("put_vectors", ctx, request, c.PutVectorsReport)

    async def delete_vectors(
        self, ctx: Context, request: c.DeleteVectorsRequest
    ) -> c.PutVectorsReport:
        return await self._peer.unary("delete_vectors", ctx, request, c.PutVectorsReport)

    async def get_vectors(self, ctx: Context, request: c.GetVectorsRequest) -> c.GetVectorsResult:
        return await self._peer.unary("get_vectors", ctx, request, c.GetVectorsResult)

    async def compare(self, ctx: Context, request: c.CompareRequest) -> c.CompareReport:
        return await self._peer.unary("compare", ctx, request, c.CompareReport)


class VectorsServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.VectorsService, edge: Edge) -> None:
        super().__init__("Vectors", c.VectorsService, service, edge)
