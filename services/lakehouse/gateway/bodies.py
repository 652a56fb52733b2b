"""JSON bodies of requests: strict shapes, read within a limit, turned into contract values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from lakehouse.contracts.catalog import (
    ForeignObject,
    ImportedDataset,
    ImportRequest,
    RegisterRequest,
    RenameRequest,
    UpdateCardRequest,
)
from lakehouse.contracts.storage import AddBucketRequest
from lakehouse.contracts.tokens import CreateTokenRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.meant import meant
from lakehouse.gateway.problems import invalid_request
from lakehouse.model.dataset import Card, Lineage, Sensitivity
from lakehouse.model.identity import Scope
from lakehouse.model.refs import PRIMARY
from lakehouse.model.schema import Column

INT64_MAX: Final = 2**63 - 1
STALL_SECONDS: Final = 60.0
AS_OF_CHARS_MAX: Final = 300
_HINTED_MAX: Final = 20
SECONDS_MAX: Final = 100 * 366 * 24 * 3600
M = TypeVar("M", bound=BaseModel)

Text = Annotated[str, Field(max_length=100_000)]
Whole = Annotated[int, Field(ge=0, le=INT64_MAX)]
Seconds = Annotated[int, Field(gt=0, le=SECONDS_MAX)]
Point = (
    Annotated[int, Field(ge=0, le=INT64_MAX)] | Annotated[str, Field(max_length=AS_OF_CHARS_MAX)]
)


class Body(BaseModel):
    """Unknown fields are errors: a misspelled option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LineageBody(Body):
    source_system: Text = ""
    ingest: Text = ""
    inputs: tuple[Text, ...] = ()


class CardBody(Body):
    """What a person says of a dataset (ADR-013)."""

    owner: Text = ""
    description: Text = ""
    sensitivity: Sensitivity = Sensitivity.INTERNAL
    tags: tuple[Text, ...] = ()
    lineage: LineageBody = LineageBody()
    freshness_sla_seconds: Seconds | None = None

    def card(self) -> Card:
        return Card(
            owner=self.owner,
            description=self.description,
            sensitivity=self.sensitivity,
            tags=self.tags,
            lineage=Lineage(self.lineage.source_system, self.lineage.ingest, self.lineage.inputs),
            freshness_sla_seconds=self.freshness_sla_seconds,
        )


class ObjectBody(Body):
    """An object already in a bucket; ``copy`` copies it in instead of referring to it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    key: str
    bucket: str = PRIMARY
    copy_in: bool = Field(default=False, alias="copy")


class ColumnBody(Body):
    id: Annotated[int, Field(ge=1, le=2**31 - 1)]
    name: str
    type: str


class RegisterBody(Body):
    """Parquet objects under a name (ADR-020)."""

    name: str
    objects: Annotated[tuple[ObjectBody, ...], Field(min_length=1, max_length=10_000)]
    card: CardBody = CardBody()
    fingerprint: str = ""
    columns: tuple[ColumnBody, ...] = ()
    primary_key: tuple[str, ...] = ()
    expected_version: Whole | None = None
    bucket: str = Field(
        default="",
        max_length=1000,
        description="The home of a new dataset, and so where copies go; absent: the bucket of"
        " the first object.",
        examples=["client_eu"],
    )

    def request(self) -> RegisterRequest:
        return RegisterRequest(
            name=self.name,
            objects=tuple(ForeignObject(o.key, o.bucket, o.copy_in) for o in self.objects),
            card=self.card.card(),
            fingerprint=self.fingerprint,
            columns=tuple(Column(c.id, c.name, c.type) for c in self.columns),
            primary_key=self.primary_key,
            expected_version=self.expected_version,
            bucket=self.bucket,
        )


class PatchBody(Body):
    """Either a new ``name``, or fields of the card; what is absent or null stays as it is."""

    name: str | None = None
    owner: Text | None = None
    description: Text | None = None
    sensitivity: Sensitivity | None = None
    tags: tuple[Text, ...] | None = None
    source_system: Text | None = None
    freshness_sla_seconds: Seconds | None = None
    expected_version: Whole | None = None

    def request(self, name: str) -> RenameRequest | UpdateCardRequest:
        """Raises ``invalid`` if both are asked for, for that would be two commits, or neither."""
        given = self.model_fields_set - {"name", "expected_version"}
        if (self.name is not None) == bool(given):
            raise LakehouseError(
                ErrorKind.INVALID,
                "give either a new name or fields of the card",
                hint="renaming and changing the card are two requests",
            )
        if self.name is not None:
            return RenameRequest(name, self.name, self.expected_version)
        return UpdateCardRequest(
            name=name,
            owner=self.owner,
            description=self.description,
            sensitivity=None if self.sensitivity is None else self.sensitivity.value,
            tags=self.tags,
            source_system=self.source_system,
            freshness_sla_seconds=self.freshness_sla_seconds,
            expected_version=self.expected_version,
        )


class RestoreBody(Body):
    """A ``name`` brings it back under another one."""

    name: str = ""


class ImportedBody(Body):
    name: str
    keys: Annotated[tuple[str, ...], Field(max_length=100_000)]
    row_count: Whole | None = None
    updated_at: AwareDatetime
    bucket: str = PRIMARY
    card: CardBody = CardBody()


class ImportBody(Body):
    """Manifests of a catalog written without the gate; names may repeat."""

    datasets: Annotated[tuple[ImportedBody, ...], Field(max_length=100_000)]

    def request(self) -> ImportRequest:
        return ImportRequest(
            tuple(
                ImportedDataset(d.name, d.keys, d.row_count, d.updated_at, d.bucket, d.card.card())
                for d in self.datasets
            )
        )


class TokenBody(Body):
    """``expires_seconds`` absent: it never expires."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(Scope))]
    expires_seconds: Seconds | None = None

    def request(self) -> CreateTokenRequest:
        return CreateTokenRequest(self.name, self.scopes, self.expires_seconds)


