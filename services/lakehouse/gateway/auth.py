"""Who calls: a bearer token becomes a Principal, a request a Context; routes say what they need."""

from __future__ import annotations

import math
import re
from typing import Annotated, Final
from urllib.parse import unquote

from fastapi import Depends, Request

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context, Scope

PUBLIC_PATHS: Final = frozenset({"/health", "/ready", "/version", "/openapi.json", "/docs"})
"""All that answers without a token; closed, and a test walks every other route."""

CONTEXT_KEY: Final = "lakehouse.context"
"""Where the edge leaves the Context in the ASGI scope for the handlers' dependencies."""

_WORKSPACE_CHARS_MAX: Final = 255
HEAD_KEY: Final = "lakehouse.head"
"""Set in the ASGI scope by the edge, which has a HEAD routed as a GET."""

TIMEOUT_SECONDS_MAX: Final = 24 * 3600
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,255}")

Headers = dict[bytes, bytes]


def bearer(headers: Headers) -> str | None:
    """The credential of ``Authorization: Bearer ...``; None for any other scheme or none."""
    value = headers.get(b"authorization")
    if value is None:
        return None
    scheme, _, credential = value.decode("latin-1").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else None


def request_id(headers: Headers) -> str | None:
    """The caller's X-Request-Id if it is one we would write into a log, else None."""
    value = headers.get(b"x-request-id")
    return value.decode() if value is not None and _REQUEST_ID.fullmatch(value) else None


def idempotency_key(headers: Headers) -> str | None:
    """Raises ``invalid`` unless it is 1 to 255 visible ASCII characters."""
    value = headers.get(b"idempotency-key")
    if value is None:
        return None
    if not _VISIBLE.fullmatch(value):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the header Idempotency-Key must have 1 to 255 visible ASCII characters",
            header="Idempotency-Key",
        )
    return value.decode()


def workspace(headers: Headers) -> str | None:
    """The header Lakehouse-Workspace, percent-encoded where it is not ASCII.

    Raises ``invalid`` unless it is 1 to 255 printable characters.
    """
    value = headers.get(b"lakehouse-workspace")
    if value is None:
        return None
    text = unquote(value.decode("latin-1"), errors="replace").strip()
    if not (0 < len(text) <= _WORKSPACE_CHARS_MAX and text.isprintable()):
        raise LakehouseError(
            ErrorKind.INVALID,
            "the header Lakehouse-Workspace must have 1 to 255 printable characters",
            header="Lakehouse-Workspace",
        )
    return text


def timeout_seconds(headers: Headers) -> float | None:
    """The header Lakehouse-Timeout: seconds the caller will wait, from one to a day."""
    value = headers.get(b"lakehouse-timeout")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= TIMEOUT_SECONDS_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"the header Lakehouse-Timeout must be seconds in [1, {TIMEOUT_SECONDS_MAX}]",
            header="Lakehouse-Timeout",
        )
    return seconds


def asked_for_head(request: Request) -> bool:
    """Whether the caller wants the head of the answer alone."""
    return HEAD_KEY in request.scope


def _held(request: Request, scope: Scope) -> Context:
    ctx: Context = request.scope[CONTEXT_KEY]
    ctx.require(scope)
    return ctx


async def reader(request: Request) -> Context:
    """The caller's Context; raises ``forbidden`` without the scope read."""
    return _held(request, Scope.READ)


async def writer(request: Request) -> Context:
    """The caller's Context; raises ``forbidden`` without the scope write."""
    return _held(request, Scope.WRITE)


async def operator(request: Request) -> Context:
    """The caller's Context; raises ``forbidden`` without the scope operator."""
    return _held(request, Scope.OPERATOR)


Reader = Annotated[Context, Depends(reader)]
Writer = Annotated[Context, Depends(writer)]
Operator = Annotated[Context, Depends(operator)]

NEEDS: Final = {reader: Scope.READ, writer: Scope.WRITE, operator: Scope.OPERATOR}
"""Which scope each of these dependencies asks for; the OpenAPI document is made from it."""
