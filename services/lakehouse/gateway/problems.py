"""The one place where anything that goes wrong becomes a problem document (RFC 9457).

A document is ``{type, title, status, kind, detail, request_id, ...fields}``. It holds no stack
trace and no text of a foreign exception.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from lakehouse.errors import ErrorKind, FieldValue, LakehouseError

PROBLEM_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:lakehouse:problem:"
RETRY_AFTER: Final = "retry_after_seconds"

_RESERVED: Final = frozenset({"type", "title", "status", "kind", "detail", "request_id"})
_COME_BACK: Final = frozenset(
    {ErrorKind.EXHAUSTED, ErrorKind.UNAVAILABLE, ErrorKind.UNKNOWN, ErrorKind.FENCED}
)
_FAULTS_MAX: Final = 20
_VALUE_CHARS_MAX: Final = 200
_log = logging.getLogger("lakehouse.gateway")

TITLES: Final[dict[ErrorKind, str]] = {
    ErrorKind.INVALID: "The request is not valid",
    ErrorKind.UNAUTHENTICATED: "A valid token is needed",
    ErrorKind.FORBIDDEN: "Not allowed",
    ErrorKind.NOT_FOUND: "Not found",
    ErrorKind.ALREADY_EXISTS: "It exists already",
    ErrorKind.CONFLICT: "It does not fit what is there",
    ErrorKind.FENCED: "Another writer has taken over",
    ErrorKind.EXHAUSTED: "A limit is reached",
    ErrorKind.TIMEOUT: "It took too long",
    ErrorKind.UNAVAILABLE: "Not available now",
    ErrorKind.UNKNOWN: "The outcome is not known",
    ErrorKind.CORRUPT: "Stored bytes are damaged",
    ErrorKind.INTERNAL: "An error of ours",
}


async def raised_by(work: Awaitable[None]) -> Exception | None:
    """Await ``work``; what it raised, None if nothing. A cancellation passes through."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - the HTTP edge: nothing may escape to the server
        return error
    return None


def explain(error: BaseException) -> LakehouseError:
    """Any exception as the one error of ours; what nobody foresaw becomes ``internal``."""
    match error:
        case LakehouseError():
            return error
        case RequestValidationError():
            return _from_validation(error)
        case HTTPException():
            return _from_http(error)
        case ClientDisconnect():
            return LakehouseError(ErrorKind.INVALID, "the client went away before its body ended")
        case _:
            return LakehouseError(ErrorKind.INTERNAL, "an unexpected error; see the server's log")


def log_failure(
    error: BaseException, known: LakehouseError, request_id: str, actor: str = ""
) -> None:
    """Tell the server's log what the client is not told; expected refusals are not logged."""
    about = {"request_id": request_id, "actor": actor, "kind": known.kind.value}
    if known.kind is ErrorKind.INTERNAL:
        _log.error("a request failed", extra=about, exc_info=error)
    elif status_of(known) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("a request failed", extra=about | {"reason": str(known)})


def status_of(error: LakehouseError) -> int:
    """The HTTP status of an error: its own, but that of a failed precondition is HTTP's."""
    if error.kind is ErrorKind.UNAVAILABLE and "min_version" in error.fields:
        return HTTPStatus.PRECONDITION_FAILED.value
    return error.http_status


def document(error: LakehouseError, request_id: str) -> dict[str, FieldValue]:
    """The body of a problem document, as JSON values."""
    fields = {name: value for name, value in error.fields.items() if name not in _RESERVED}
    fields.pop("http_status", None)
    if error.kind is ErrorKind.UNKNOWN:
        fields.setdefault("commit_state", "unknown")
    return {
        "type": TYPE_PREFIX + error.kind.value,
        "title": TITLES[error.kind],
        "status": status_of(error),
        "kind": error.kind.value,
        "detail": error.message,
        "request_id": request_id,
        **fields,
    }


def problem(error: LakehouseError, request_id: str, headers: dict[str, str]) -> Response:
    """The whole answer; ``headers`` beside those that belong to its kind."""
    added = dict(headers)
    if error.kind is ErrorKind.UNAUTHENTICATED:
        added["WWW-Authenticate"] = 'Bearer realm="lakehouse"'
    wait = error.fields.get(RETRY_AFTER)
    if isinstance(wait, int | float) and not isinstance(wait, bool):
        added["Retry-After"] = str(max(1, round(wait)))
    elif error.kind in _COME_BACK:
        added["Retry-After"] = "1"
    if status_of(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        added["Content-Range"] = f"bytes */{error.fields.get('size_bytes', '*')}"
    body = _encode(document(error, request_id))
    return Response(body, status_of(error), added, PROBLEM_TYPE)


def _encode(body: dict[str, FieldValue]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        # A lone surrogate or an integer beyond 64 bits: the standard encoder takes both.
        return json.dumps(body, default=str).encode()


def _from_http(error: HTTPException) -> LakehouseError:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return LakehouseError(
                ErrorKind.NOT_FOUND, "there is no such path", hint="GET /openapi.json lists them"
            )
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return LakehouseError(
                ErrorKind.INVALID,
                "this path does not take that method",
                http_status=error.status_code,
                hint="the header Allow names those it takes",
            )
        case status if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return LakehouseError(
                ErrorKind.INVALID, HTTPStatus(status).phrase.lower(), http_status=status
            )
        case _:
            return LakehouseError(ErrorKind.INTERNAL, "an unexpected error; see the server's log")


def _from_validation(error: RequestValidationError) -> LakehouseError:
    return invalid_request(list(error.errors()))


def invalid_request(faults: list[Any], hint: str = "") -> LakehouseError:
    """Faults as pydantic lists them (``loc``, ``msg``, ``input``) as one ``invalid``."""
    errors: list[FieldValue] = [
        {
            "where": ".".join(str(part) for part in fault["loc"] if not _is_of_types(part)),
            "why": _why(fault),
            "value": _shown(fault),
        }
        for fault in faults[:_FAULTS_MAX]
    ]
    first = errors[0] if errors else {"where": "request", "why": "is not valid"}
    assert isinstance(first, dict)
    told: dict[str, FieldValue] = {"hint": hint} if hint else {}
    return LakehouseError(
        ErrorKind.INVALID, f"{first['where']}: {first['why']}".lower(), errors=errors, **told
    )


def _is_of_types(part: object) -> bool:
    """Which of several types a value was held against, rather than where it stands."""
    return isinstance(part, str) and part.startswith("constrained-")


def _why(fault: Any) -> str:
    # JSON has lists, and its writer knows nothing of what becomes of them.
    why = str(fault["msg"]).replace(" after validation", "")
    return f"List{why.removeprefix('Tuple')}" if why.startswith("Tuple ") else why


def _shown(fault: Any) -> str:
    # What stands in a field that there is not may be anything, a secret in the wrong place too.
    unknown = fault.get("type") == "extra_forbidden"
    value = fault.get("input")
    if isinstance(value, list | dict) and len(value) > _VALUE_CHARS_MAX:
        return f"{len(value)} values"  # all of them as a text would take longer than their reading
    return "" if unknown else ascii(value)[:_VALUE_CHARS_MAX]
