"""What headers say of an object that is asked for or sent: ranges, conditions, checksums (RFC 9110,
RFC 9530, and S3's own)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers

from lakehouse.contracts.objects import (
    Conditions,
    DeleteObjectRequest,
    GetObjectRequest,
    ObjectRange,
    PutObjectRequest,
    StatObjectRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError

_RANGE: Final = re.compile(r"bytes=\s*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))\s*", re.I)
_ETAG: Final = re.compile(r'\s*(W/)?"([^"]*)"\s*(?:,|$)|\s*([^\s",]+)\s*(?:,|$)')
_DIGEST: Final = re.compile(r"(?:^|,)\s*sha-256=:?([A-Za-z0-9+/]+=*):?\s*(?=,|;|$)", re.I)
# Conditions on a write that one request to a bucket cannot hold.
_UNHELD: Final = ("if-match", "if-unmodified-since")
_SHA256_BYTES: Final = 32
_MD5_BYTES: Final = 16


def reading(bucket: str, key: str, headers: Headers) -> GetObjectRequest:
    """What a GET asks for. A range that is none, or several, is none: all is sent."""
    asked = parse_range(headers.get("range", ""))
    if_range = headers.get("if-range", "").strip()
    if if_range and not if_range.startswith('"'):
        # A weak etag or a time in whole seconds is no proof that the object is the same.
        asked, if_range = None, ""
    return GetObjectRequest(bucket, key, asked, conditions(headers), if_range.strip('"'))


def looking(bucket: str, key: str, headers: Headers) -> StatObjectRequest:
    """What a HEAD asks for; a range means nothing to it."""
    return StatObjectRequest(bucket, key, conditions(headers))


def writing(bucket: str, key: str, headers: Headers) -> PutObjectRequest:
    """What a PUT says of its body.

    Raises ``invalid`` for a checksum that is none, for conditions other than ``If-None-Match: *``,
    for a part of an object, and with 415 for a body that is encoded on its way.
    """
    _refuse_unheld(headers)
    only_new = headers.get("if-none-match", "").strip()
    if only_new not in ("", "*"):
        raise _unheld("if-none-match")
    if "content-range" in headers:
        raise LakehouseError(
            ErrorKind.INVALID, "an object is put as a whole", header="Content-Range"
        )
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise LakehouseError(
            ErrorKind.INVALID,
            "an object is stored as its bytes are sent",
            http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value,
            content_encoding=ascii(encoding[:80])[1:-1],
            hint="leave Content-Encoding out, and give it a name that says what it is, as x.csv.gz",
        )
    length = headers.get("content-length", "")
    return PutObjectRequest(
        bucket=bucket,
        key=key,
        if_absent=only_new == "*",
        size_bytes=int(length) if length.isascii() and length.isdigit() else None,
        sha256=_sha256(headers),
        md5=_one_of("md5", [_decoded("Content-MD5", m) for m in headers.getlist("content-md5")]),
    )


def deleting(bucket: str, key: str, headers: Headers) -> DeleteObjectRequest:
    """What a DELETE asks for. Raises ``invalid`` for any condition."""
    _refuse_unheld(headers)
    if "if-none-match" in headers:
        raise _unheld("if-none-match")
    return DeleteObjectRequest(bucket, key)


def parse_range(text: str) -> ObjectRange | None:
    """``bytes=a-b``, ``bytes=a-`` or ``bytes=-n``; None for anything else (RFC 9110, 14.2).

    >>> parse_range("bytes=0-99")
    ObjectRange(start=0, end=100, last=None)
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, final, last = match.groups()
    if last is not None:
        return ObjectRange(last=int(last))
    if final and int(final) < int(first):
        return None
    return ObjectRange(int(first), int(final) + 1 if final else None)


def conditions(headers: Headers) -> Conditions:
    """The conditions of a read; times that are none are not looked at."""
    return Conditions(
        # Of a weak etag it cannot be said that the object is the same, byte for byte.
        if_match=tuple(f"{weak}{etag}" for weak, etag in _etags(headers, "if-match")),
        if_none_match=tuple(etag for _, etag in _etags(headers, "if-none-match")),
        if_modified_since=_time(headers.get("if-modified-since", "")),
        if_unmodified_since=_time(headers.get("if-unmodified-since", "")),
    )


def http_date(when: datetime) -> str:
    """``Sat, 21 Nov 2026 09:30:00 GMT``."""
    return format_datetime(when.astimezone(UTC).replace(microsecond=0), usegmt=True)


def _etags(headers: Headers, name: str) -> Iterator[tuple[str, str]]:
    for match in _ETAG.finditer(", ".join(headers.getlist(name))):
        weak, quoted, bare = match.groups()
        # Bare ones are no etags by the letter, but what many clients send.
        yield weak or "", quoted if bare is None else bare


def _time(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text.strip())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _sha256(headers: Headers) -> str:
    stated = [
        _decoded(name, value, _SHA256_BYTES)
        for name in ("Content-Digest", "Repr-Digest", "Digest")
        for line in headers.getlist(name)
        for value in _DIGEST.findall(line)
    ]
    name = "x-amz-checksum-sha256"
    stated += [_decoded(name, value, _SHA256_BYTES) for value in headers.getlist(name)]
    return _one_of("sha256", stated)


def _decoded(header: str, value: str, size: int = _MD5_BYTES) -> str:
    """The hexadecimal form of a digest in base64."""
    try:
        digest = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != size:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"the header {header} must be a digest of {size} bytes in base64",
            header=header,
            value=ascii(value[:80])[1:-1],
        )
    return digest.hex()


def _one_of(what: str, stated: list[str]) -> str:
    if len(set(stated)) > 1:
        raise LakehouseError(
            ErrorKind.INVALID, "the headers state two different checksums", checksum=what
        )
    return stated[0] if stated else ""


def _refuse_unheld(headers: Headers) -> None:
    for name in _UNHELD:
        if name in headers:
            raise _unheld(name)


def _unheld(name: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        "a write cannot be made to depend on that",
        header=name.title(),
        hint="If-None-Match: * puts an object only where there is none",
    )
