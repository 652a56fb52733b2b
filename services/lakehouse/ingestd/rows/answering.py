"""The answer of a batch of row changes, kept with its commit for whoever repeats the call. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace

from lakehouse.contracts.rows import ChangeRowsReport, ChangeRowsRequest

__all__ = ["asked_sha256", "kept_answer", "told_again"]


def asked_sha256(request: ChangeRowsRequest, body_sha256: str) -> str:
    """What makes a repeated call the same: all that was asked. Fields at their defaults are left
    out, so that one added later does not make an old request another one."""
    asked = asdict(replace(request, body=b""))
    given = {one.name: asked[one.name] for one in fields(request) if asked[one.name] != one.default}
    text = json.dumps([given, body_sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def kept_answer(report: ChangeRowsReport) -> str:
    """``report`` as text, without its version: that is the commit's."""
    return json.dumps(asdict(replace(report, version=0)))


def told_again(answer: str, version: int) -> ChangeRowsReport:
    """The inverse of ``kept_answer``, for the commit that made ``version``."""
    return ChangeRowsReport(**{**json.loads(answer), "version": version})
