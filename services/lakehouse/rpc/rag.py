"""Answers over gRPC: the header first, then words as they come, and their end."""

from __future__ import annotations

import functools
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from lakehouse.contracts import rag as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import decode_answer, unreadable
from lakehouse.rpc.calls import Chunks, Peer, receive
from lakehouse.rpc.convert import from_message, parse, to_message
from lakehouse.rpc.serving import Call, Edge, Servicer, close_chunks
from lakehouse.v1.rag_pb2 import AnswerStreamPart


class RagClient:
    """``RagService`` at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._peer = Peer(channel, clock, "Rag", c.RagService)

    async def answer(self, ctx: Context, request: c.AnswerRequest) -> c.AnswerStream:
        failure = functools.partial(self._peer.failure, method="answer", ctx=ctx)
        with self._peer.span("answer"):
            call = self._peer.stream_out("answer", ctx, to_message(request).SerializeToString())
            first = _part(await receive(call, failure) or b"")
        if first.WhichOneof("part") != "header":
            call.cancel()
            raise LakehouseError(ErrorKind.INTERNAL, "the peer sent an answer without a header")
        header = await decode_answer(c.AnswerHeader, first.header.SerializeToString())
        return c.AnswerStream(header, Chunks(call, _words, failure))


def _words(data: bytes) -> c.AnswerPart:
    return from_message(c.AnswerPart, _part(data).words)


def _part(data: bytes) -> AnswerStreamPart:
    try:
        return AnswerStreamPart.FromString(data)
    except DecodeError as error:
        raise unreadable(AnswerStreamPart, "the peer's answer cannot be read", error) from error


class RagServicer(Servicer):
    """``service`` for callers at the other end of a channel."""

    def __init__(self, service: c.RagService, edge: Edge) -> None:
        super().__init__("Rag", c.RagService, service, edge)
        self._answer_of = service.answer

    def streams(self) -> dict[str, Any]:
        return {"answer": grpc.unary_stream_rpc_method_handler(self._handle)}

    async def _handle(self, data: bytes, call: Call) -> Any:
        body = functools.partial(self._answer, data, call)
        return await self._edge.serve(call, self.methods["answer"].path, body)

    async def _answer(self, data: bytes, call: Call, ctx: Context) -> None:
        """What is retrieved at once, then words as they come; a caller that goes away stops it."""
        stream = await self._answer_of(ctx, parse(c.AnswerRequest, data)[0])
        try:
            header: Any = to_message(stream.header)
            await call.write(AnswerStreamPart(header=header).SerializeToString())
            async for part in stream.parts:
                words: Any = to_message(part)
                await call.write(AnswerStreamPart(words=words).SerializeToString())
        finally:
            await close_chunks(stream.parts)
