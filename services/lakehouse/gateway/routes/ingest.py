"""Files in: the body of a request, or an object that is already in a bucket."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from lakehouse.contracts.ingest import (
    CardHints,
    IngestMode,
    IngestOptions,
    IngestReport,
    IngestRequest,
    IngestService,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway import examples
from lakehouse.gateway.auth import Writer
from lakehouse.gateway.bodies import SECONDS_MAX
from lakehouse.gateway.openapi import told, with_body
from lakehouse.gateway.params import DryRun, Flag, Name, Reason, split_list
from lakehouse.gateway.reading import Reading, as_sent
from lakehouse.gateway.replies import made
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.gateway.shapes import IngestShape, ingest_shape
from lakehouse.gateway.strict import StrictRoute
from lakehouse.gateway.uploads import Upload, open_upload
from lakehouse.model.dataset import Sensitivity
from lakehouse.model.refs import PRIMARY


async def _hints(
    owner: Annotated[str, Query(description="The card's owner.", max_length=1000)] = "",
    description: Annotated[str, Query(max_length=10_000)] = "",
    sensitivity: Annotated[Sensitivity | None, Query()] = None,
    tags: Annotated[
        list[str] | None, Query(description="With commas or repeated.", examples=[["crm,daily"]])
    ] = None,
    source_system: Annotated[str, Query(max_length=1000)] = "",
    freshness_sla_seconds: Annotated[int | None, Query(gt=0, le=SECONDS_MAX)] = None,
) -> CardHints:
    return CardHints(
        owner=owner,
        description=description,
        sensitivity="" if sensitivity is None else sensitivity.value,
        tags=tuple(tag for tag in split_list(tags or []) if tag),
        source_system=source_system,
        freshness_sla_seconds=freshness_sla_seconds,
    )


@dataclass(frozen=True, slots=True)
class _How:
    mode: IngestMode
    key: tuple[str, ...]
    force: bool
    dry_run: bool
    object_bucket: str
    object_key: str
    bucket: str
    reason: str


async def _how(
    mode: Annotated[
        IngestMode,
        Query(
            description="auto: create if absent, nothing if the same content is there, else a 409."
            " upsert: rows of a key that is there take its place, the others are added."
        ),
    ] = IngestMode.AUTO,
    key: Annotated[
        list[str] | None,
        Query(description="Columns of the primary key.", examples=[["id"]]),
    ] = None,
    force: Annotated[Flag, Query(description="Even if the same content is there.")] = False,
    dry_run: DryRun = False,
    object: Annotated[  # noqa: A002 - the parameter's name on the wire
        str,
        Query(
            description="bucket/key of an object to read instead of a body.",
            examples=["primary/inbox/people.csv"],
            max_length=1000,
        ),
    ] = "",
    bucket: Annotated[
        str,
        Query(
            description="The home of a dataset that is made; of one that is there it must be it.",
            examples=["client_eu"],
            max_length=1000,
        ),
    ] = "",
    reason: Reason = "",
) -> _How:
    source, slash, object_key = object.partition("/")
    if object and not (source and slash and object_key):
        raise LakehouseError(
            ErrorKind.INVALID, "object must be bucket/key", object=ascii(object[:80])[1:-1]
        )
    keys = tuple(name for name in split_list(key or []) if name)
    return _How(mode, keys, force, dry_run, source or PRIMARY, object_key, bucket, reason)


Hints = Annotated[CardHints, Depends(_hints)]
How = Annotated[_How, Depends(_how)]

_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "required": False,
    "description": "The file. Content-Encoding gzip or zstd is read; absent with `object`.",
    "content": {
        "text/csv": {"schema": {"type": "string"}, "example": "id,name\n007,Ada\n"},
        "text/tab-separated-values": {"schema": {"type": "string"}},
        "application/json": {"schema": {}, "example": [{"id": "007", "name": "Ada"}]},
        "application/x-ndjson": {"schema": {"type": "string"}},
        "application/vnd.apache.parquet": _FILE,
        "application/vnd.apache.arrow.stream": _FILE,
        "application/octet-stream": _FILE,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
    },
}


def routes(ingest: IngestService, settings: GatewaySettings) -> APIRouter:
    """The route of this noun over the contract."""
    router = APIRouter(tags=["ingest"], route_class=StrictRoute)
    doc = told(
        "Ingest a file",
        IngestShape,
        examples.INGEST,
        statuses=(201, 200),
        also=(408, 409, 413, 415, 422),
    )

    @router.post("/ingest/datasets/{name}", **with_body(doc, _BODY))
    async def ingest_file(
        ctx: Writer, name: Name, how: How, reading: Reading, hints: Hints, request: Request
    ) -> Response:
        """CSV, TSV, JSON, NDJSON, Parquet or Arrow, plain or compressed, as the body or in a
        multipart form; it streams. All of it is committed at once, or nothing."""
        upload = await open_upload(request, settings.upload_bytes_max)
        wanted = _request(name, how, as_sent(reading, upload), hints)
        report = await ingest.ingest(ctx, wanted, _body(how, upload))
        return made(ingest_shape(report, _sample(report)), report.version, report.created)

    return router


def _request(name: str, how: _How, options: IngestOptions, card: CardHints) -> IngestRequest:
    return IngestRequest(
        dataset=name,
        mode=how.mode,
        key=how.key,
        options=dataclasses.replace(options, force=how.force),
        card=card,
        dry_run=how.dry_run,
        object_key=how.object_key,
        object_bucket=how.object_bucket,
        bucket=how.bucket,
        reason=how.reason,
    )


def _body(how: _How, upload: Upload) -> AsyncIterator[bytes]:
    return _nothing() if how.object_key else upload.chunks


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk


def _sample(report: IngestReport) -> object:
    return orjson.Fragment(report.sample_json) if report.sample_json else None
