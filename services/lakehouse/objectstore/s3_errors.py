"""What the two S3 libraries raise, as errors of ours: one table for both.

Replies of a server may repeat what it was sent, also parts of credentials: only the status and
the code of S3 travel on, never the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import botocore.exceptions
import obstore.exceptions

from lakehouse.errors import ErrorKind, LakehouseError

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")

# Codes that say more than their status does.
_BY_CODE: Final = {
    "RequestTimeout": ErrorKind.TIMEOUT,
    "SlowDown": ErrorKind.UNAVAILABLE,
    "ServiceUnavailable": ErrorKind.UNAVAILABLE,
    "OperationAborted": ErrorKind.UNAVAILABLE,
    "ExpiredToken": ErrorKind.FORBIDDEN,
    "InvalidToken": ErrorKind.FORBIDDEN,
    "QuotaExceeded": ErrorKind.EXHAUSTED,
}
_BY_STATUS: Final = {
    401: ErrorKind.FORBIDDEN,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.NOT_FOUND,
    408: ErrorKind.TIMEOUT,
    409: ErrorKind.ALREADY_EXISTS,
    412: ErrorKind.ALREADY_EXISTS,
    429: ErrorKind.EXHAUSTED,
    501: ErrorKind.INVALID,
    504: ErrorKind.TIMEOUT,
    507: ErrorKind.EXHAUSTED,
}
_MESSAGES: Final = {
    ErrorKind.ALREADY_EXISTS: "an object with this key exists",
    ErrorKind.EXHAUSTED: "the object store has no room or takes no more requests now",
    ErrorKind.FORBIDDEN: "the object store refused the credentials or the action",
    ErrorKind.INVALID: "the object store refused the request",
    ErrorKind.NOT_FOUND: "no object has this key",
    ErrorKind.TIMEOUT: "the object store did not answer in time",
    ErrorKind.UNAVAILABLE: "the object store could not be reached or failed",
}
_NO_BUCKET: Final = "NoSuchBucket"


@contextmanager
def translated(operation: str, key: str) -> Iterator[None]:
    """Raise what the body raises as a ``LakehouseError`` that names operation and key."""
    try:
        yield
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        # First, for its time-outs are OSErrors too.
        raise from_botocore(error, operation, key) from error
    except (obstore.exceptions.BaseError, OSError, ValueError, TypeError) as error:
        # The built-in ones are obstore's way to tell of names, arguments and the transport.
        raise from_obstore(error, operation, key) from error


def from_obstore(error: Exception, operation: str, key: str) -> LakehouseError:
    """The error for an exception of obstore; its status stands in the text only."""
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    if "inner: BareRedirect" in text:
        status = 301
    if status:
        return _answered(status, code, operation, key)
    if "kind: Timeout" in text or isinstance(error, TimeoutError):
        return _error(ErrorKind.TIMEOUT, operation, key)
    if isinstance(error, FileExistsError | obstore.exceptions.AlreadyExistsError):
        return _error(ErrorKind.ALREADY_EXISTS, operation, key)
    if isinstance(error, FileNotFoundError | obstore.exceptions.NotFoundError):
        return _error(ErrorKind.NOT_FOUND, operation, key)
    if isinstance(error, obstore.exceptions.PreconditionError):
        return _error(ErrorKind.ALREADY_EXISTS, operation, key)
    if isinstance(error, obstore.exceptions.InvalidPathError | ValueError | TypeError):
        return _error(ErrorKind.INVALID, operation, key)
    if isinstance(error, obstore.exceptions.NotSupportedError):
        return _error(ErrorKind.INVALID, operation, key)
    return _error(ErrorKind.UNAVAILABLE, operation, key)


def from_botocore(error: Exception, operation: str, key: str) -> LakehouseError:
    """The error for an exception of boto3."""
    if isinstance(error, botocore.exceptions.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return _answered(status, error.response["Error"].get("Code", ""), operation, key)
    if isinstance(
        error, botocore.exceptions.ReadTimeoutError | botocore.exceptions.ConnectTimeoutError
    ):
        return _error(ErrorKind.TIMEOUT, operation, key)
    if isinstance(
        error,
        botocore.exceptions.NoCredentialsError | botocore.exceptions.PartialCredentialsError,
    ):
        return _error(
            ErrorKind.FORBIDDEN, operation, key, hint="no credentials were found: set secret_ref"
        )
    if isinstance(error, botocore.exceptions.ParamValidationError):
        return _error(ErrorKind.INVALID, operation, key)
    return _error(ErrorKind.UNAVAILABLE, operation, key)


def _answered(status: int, code: str, operation: str, key: str) -> LakehouseError:
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = ErrorKind.INVALID if 300 <= status < 500 else ErrorKind.UNAVAILABLE
    if kind is ErrorKind.ALREADY_EXISTS and operation != "put":
        kind = ErrorKind.UNAVAILABLE
    error = _error(kind, operation, key, s3_status=status, code=code)
    if code == _NO_BUCKET:
        error = LakehouseError(
            ErrorKind.NOT_FOUND,
            "the bucket does not exist",
            operation=operation,
            what="bucket",
            s3_status=status,
            code=code,
            hint="check the bucket's url and endpoint, or create it",
        )
    elif 300 <= status < 400:
        error.fields["hint"] = "the bucket is in another region: set its region"
    elif status == 501:
        error.fields["hint"] = "this server does not implement what a lakehouse needs"
    return error


def _error(kind: ErrorKind, operation: str, key: str, **fields: str | int) -> LakehouseError:
    return LakehouseError(kind, _MESSAGES[kind], operation=operation, key=key, **fields)
