"""Objects over gRPC: bodies in chunks both ways, whole or refused."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from lakehouse.contracts import objects as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import decode_answer, encode_answer, unreadable
from lakehouse.rpc.calls import Chunks, Peer, pieces, receive, send_all
from lakehouse.rpc.convert import from_message, parse, to_message
from lakehouse.rpc.methods import key_of, set_key
from lakehouse.rpc.serving import Call, Edge, Servicer, close_chunks
from lakehouse.rpc.uploads import body_of, hear_out, parts_of, request_of
from lakehouse.v1.objects_pb2 import ObjectPart, PutObjectPart


class ObjectsClient:
    """``ObjectsService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Objects", c.ObjectsService)

    async def list(self, ctx: Context, request: c.ListObjectsRequest) -> c.ListObjectsResult:
        return await self._peer.unary("list", ctx, request, c.ListObjectsResult)

    async def stat(self, ctx: Context, request: c.StatObjectRequest) -> c.ObjectHeader:
        return await self._peer.unary("stat", ctx, request, c.ObjectHeader)

    async def get(self, ctx: Context, request: c.GetObjectRequest) -> c.ObjectStream:
        failure = functools.partial(self._peer.failure, method="get", ctx=ctx)
        call = self._peer.stream_out("get", ctx, to_message(request).SerializeToString())
        first = _part(await receive(call, failure) or b"")
        if first.WhichOneof("part") != "header":
            call.cancel()
            raise LakehouseError(ErrorKind.INTERNAL, "the peer sent an object without a header")
        header = await decode_answer(c.ObjectHeader, first.header.SerializeToString())
        return c.ObjectStream(header, Chunks(call, _chunk_of, failure))

    async def put(
        self, ctx: Context, request: c.PutObjectRequest, body: AsyncIterator[bytes]
    ) -> c.PutObjectResult:
        message = to_message(request)
        set_key(message, ctx.idempotency_key)
        call = self._peer.stream_in("put", ctx)
        await send_all(call, parts_of(PutObjectPart, message, body))
        try:
            data = await call
        except grpc.aio.AioRpcError as error:
            raise self._peer.failure(error, "put", ctx) from error
        return await decode_answer(c.PutObjectResult, data)

    async def delete(self, ctx: Context, request: c.DeleteObjectRequest) -> c.DeleteObjectResult:
        return await self._peer.unary("delete", ctx, request, c.DeleteObjectResult)


def _chunk_of(data: bytes) -> bytes:
    return _part(data).chunk


def _part(data: bytes) -> ObjectPart:
    try:
        return ObjectPart.FromString(data)
    except DecodeError as error:
        raise unreadable(ObjectPart, "the peer's answer cannot be read", error) from error


class ObjectsServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.ObjectsService, edge: Edge) -> None:
        super().__init__("Objects", c.ObjectsService, service, edge)
        self._get = service.get
        self._put = service.put

    def streams(self) -> dict[str, Any]:
        return {
            "get": grpc.unary_stream_rpc_method_handler(self._handle_get),
            "put": grpc.stream_unary_rpc_method_handler(self._handle_put),
        }

    async def _handle_get(self, data: bytes, call: Call) -> Any:
        body = functools.partial(self._send, data, call)
        return await self._edge.serve(call, self.methods["get"].path, body)

    async def _send(self, data: bytes, call: Call, ctx: Context) -> None:
        """Write the object as fast as the caller reads it; one that goes away ends the read."""
        stream = await self._get(ctx, parse(c.GetObjectRequest, data)[0])
        try:
            header: Any = to_message(stream.header)
            await call.write(ObjectPart(header=header).SerializeToString())
            async for chunk in stream.chunks:
                for piece in pieces(chunk):
                    await call.write(ObjectPart(chunk=piece).SerializeToString())
        finally:
            await close_chunks(stream.chunks)

    async def _handle_put(self, messages: AsyncIterator[bytes], call: Call) -> Any:
        parts = aiter(messages)
        body = functools.partial(self._take, parts)
        farewell = functools.partial(hear_out, call, parts)
        return await self._edge.serve(call, self.methods["put"].path, body, farewell)

    async def _take(self, parts: AsyncIterator[bytes], ctx: Context) -> bytes:
        message = await request_of(PutObjectPart, parts)
        ctx = replace(ctx, idempotency_key=key_of(message))
        request = from_message(c.PutObjectRequest, message)
        return await encode_answer(await self._put(ctx, request, body_of(PutObjectPart, parts)))
