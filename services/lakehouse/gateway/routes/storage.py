"""Buckets: which there are, how they fare, and whether they keep their promises."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from lakehouse.contracts.storage import (
    BucketsRequest,
    BucketsResult,
    ProbeRequest,
    StorageService,
)
from lakehouse.gateway import examples
from lakehouse.gateway.auth import Operator
from lakehouse.gateway.openapi import told
from lakehouse.gateway.replies import reply
from lakehouse.gateway.strict import StrictRoute
from lakehouse.model.probe import ProbeReport

Bucket = Annotated[
    str,
    Path(description="A bucket's configured name.", examples=["primary"], max_length=1000),
]


def routes(storage: StorageService) -> APIRouter:
    """The routes of this noun over the contract."""
    router = APIRouter(tags=["storage"], route_class=StrictRoute)

    @router.get("/storage/buckets", **told("The buckets", BucketsResult, examples.BUCKETS))
    async def buckets(ctx: Operator) -> Response:
        """Class, place, whether it answered lately, its last error, requests and bytes."""
        return reply(await storage.buckets(ctx, BucketsRequest()))

    @router.post(
        "/storage/buckets/{name}/probe",
        **told("Probe a bucket", ProbeReport, examples.PROBE),
    )
    async def probe(ctx: Operator, name: Bucket) -> Response:
        """Writes, reads and lists a few objects of its own to see whether the bucket does what
        commits rest on: an atomic put if absent, reads after writes, byte order of lists."""
        return reply(await storage.probe(ctx, ProbeRequest(name)))

    return router
