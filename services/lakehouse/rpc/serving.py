"""The serving side: authenticate, unwrap, call the contract, wrap; errors leave typed, whole.

This is one of the three places with a broad ``except``: what a service did not foresee becomes
``internal`` with the request id, is logged with its stack, and shows nothing of itself outside.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

import grpc

from lakehouse.contracts.tokens import Authenticator
from lakehouse.errors import GRPC_STATUS, ErrorKind, LakehouseError
from lakehouse.kit import tracing
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.requests import RequestLog
from lakehouse.kit.tracing import Span, SpanKind
from lakehouse.model.identity import Context
from lakehouse.rpc.bulk import decode, encode_answer
from lakehouse.rpc.context import Incoming
from lakehouse.rpc.convert import PACKAGE
from lakehouse.rpc.counts import CallCounts
from lakehouse.rpc.errors import TRAILER, detail_of, pack, status_of
from lakehouse.rpc.methods import Method, key_of, methods_of

_LOG = logging.getLogger(__name__)
_OK: Final = grpc.StatusCode.OK.name
_CANCELLED: Final = grpc.StatusCode.CANCELLED.name

Body = Callable[[Context], Awaitable[Any]]
Farewell = Callable[[], Awaitable[None]]
Call = Any
"""A ``grpc.aio.ServicerContext``, whose stubs lag behind the library."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What every servicer needs to let a call in."""

    authenticator: Authenticator
    clock: Clock
    ids: Ids
    counts: CallCounts = field(default_factory=CallCounts)
    log: RequestLog = RequestLog()

    async def serve(
        self, call: Call, path: str, body: Body, farewell: Farewell | None = None
    ) -> Any:
        """Run ``body`` with the caller's context; a failure ends the call with its typed error,
        after ``farewell``."""
        incoming = Incoming(call.invocation_metadata())
        if tracing.tracer is None:
            return await self._serve(call, path, incoming, body, farewell, tracing.NOTHING)
        service, _, method = path[1:].partition("/")
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        with tracing.span(path[1:], SpanKind.SERVER, about, incoming.traceparent()) as span:
            return await self._serve(call, path, incoming, body, farewell, span)

    async def _serve(
        self,
        call: Call,
        path: str,
        incoming: Incoming,
        body: Body,
        farewell: Farewell | None,
        span: Span,
    ) -> Any:
        request_id = incoming.request_id(self.ids)
        status, began, actor = _CANCELLED, self.clock.monotonic(), ""
        self.counts.began()
        try:
            left = call.time_remaining()
            context = await incoming.context(self.authenticator, self.clock, request_id, left)
            actor = context.principal.id
            with act_as(actor, request_id):
                answer = await body(context)
            status = _OK
            return answer
        except LakehouseError as error:
            status = GRPC_STATUS[error.kind]
            span.fail(error.kind.value)
            if farewell is not None:
                await farewell()
            await _refuse(call, error, incoming)
        except Exception:  # noqa: BLE001 - the servicer edge
            status = GRPC_STATUS[ErrorKind.INTERNAL]
            _LOG.exception("unexpected failure", extra={"call": path, "request_id": request_id})
            await _refuse(call, _internal(request_id), incoming)
        finally:
            seconds = self.clock.monotonic() - began
            self.counts.ended(path, status, seconds)
            if self.log.wants(seconds):
                about = {"request_id": request_id, "actor": actor}
                self.log.ended("grpc", path[1:], status, seconds, about)


def _internal(request_id: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INTERNAL,
        "the server failed in a way it did not foresee",
        request_id=request_id,
        hint="report it with the request id; the server's log has the details",
    )


async def _refuse(call: Call, error: LakehouseError, incoming: Incoming) -> NoReturn:
    trailer = ((TRAILER, pack(error, incoming.room_bytes())),)
    await call.abort(status_of(error.kind), detail_of(error), trailer)
    raise AssertionError("abort does not return")


class Servicer:
    """The RPCs of one contract. Methods that stream are given by subclasses as ``streams``."""

    def __init__(self, noun: str, protocol: object, service: object, edge: Edge) -> None:
        self.name = f"{PACKAGE}.{noun}"
        self.methods = methods_of(noun, protocol)
        self._service = service
        self._edge = edge

    def handler(self) -> Any:
        """What a server registers. Messages come and go as bytes: they are parsed inside the edge,
        so that a malformed one is a typed ``invalid``."""
        streams = self.streams()
        handlers = {
            method.rpc: streams.get(name)
            or grpc.unary_unary_rpc_method_handler(self._unary(method))
            for name, method in self.methods.items()
        }
        return grpc.method_handlers_generic_handler(self.name, handlers)

    def streams(self) -> dict[str, Any]:
        """Handlers of the methods that are not one request, one answer; by method name."""
        return {}

    def _unary(self, method: Method) -> Any:
        function, kind = getattr(self._service, method.name), method.request

        async def behaviour(data: bytes, call: Call) -> Any:
            async def body(ctx: Context) -> bytes:
                request, message = await decode(kind, data)
                answer = await function(replace(ctx, idempotency_key=key_of(message)), request)
                return await encode_answer(answer)

            return await self._edge.serve(call, method.path, body)

        return behaviour


async def close_chunks(chunks: AsyncIterator[Any]) -> None:
    """Close an iterator that can be closed, so that what feeds it stops."""
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
