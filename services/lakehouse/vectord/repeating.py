"""Calls that may be repeated: a key with the same request has one effect and one answer (P4)."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from typing import Any

import orjson

from lakehouse.contracts.catalog import CatalogService, CommitRequest
from lakehouse.model.identity import Context

__all__ = ["answered", "asked", "recall"]


def asked(ctx: Context, route: str, request: object) -> CommitRequest:
    """A commit without changes that knows its caller's idempotency key, if there is one.

    Args:
        request: a dataclass, or its bytes where a digest of them is as good.
    """
    if not ctx.idempotency_key:
        return CommitRequest(())
    data = request if isinstance(request, bytes) else orjson.dumps(_said(request))
    return CommitRequest((), (), hashlib.sha256(data).hexdigest(), route=route)


def _said(request: Any) -> dict[str, Any]:
    """One that does not use a field which came later is what it was before."""
    values = {one.name: getattr(request, one.name) for one in fields(request)}
    return {
        one.name: values[one.name] for one in fields(request) if values[one.name] != one.default
    }


def answered(commit: CommitRequest, answer: dict[str, Any]) -> CommitRequest:
    """``commit`` with what is to be told to who repeats the call."""
    if not commit.request_sha256:
        return commit
    return replace(commit, answer_json=orjson.dumps(answer).decode())


async def recall(
    catalog: CatalogService, ctx: Context, commit: CommitRequest
) -> tuple[int, dict[str, Any]] | None:
    """The version and the answer of this very call when it was made before. Raises ``invalid``
    (422) if another one was made with its idempotency key."""
    if not commit.request_sha256:
        return None
    never = replace(commit, changes=(), requirements=(), answer_json="")
    result = await catalog.commit(ctx, never)
    if not result.replayed:
        return None
    answer: dict[str, Any] = orjson.loads(result.answer_json or "{}")
    return result.version, answer
