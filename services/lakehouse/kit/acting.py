"""On whose behalf this task works, for journals and traces; rights are in ``Context`` alone.

Set at an edge (HTTP, gRPC) or by a role's own task; tasks made from there on inherit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Acting:
    """``actor``: a principal's id or a role's name; ``request_id``: "" for a role's own work."""

    actor: str = ""
    request_id: str = ""


_NOBODY = Acting()
_ACTING: ContextVar[Acting] = ContextVar("lakehouse_acting", default=_NOBODY)


def acting() -> Acting:
    """Who acts in this task; empty where nobody said."""
    return _ACTING.get()


@contextmanager
def act_as(actor: str, request_id: str = "") -> Iterator[None]:
    """Everything inside, tasks made there included, is done on this behalf."""
    token = _ACTING.set(Acting(actor, request_id))
    try:
        yield
    finally:
        _ACTING.reset(token)
