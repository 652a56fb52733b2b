"""Signature version 4 as an S3 server checks it, for peers that take some keys and not others."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request,"
    r" ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


def refusal(method: str, target: str, headers: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """The S3 error code for a request that none of ``keys`` (id -> secret) signed, "" if one did.

    Args:
        target: path and query as sent.
        headers: by lower-case name.
    """
    found = _CREDENTIAL.fullmatch(headers.get("authorization", ""))
    if found is None:
        return "AccessDenied"
    key_id, day, region, names, signature = found.groups()
    if key_id not in keys:
        return "InvalidAccessKeyId"
    parts = urlsplit(target)
    query = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in sorted(parse_qsl(parts.query, keep_blank_values=True))
    )
    signed = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names.split(";"))
    body = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    request = "\n".join([method, parts.path, query, signed, names, body])
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, digest])
    key = f"AWS4{keys[key_id]}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    right = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return "" if hmac.compare_digest(right, signature) else "SignatureDoesNotMatch"
