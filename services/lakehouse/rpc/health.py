"""The standard health service (grpc.health.v1), answered from readiness."""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2

from lakehouse.contracts.readiness import ReadinessSource
from lakehouse.kit.clock import Clock
from lakehouse.rpc.draining import Leaving

NAME: Final = "grpc.health.v1.Health"
_WATCH_SECONDS: Final = 0.5


class Health:
    """``serving`` are the full names of the services here; "" asks for the whole server."""

    def __init__(
        self,
        source: ReadinessSource,
        serving: tuple[str, ...],
        clock: Clock,
        leaving: Leaving,
    ) -> None:
        self._source = source
        self._serving = frozenset(("", *serving))
        self._clock = clock
        self._leaving = leaving

    def handler(self) -> Any:
        """What a server registers."""
        request, answer = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        codecs = {
            "request_deserializer": request.FromString,
            "response_serializer": answer.SerializeToString,
        }
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, **codecs),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **codecs),
        }
        return grpc.method_handlers_generic_handler(NAME, handlers)

    def _now(self) -> Any:
        ready = not self._leaving and self._source.readiness().ready
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if ready else status.NOT_SERVING)

    async def _check(self, request: Any, call: Any) -> Any:
        if request.service not in self._serving:
            await call.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return self._now()

    async def _watch(self, request: Any, call: Any) -> None:
        """What is so at once, then every change; the last one is that the server leaves."""
        status, last = health_pb2.HealthCheckResponse, None
        known = request.service in self._serving
        while True:
            ends = bool(self._leaving)
            now = self._now() if known else status(status=status.SERVICE_UNKNOWN)
            if last is None or now.status != last.status:
                await call.write(now)
            if ends:
                return
            last = now
            await self._leaving.or_result(self._clock.sleep(_WATCH_SECONDS))
