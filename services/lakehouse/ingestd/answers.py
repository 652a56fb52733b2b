"""The answer of an ingest, kept with its commit for whoever repeats the call. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Final

from lakehouse.contracts.ingest import IngestReport, IngestRequest, IngestWarning
from lakehouse.model.schema import Column

__all__ = ["asked_sha256", "kept_answer", "told_again"]


# Fields that requests did not always have: one that does not use them is what it was before.
_LATER: Final = ("bucket", "reason")


def asked_sha256(request: IngestRequest, digest: str) -> str:
    """What makes a repeated call the same: all that was asked, and the ``digest`` of the bytes."""
    asked = asdict(request)
    for name in _LATER:
        if not asked[name]:
            del asked[name]
    text = json.dumps([asked, digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def kept_answer(report: IngestReport) -> str:
    """``report`` as text, without its version: that is the commit's."""
    return json.dumps(asdict(replace(report, version=0)))


def told_again(answer: str, version: int) -> IngestReport:
    """The inverse of ``kept_answer``, for the commit that made ``version``."""
    fields = json.loads(answer)
    fields["schema"] = tuple(Column(**column) for column in fields["schema"])
    fields["warnings"] = tuple(IngestWarning(**warning) for warning in fields["warnings"])
    return IngestReport(**{**fields, "version": version})
