"""Who vectord is when nobody asked: builds and what follows datasets."""

from __future__ import annotations

from typing import Final

from lakehouse.kit.ids import Ids
from lakehouse.model.identity import Context, Principal, Scope

__all__ = ["VECTORD", "own_context"]

VECTORD: Final = Principal("vectord", (Scope.READ, Scope.WRITE))


def own_context(ids: Ids, reason: str = "") -> Context:
    """Of work of its own; ``reason`` goes into journals as the source."""
    source = f"vectord: {reason}" if reason else "vectord"
    return Context(VECTORD, ids.ulid(), source=source)
