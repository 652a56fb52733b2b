"""The one error of the project, its closed set of kinds, and what each kind is on every wire.

Layer 0: imports nothing of ours. A kind tells the caller what to do; the fields what was wrong.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = [
    "EXIT_CODE",
    "GRPC_STATUS",
    "HTTP_STATUS",
    "RETRYABLE",
    "ErrorKind",
    "FieldValue",
    "LakehouseError",
]


class ErrorKind(StrEnum):
    """Closed set. A new kind needs a line in every table below, and docs/api/errors.md."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    CONFLICT = "conflict"
    FENCED = "fenced"
    EXHAUSTED = "exhausted"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    CORRUPT = "corrupt"
    INTERNAL = "internal"


HTTP_STATUS: Final[dict[ErrorKind, int]] = {
    ErrorKind.INVALID: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.ALREADY_EXISTS: 409,
    ErrorKind.CONFLICT: 409,
    ErrorKind.FENCED: 503,
    ErrorKind.EXHAUSTED: 429,
    ErrorKind.TIMEOUT: 504,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.UNKNOWN: 503,
    ErrorKind.CORRUPT: 500,
    ErrorKind.INTERNAL: 500,
}

# Names of grpc.StatusCode members; only rpc/ turns them into the SDK's values.
GRPC_STATUS: Final[dict[ErrorKind, str]] = {
    ErrorKind.INVALID: "INVALID_ARGUMENT",
    ErrorKind.UNAUTHENTICATED: "UNAUTHENTICATED",
    ErrorKind.FORBIDDEN: "PERMISSION_DENIED",
    ErrorKind.NOT_FOUND: "NOT_FOUND",
    ErrorKind.ALREADY_EXISTS: "FAILED_PRECONDITION",
    ErrorKind.CONFLICT: "FAILED_PRECONDITION",
    ErrorKind.FENCED: "ABORTED",
    ErrorKind.EXHAUSTED: "RESOURCE_EXHAUSTED",
    ErrorKind.TIMEOUT: "DEADLINE_EXCEEDED",
    ErrorKind.UNAVAILABLE: "UNAVAILABLE",
    ErrorKind.UNKNOWN: "UNKNOWN",
    ErrorKind.CORRUPT: "DATA_LOSS",
    ErrorKind.INTERNAL: "INTERNAL",
}

# Exit codes of the command line; 2 is left to usage errors of the shell parser, 75 is EX_TEMPFAIL.
EXIT_CODE: Final[dict[ErrorKind, int]] = {
    ErrorKind.INVALID: 64,
    ErrorKind.UNAUTHENTICATED: 77,
    ErrorKind.FORBIDDEN: 77,
    ErrorKind.NOT_FOUND: 66,
    ErrorKind.ALREADY_EXISTS: 73,
    ErrorKind.CONFLICT: 73,
    ErrorKind.FENCED: 75,
    ErrorKind.EXHAUSTED: 75,
    ErrorKind.TIMEOUT: 75,
    ErrorKind.UNAVAILABLE: 69,
    ErrorKind.UNKNOWN: 75,
    ErrorKind.CORRUPT: 65,
    ErrorKind.INTERNAL: 70,
}

RETRYABLE: Final[frozenset[ErrorKind]] = frozenset(
    {ErrorKind.EXHAUSTED, ErrorKind.TIMEOUT, ErrorKind.UNAVAILABLE, ErrorKind.UNKNOWN}
)

FieldValue = str | int | float | bool | None | list["FieldValue"] | dict[str, "FieldValue"]


class LakehouseError(Exception):
    """The only exception that crosses a boundary of ours.

    Args:
        kind: what the caller should do about it.
        message: lower-case, no full stop, no secret; values go into ``fields``.
        fields: JSON values that tell what was wrong, where, and what to do (``hint``).
            ``http_status`` is a reserved field: it overrides the table for the one documented
            exception (422, a query over its own limit or a reused idempotency key).
    """

    def __init__(self, kind: ErrorKind, message: str, /, **fields: FieldValue) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.fields: dict[str, FieldValue] = fields

    @property
    def retryable(self) -> bool:
        """True if the same request may succeed later without a change."""
        return self.kind in RETRYABLE

    @property
    def http_status(self) -> int:
        """The HTTP status of this error."""
        override = self.fields.get("http_status")
        return override if isinstance(override, int) else HTTP_STATUS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.message}"
