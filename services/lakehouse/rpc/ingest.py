"""Ingest over gRPC: the request, the body in chunks, and its end, in one stream of parts."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc

from lakehouse.contracts import ingest as c
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import decode_answer, encode_answer
from lakehouse.rpc.calls import Peer, send_all
from lakehouse.rpc.convert import from_message, to_message
from lakehouse.rpc.methods import key_of, set_key
from lakehouse.rpc.serving import Call, Edge, Servicer
from lakehouse.rpc.uploads import body_of, hear_out, parts_of, request_of
from lakehouse.v1.ingest_pb2 import IngestPart


class IngestClient:
    """``IngestService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Ingest", c.IngestService)

    async def ingest(
        self, ctx: Context, request: c.IngestRequest, body: AsyncIterator[bytes]
    ) -> c.IngestReport:
        message = to_message(request)
        set_key(message, ctx.idempotency_key)
        with self._peer.span("ingest"):
            call = self._peer.stream_in("ingest", ctx)
            await send_all(call, parts_of(IngestPart, message, body))
            try:
                data = await call
            except grpc.aio.AioRpcError as error:
                raise self._peer.failure(error, "ingest", ctx) from error
            return await decode_answer(c.IngestReport, data)


class IngestServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.IngestService, edge: Edge) -> None:
        super().__init__("Ingest", c.IngestService, service, edge)
        self._ingest = service.ingest

    def streams(self) -> dict[str, Any]:
        return {"ingest": grpc.stream_unary_rpc_method_handler(self._handle)}

    async def _handle(self, messages: AsyncIterator[bytes], call: Call) -> Any:
        parts = aiter(messages)
        body = functools.partial(self._answer, parts)
        farewell = functools.partial(hear_out, call, parts)
        return await self._edge.serve(call, self.methods["ingest"].path, body, farewell)

    async def _answer(self, parts: AsyncIterator[bytes], ctx: Context) -> bytes:
        message = await request_of(IngestPart, parts)
        ctx = replace(ctx, idempotency_key=key_of(message))
        request = from_message(c.IngestRequest, message)
        report = await self._ingest(ctx, request, body_of(IngestPart, parts))
        return await encode_answer(report)
