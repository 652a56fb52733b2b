"""Is it alive, is it ready, what is it, and its figures."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import Response

from lakehouse import __version__
from lakehouse.contracts.readiness import Readiness, ReadinessSource
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.auth import Reader
from lakehouse.gateway.metrics import Metrics
from lakehouse.gateway.openapi import told
from lakehouse.gateway.replies import reply
from lakehouse.gateway.shapes import HealthShape, PartShape, ReadyShape, VersionShape
from lakehouse.gateway.strict import QuickRoute
from lakehouse.ledger import record
from lakehouse.objectstore import identity

FORMATS: Final = {"store": identity.FORMAT, "record": record.FORMAT, "checkpoint": record.FORMAT}
_PART: Final[dict[str, Any]] = {"ready": True, "reasons": [], "degraded": [], "details": {}}
_READY: Final[dict[str, Any]] = {
    "ready": True,
    "reasons": [],
    "degraded": ["buckets: client_eu does not answer since 2026-11-21T17:02:00+00:00"],
    "details": {"version": "812", "bucket_client_eu_breaker": "open"},
    "parts": {"catalogd": _PART},
}
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METRICS_DOC: Final[dict[str, Any]] = {
    "summary": "Figures for Prometheus",
    "responses": {
        200: {
            "description": "Prometheus text format",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'lakehouse_http_requests_total{method="GET",route="/health"} 1.0',
                }
            },
        }
    },
    "response_class": Response,
}


def routes(readiness: ReadinessSource, metrics: Metrics) -> APIRouter:
    """The routes of this noun over what answers them."""
    router = APIRouter(tags=["health"], route_class=QuickRoute)

    @router.get("/health", **told("Is the process alive", HealthShape, {"status": "ok"}))
    async def health() -> Response:
        """Answers from memory; says nothing of buckets."""
        return reply(HealthShape("ok"))

    @router.get(
        "/ready",
        **told(
            "Is it ready, and if not, why",
            ReadyShape,
            _READY,
        ),
    )
    async def ready() -> Response:
        """503 with the reasons while work cannot be sent here: at start and stop, without the
        primary bucket, after a loss of the store. ``degraded`` says what does not work although it
        is ready. Never waits for a bucket."""
        return reply(ready_or_raise(readiness.readiness()))

    @router.get(
        "/version",
        **told(
            "Versions of the build and of what it writes",
            VersionShape,
            {"name": "lakehouse", "version": "0.1.0", "api": "v1", "formats": {"record": 1}},
        ),
    )
    async def version() -> Response:
        """The build's version, the API's, and the formats' in buckets."""
        return reply(VersionShape("lakehouse", __version__, "v1", FORMATS))

    @router.get("/metrics", **_METRICS_DOC)
    async def figures(ctx: Reader) -> Response:
        """Requests, latencies, rows and bytes ingested, queries, requests and bytes by bucket."""
        return Response(metrics.render(), HTTPStatus.OK, media_type=_METRICS_TYPE)

    return router


def ready_or_raise(found: Readiness) -> ReadyShape:
    """What to show of a ready node; raises ``unavailable`` with the reasons otherwise."""
    if not found.ready:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "not ready: " + "; ".join(found.reasons),
            ready=False,
            reasons=list(found.reasons),
            degraded=list(found.degraded),
            details=dict(found.details),
            parts={name: asdict(_part(said)) for name, said in found.parts.items()},
        )
    parts = {name: _part(said) for name, said in found.parts.items()}
    return ReadyShape(True, found.reasons, found.degraded, found.details, parts)


def _part(said: Readiness) -> PartShape:
    return PartShape(said.ready, said.reasons, said.degraded, said.details)
