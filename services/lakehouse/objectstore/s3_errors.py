"""What the two S3 libraries raise, as errors of ours: one table for both.

Replies of a server may repeat what it was sent, also parts of credentials: only the status and
the code of S3 travel on, never the text. What went wrong on the way there is told in words of ours.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import botocore.exceptions
import obstore.exceptions

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.answers import StoreError

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
_REQUEST_ID: Final = re.compile(r"<RequestId>([A-Za-z0-9._:/+=-]{1,128})</RequestId>")
_NO_BUCKET: Final = "NoSuchBucket"
# Kinds that speak of an object, not of the place: they are expected, and many.
_OF_OBJECTS: Final = frozenset({ErrorKind.ALREADY_EXISTS, ErrorKind.NOT_FOUND})

_WRONG_KEYS: Final = "access denied: signature or key id is wrong"
_DENIED: Final = "access denied: these credentials may not do this"
_CAUSES_BY_CODE: Final = {
    "AccessDenied": _DENIED,
    "ExpiredToken": "access denied: the session token has expired",
    "InvalidAccessKeyId": _WRONG_KEYS,
    "InvalidToken": "access denied: the session token is not valid",
    "RequestTimeTooSkewed": "access denied: this machine's clock differs too much",
    "SignatureDoesNotMatch": _WRONG_KEYS,
}
_REFUSED: Final = "connection refused"
_UNRESOLVED: Final = "name does not resolve"
_RESET: Final = "the connection was closed by the other side"
_NO_ROUTE: Final = "no route to the host"
_NO_TLS: Final = "tls failed: the certificate is not trusted, or the server speaks plain http"
# Words of the libraries' texts, most telling first.
_CAUSES_BY_TEXT: Final = (
    ("dns error", _UNRESOLVED),
    ("failed to lookup address", _UNRESOLVED),
    ("kind: ConnectionRefused", _REFUSED),
    ("Connection refused", _REFUSED),
    ("certificate", _NO_TLS),
    ("InvalidContentType", _NO_TLS),
    ("NetworkUnreachable", _NO_ROUTE),
    ("HostUnreachable", _NO_ROUTE),
    ("ConnectionReset", _RESET),
    ("IncompleteMessage", _RESET),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go: the bucket's configured name, and the endpoint's ``host:port``."""

    bucket: str
    endpoint: str


@contextmanager
def translated(operation: str, key: str, place: Place) -> Iterator[None]:
    """Raise what the body raises as a ``LakehouseError`` that names operation and key, and where
    it is the place that failed, the place and a short cause."""
    try:
        yield
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        # First, for its time-outs are OSErrors too.
        raise _placed(from_botocore(error, operation, key), place, error) from error
    except (obstore.exceptions.BaseError, OSError, ValueError, TypeError) as error:
        # The built-in ones are obstore's way to tell of names, arguments and the transport.
        raise _placed(from_obstore(error, operation, key), place, error) from error


def _placed(error: LakehouseError, place: Place, raised: Exception) -> LakehouseError:
    of_object = error.kind in _OF_OBJECTS and error.fields.get("what") != "bucket"
    if not of_object:
        error.fields |= {"bucket": place.bucket, "endpoint": place.endpoint}
        cause = _cause(error, raised)
        if cause:
            error.fields["cause"] = cause
    return error


def _cause(error: LakehouseError, raised: Exception) -> str:
    """A few words of ours on what happened, "" if nothing can be said."""
    if error.kind is ErrorKind.FORBIDDEN:
        if "s3_status" not in error.fields:
            return "no credentials were found"
        # The answer to a HEAD has no body, hence no code.
        return _CAUSES_BY_CODE.get(str(error.fields.get("code", "")), "access denied")
    if "s3_status" in error.fields or error.kind is ErrorKind.INVALID:
        return ""
    if error.kind is ErrorKind.TIMEOUT:
        return "no answer in time"
    links: list[BaseException] = []
    link: BaseException | None = raised
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(each, socket.gaierror) for each in links):
        return _UNRESOLVED
    text = "\n".join(str(each) for each in links)
    return next((cause for words, cause in _CAUSES_BY_TEXT if words in text), "")


def from_obstore(error: Exception, operation: str, key: str) -> LakehouseError:
    """The error for an exception of obstore; its status stands in the text only."""
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    if "inner: BareRedirect" in text:
        status = 301
    if status:
        said = _REQUEST_ID.search(text)
        return _answered(status, code, operation, key, said[1] if said else "")
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
        told = error.response.get("ResponseMetadata", {})
        status, request_id = int(told.get("HTTPStatusCode", 0)), str(told.get("RequestId", ""))
        code = error.response["Error"].get("Code", "")
        return _answered(status, code, operation, key, request_id[:128])
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


def _answered(
    status: int, code: str, operation: str, key: str, request_id: str = ""
) -> LakehouseError:
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = ErrorKind.INVALID if 300 <= status < 500 else ErrorKind.UNAVAILABLE
    if kind is ErrorKind.ALREADY_EXISTS and operation != "put":
        kind = ErrorKind.UNAVAILABLE
    error = _error(kind, operation, key, s3_status=status, code=code)
    if code == _NO_BUCKET:
        error = StoreError(
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
    error.status = status
    error.request_id = request_id
    return error


def _error(kind: ErrorKind, operation: str, key: str, **fields: str | int) -> StoreError:
    return StoreError(kind, _MESSAGES[kind], operation=operation, key=key, **fields)
