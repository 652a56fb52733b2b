"""Calls that may be repeated: what makes one the same, and the answer it had. Pure but for asking.

As with an ingest: a key with the same request gets the same answer, with another one ``invalid``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, Protocol

from lakehouse.contracts.catalog import CatalogService, CommitRequest, CommitResult
from lakehouse.model.identity import Context

__all__ = ["answered", "asked", "recall"]


class _Request(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


def asked(ctx: Context, route: str, request: _Request) -> CommitRequest:
    """A commit without changes that knows its caller's idempotency key, if there is one."""
    if not ctx.idempotency_key:
        return CommitRequest(())
    whole = asdict(request)
    # One that does not use a field which came later is what it was before.
    given = {
        one.name: whole[one.name]
        for one in fields(request)
        if getattr(request, one.name) != one.default
    }
    text = json.dumps(given, sort_keys=True, default=str)
    return CommitRequest((), (), hashlib.sha256(text.encode()).hexdigest(), route=route)


def answered(commit: CommitRequest, report: _Request) -> CommitRequest:
    """``commit`` with ``report`` to be kept for who repeats the call; the version is the commit's,
    and not known yet."""
    if not commit.request_sha256:
        return commit
    fields_kept = {**asdict(report), "version": 0}
    return replace(commit, answer_json=json.dumps(fields_kept, default=str))


async def recall(
    catalog: CatalogService, ctx: Context, commit: CommitRequest
) -> CommitResult | None:
    """What this very call came to when it was made before. Raises ``invalid`` (422) if another one
    was made with its idempotency key."""
    if not commit.request_sha256:
        return None
    never = replace(commit, changes=(), requirements=(), answer_json="")
    result = await catalog.commit(ctx, never)
    return result if result.replayed else None
