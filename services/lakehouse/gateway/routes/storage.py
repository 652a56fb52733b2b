"""Buckets: which there are, how they fare, and what went wrong with them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.storage import (
    BucketInfo,
    BucketsRequest,
    BucketsResult,
    ErrorsRequest,
    ProbeRequest,
    RemoveBucketRequest,
    RemoveBucketResult,
    StorageService,
)
from lakehouse.gateway import examples
from lakehouse.gateway.accepts import LISTINGS, result_format
from lakehouse.gateway.auth import Operator
from lakehouse.gateway.bodies import BucketBody, read_json
from lakehouse.gateway.listings import errors_reply
from lakehouse.gateway.openapi import told, with_json, with_listings
from lakehouse.gateway.params import Cursor, Flag, Limit
from lakehouse.gateway.replies import reply
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.shapes import ErrorsShape
from lakehouse.gateway.strict import StrictRoute
from lakehouse.kit.clock import Clock
from lakehouse.kit.when import parse_when
from lakehouse.model.probe import ProbeReport

Bucket = Annotated[
    str,
    Path(description="A bucket's name.", examples=["primary"], max_length=1000),
]
OfBucket = Annotated[str, Query(description="Only of this bucket.", max_length=1000)]
OfOperation = Annotated[
    str,
    Query(alias="op", description="Only `get`, `put`, `head`, `list` or `delete`.", max_length=100),
]
OfKind = Annotated[
    str, Query(alias="kind", description="Only errors of this kind.", max_length=100)
]
Since = Annotated[
    str,
    Query(
        description="From then on: a duration (`90s`, `15m`, `1h`, `7d`) or an RFC 3339 time.",
        examples=["1h"],
        max_length=64,
    ),
]
Until = Annotated[
    str, Query(description="Before then: a duration or an RFC 3339 time.", max_length=64)
]
Final_ = Annotated[
    Flag, Query(alias="final", description="Only the attempt that decided each operation.")
]


def routes(storage: StorageService, settings: GatewaySettings, clock: Clock) -> APIRouter:
    """The routes of this noun over the contract; all need the scope operator."""
    router = APIRouter(tags=["storage"], route_class=StrictRoute)
    _add_buckets(router, storage, settings)
    _add_errors(router, storage, clock)
    return router


def _add_buckets(router: APIRouter, storage: StorageService, settings: GatewaySettings) -> None:
    @router.get("/storage/buckets", **told("The buckets", BucketsResult, examples.BUCKETS))
    async def buckets(ctx: Operator) -> Response:
        """Class, place, whether it answers, its breaker, its last error, requests and bytes."""
        return reply(await storage.buckets(ctx, BucketsRequest()))

    @router.post(
        "/storage/buckets",
        **with_json(
            told("Take up a bucket", BucketInfo, examples.BUCKET, statuses=(201,), also=(409,)),
            BucketBody,
            examples.ADD_BUCKET,
        ),
    )
    async def add(ctx: Operator, request: Request) -> Response:
        """It is probed first, and refused if it does not keep what commits rest on. The same
        bucket again changes nothing; another one of that name is a 409."""
        body = await read_json(request, BucketBody, settings.json_bytes_max)
        return reply(await storage.add_bucket(ctx, body.request()), status=201)

    @router.delete(
        "/storage/buckets/{name}",
        **told("Give up a bucket", RemoveBucketResult, examples.REMOVED_BUCKET, also=(409,)),
    )
    async def remove(ctx: Operator, name: Bucket) -> Response:
        """Only one that was added at run time and in which no dataset has objects. Nothing in
        the bucket is deleted."""
        return reply(await storage.remove_bucket(ctx, RemoveBucketRequest(name)))

    @router.post(
        "/storage/buckets/{name}/probe",
        **told("Probe a bucket", ProbeReport, examples.PROBE),
    )
    async def probe(ctx: Operator, name: Bucket) -> Response:
        """Writes, reads and lists a few objects of its own to see whether the bucket does what
        commits rest on: an atomic put if absent, reads after writes, byte order of lists."""
        return reply(await storage.probe(ctx, ProbeRequest(name)))


def _add_errors(router: APIRouter, storage: StorageService, clock: Clock) -> None:
    @router.get(
        "/storage/errors",
        **with_listings(told("What went wrong", ErrorsShape, examples.ERRORS, also=(406,))),
    )
    async def errors(
        ctx: Operator,
        request: Request,
        bucket: OfBucket = "",
        operation: OfOperation = "",
        error_kind: OfKind = "",
        since: Since = "",
        until: Until = "",
        final: Final_ = False,
        limit: Limit = 100,
        cursor: Cursor = "",
    ) -> Response:
        """Every failed attempt at a bucket, newest first, and counts over all that the filters
        select. It answers while buckets are down, the primary included; `complete` is false
        where only what this machine holds could be read. NDJSON and CSV have the attempts alone:
        the rest is in the headers Lakehouse-Next and Lakehouse-Complete."""
        wanted = result_format(request.headers.get("accept"), LISTINGS)
        begin, end = parse_when("since", since, clock), parse_when("until", until, clock)
        asked = ErrorsRequest(bucket, operation, error_kind, begin, end, final, limit, cursor)
        return errors_reply(await storage.errors(ctx, asked), wanted)
