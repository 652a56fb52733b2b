"""LakehouseError over gRPC: a status for everybody, and the whole error in one binary trailer."""

from __future__ import annotations

import json
from typing import Any, Final

import grpc

from lakehouse.errors import GRPC_STATUS, ErrorKind, FieldValue, LakehouseError

TRAILER: Final = "lakehouse-error-bin"
ROOM: Final = "lakehouse-error-bytes-max"
"""Metadata by which a caller says how large a trailer it can take."""

ROOM_BYTES_DEFAULT: Final = 4_096
"""What every gRPC client takes: they refuse trailers from 8 KiB on."""

ROOM_BYTES_MAX: Final = 1 << 20
"""What our own channels take (a schema diff of thousands of columns)."""

_DETAIL_CHARS_MAX: Final = 1_000

# What a status means that no lakehouse server gave a reason for: a proxy, the library, the network.
_KIND_OF_STATUS: Final[dict[grpc.StatusCode, ErrorKind]] = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorKind.INVALID,
    grpc.StatusCode.OUT_OF_RANGE: ErrorKind.INVALID,
    grpc.StatusCode.UNAUTHENTICATED: ErrorKind.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorKind.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: ErrorKind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ErrorKind.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION: ErrorKind.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorKind.EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorKind.TIMEOUT,
    grpc.StatusCode.DATA_LOSS: ErrorKind.CORRUPT,
    grpc.StatusCode.INTERNAL: ErrorKind.INTERNAL,
}

# The statuses after which a change may have happened or not, unless it never left this machine.
_AMBIGUOUS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)
_NEVER_SENT: Final = "failed to connect"


def status_of(kind: ErrorKind) -> grpc.StatusCode:
    """The gRPC status of a kind, by the table in ``lakehouse.errors``."""
    return grpc.StatusCode[GRPC_STATUS[kind]]


def detail_of(error: LakehouseError) -> str:
    """What a client that knows nothing of us shows: kind, message and hint, bounded."""
    hint = error.fields.get("hint")
    text = f"{error}; {hint}" if isinstance(hint, str) else str(error)
    return text[:_DETAIL_CHARS_MAX]


def pack(error: LakehouseError, room_bytes: int = ROOM_BYTES_DEFAULT) -> bytes:
    """The trailer's JSON, at most ``room_bytes``: the largest fields go first, and it says so."""
    fields = dict(error.fields)
    data = _json(error, fields)
    while len(data) > room_bytes and fields:
        largest = max(fields, key=lambda name: len(json.dumps(fields[name], default=str)))
        del fields[largest]
        data = _json(error, {**fields, "fields_left_out": len(error.fields) - len(fields)})
    return data


def _json(error: LakehouseError, fields: dict[str, FieldValue]) -> bytes:
    whole = {"kind": error.kind.value, "message": error.message[:_DETAIL_CHARS_MAX]}
    return json.dumps({**whole, "fields": fields}, default=str, separators=(",", ":")).encode()


def unpack(data: bytes) -> LakehouseError:
    """The error a trailer holds; a kind of a newer peer, or no JSON of ours, is ``internal``."""
    try:
        whole = json.loads(data)
        kind, message, fields = whole["kind"], whole["message"], whole["fields"]
        known = kind if kind in set(ErrorKind) else ErrorKind.INTERNAL
        return LakehouseError(ErrorKind(known), str(message), **dict(fields))
    except (ValueError, KeyError, TypeError):
        return LakehouseError(ErrorKind.INTERNAL, "the peer sent an error that cannot be read")


def from_rpc(
    error: grpc.aio.AioRpcError, path: str, key: str | None, changes: bool
) -> LakehouseError:
    """The typed error of a failed call of ``path``.

    Args:
        key: the idempotency key it was sent with.
        changes: the call may change something, so that an answer that was lost is ``unknown``.
    """
    trailer = _trailer(error)
    if trailer is not None:
        return unpack(trailer)
    status, detail = error.code(), (error.details() or "")[:_DETAIL_CHARS_MAX]
    seen: dict[str, FieldValue] = {"call": path, "grpc_status": status.name, "grpc_detail": detail}
    if changes and status in _AMBIGUOUS and not detail.startswith(_NEVER_SENT):
        return LakehouseError(
            ErrorKind.UNKNOWN,
            "the connection broke before the answer came",
            **seen,
            commit_state="unknown",
            idempotency_key=key,
            hint="retry with the same idempotency key: it has one effect and one answer",
        )
    if status is grpc.StatusCode.UNIMPLEMENTED:
        seen["hint"] = "check that the peer's address leads to a node with this role"
    kind = _KIND_OF_STATUS.get(status, ErrorKind.UNAVAILABLE)
    return LakehouseError(kind, _MESSAGES.get(kind, "the peer refused the call"), **seen)


_MESSAGES: Final = {
    ErrorKind.UNAVAILABLE: "the peer cannot be reached or does not serve this call",
    ErrorKind.TIMEOUT: "the peer did not answer in time",
    ErrorKind.EXHAUSTED: "the call is over a limit of the peer or of the message size",
    ErrorKind.INTERNAL: "the peer failed",
}


def _trailer(error: grpc.aio.AioRpcError) -> bytes | None:
    metadata: Any = error.trailing_metadata()
    for name, value in metadata or ():
        if name == TRAILER:
            return value if isinstance(value, bytes) else str(value).encode()
    return None
