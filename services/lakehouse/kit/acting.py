"""On whose behalf this task works, for journals and traces; rights are in ``Context`` alone.

Set at an edge (HTTP, gRPC) or by a role's own task; tasks made from there on inherit it.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Acting:
    """``actor``: a principal's id or a role's name; ``request_id``: "" for a role's own work."""

    actor: str = ""
    request_id: str = ""


class act_as:  # noqa: N801 - used as a statement: with act_as(...)
    """Everything inside, tasks made there included, is done on this behalf.

    Every request passes through one: a class of its own, for it takes half the time of a generator,
    and the value that ``acting`` gives is made only when somebody asks.
    """

    __slots__ = ("_token", "actor", "request_id")

    def __init__(self, actor: str, request_id: str = "") -> None:
        self.actor = actor
        self.request_id = request_id

    def __enter__(self) -> None:
        self._token: Token[act_as | None] = _ACTING.set(self)

    def __exit__(self, *raised: object) -> None:
        _ACTING.reset(self._token)


_ACTING: ContextVar[act_as | None] = ContextVar("lakehouse_acting", default=None)


def acting() -> Acting:
    """Who acts in this task; empty where nobody said."""
    found = _ACTING.get()
    return Acting() if found is None else Acting(found.actor, found.request_id)