class BucketBody(Body):
    """``secret_ref`` is a reference (`env:`, `file:`, `aws-sm:`), never the secret itself; with an
    ``endpoint`` it must be there."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    endpoint: Annotated[str, Field(max_length=2048)] = ""
    region: Annotated[str, Field(max_length=255)] = "us-east-1"
    bucket_class: Annotated[str, Field(max_length=255)] = "tenant"
    residency: Annotated[str, Field(max_length=255)] = ""
    secret_ref: Annotated[str, Field(max_length=2048)] = ""

    def request(self) -> AddBucketRequest:
        return AddBucketRequest(**self.model_dump())


async def read_limited(request: Request, bytes_max: int) -> bytes:
    """The whole body, at most ``bytes_max`` bytes.

    Raises ``invalid``: with 413 beyond that, with 415 if it is compressed.
    """
    packed = request.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity"):
        raise unsupported(
            "this body must not be compressed",
            content_encoding=ascii(packed[:80])[1:-1],
            hint="only files sent to /ingest may be",
        )
    check_length(request, bytes_max)
    # As ``limited``, which sets a clock for each chunk; here they are all waited for by one.
    pieces, seen, loop = [], 0, asyncio.get_running_loop()
    try:
        async with asyncio.timeout(STALL_SECONDS) as patience:
            async for chunk in request.stream():
                seen += len(chunk)
                if seen > bytes_max:
                    raise too_large(bytes_max)
                pieces.append(chunk)
                patience.reschedule(loop.time() + STALL_SECONDS)
    except ClientDisconnect as error:
        raise _went_away(seen) from error
    except TimeoutError as error:
        raise _stalled(STALL_SECONDS) from error
    return b"".join(pieces)


def check_length(request: Request, bytes_max: int) -> None:
    """Refuse a body that says itself that it is too large, before a byte of it is read."""
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated) > bytes_max:
        raise too_large(bytes_max)


async def limited(chunks: AsyncIterator[bytes], bytes_max: int) -> AsyncIterator[bytes]:
    """The same chunks, empty ones left out.

    Raises ``invalid``: with 413 when they exceed ``bytes_max`` in sum; with 408 when none comes for
    a minute, for a body under way holds a place in a queue; when the client goes away before the
    end, so that nobody takes half a body for a whole one.
    """
    seen = 0
    try:
        while (chunk := await _next_within(chunks, STALL_SECONDS)) is not None:
            seen += len(chunk)
            if seen > bytes_max:
                raise too_large(bytes_max)
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise _went_away(seen) from error


async def _next_within(chunks: AsyncIterator[bytes], seconds: float) -> bytes | None:
    try:
        async with asyncio.timeout(seconds):
            return await anext(chunks, None)
    except TimeoutError as error:
        raise _stalled(seconds) from error


def _went_away(seen: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID, "the client went away before its body ended", bytes_read=seen
    )


def _stalled(seconds: float) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "no byte of the request's body came for too long",
        http_status=HTTPStatus.REQUEST_TIMEOUT.value,
        stall_seconds=seconds,
    )


def too_large(bytes_max: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "the request's body is too large",
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value,
        bytes_max=bytes_max,
    )


def unsupported(message: str, **fields: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID, message, http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value, **fields
    )


def media_type(request: Request) -> str:
    """The bare media type of the body in lower case; "" where none is stated."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_body(model: type[M], body: bytes) -> M:
    """``body`` as JSON in that shape, ``quickly`` where the shape has a way of its own. Raises
    ``invalid`` that lists what is wrong where."""
    read: Callable[[bytes], M] = getattr(model, "quickly", model.model_validate_json)
    try:
        return read(body)
    except ValidationError as error:
        listed = error.errors(include_url=False)
        faults: list[Any] = [{**fault, "loc": ("body", *fault["loc"])} for fault in listed]
        raise invalid_request(faults, meant(model, listed[:_HINTED_MAX])) from None


async def read_json(
    request: Request, model: type[M], bytes_max: int, default: M | None = None
) -> M:
    """The body as JSON in the shape of ``model``; ``default`` for an empty one.

    Raises:
        invalid: not that shape; with 413 too large; with 415 another media type.
    """
    stated = media_type(request)
    body = await read_limited(request, bytes_max)
    if not body and default is not None:
        return default
    # curl -d states this form type; refusing it would help nobody.
    if stated not in ("", "application/json", "application/x-www-form-urlencoded"):
        raise unsupported("this takes a JSON body", content_type=stated[:100])
    return parse_body(model, body)


def aware(text: str) -> datetime | None:
    """An RFC 3339 time with its zone; None if ``text`` is none."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo is not None else None
