"""Who calls, with what rights, until when: the explicit first argument of every contract method."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError


class Scope(StrEnum):
    """What a caller may do. Each includes the ones before it: operator > write > read."""

    READ = "read"
    WRITE = "write"
    OPERATOR = "operator"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS: Final[dict[Scope, int]] = {scope: rank for rank, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. ``id`` is stable and goes into every version entry as the actor."""

    id: str
    scopes: tuple[Scope, ...]

    def allows(self, scope: Scope) -> bool:
        wanted = scope.rank
        # Not a generator: this is asked several times a request.
        for held in self.scopes:  # noqa: SIM110
            if held.rank >= wanted:
                return True
        return False


ANONYMOUS_OPERATOR = Principal(id="local", scopes=(Scope.OPERATOR,))
"""The caller where ``auth = "off"``, which binds loopback only."""


@dataclass(frozen=True, slots=True)
class Context:
    """What travels with a call.

    Attributes:
        deadline: on ``Clock.monotonic``'s scale, seconds; None is no deadline.
        credential: the bearer token as it came, passed on to peers; never logged or shown.
    """

    principal: Principal
    request_id: str
    deadline: float | None = None
    workspace: str | None = None
    source: str | None = None
    idempotency_key: str | None = None
    credential: str | None = field(default=None, repr=False)

    def require(self, scope: Scope) -> None:
        """Raise ``forbidden`` unless the caller holds ``scope``."""
        if not self.principal.allows(scope):
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                f"this needs the scope {scope.value}",
                required=scope.value,
                held=[held.value for held in self.principal.scopes],
                hint="use a token that was made with this scope",
            )
