"""Service tokens ``lh_<id>.<secret>``: made once, shown once, stored hashed in the catalog."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from lakehouse.model.identity import Context, Principal, Scope


@dataclass(frozen=True, slots=True)
class CreateTokenRequest:
    """``expires_seconds`` None: never expires."""

    name: str
    scopes: tuple[Scope, ...]
    expires_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class TokenInfo:
    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """``token`` is the only copy of the secret."""

    info: TokenInfo
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListTokensRequest:
    """Nothing to ask with."""


@dataclass(frozen=True, slots=True)
class ListTokensResult:
    tokens: tuple[TokenInfo, ...]


@dataclass(frozen=True, slots=True)
class RevokeTokenRequest:
    id: str


@dataclass(frozen=True, slots=True)
class RevokeTokenResult:
    id: str
    version: int


@dataclass(frozen=True, slots=True)
class VerifyTokenRequest:
    """The token is ``ctx.credential``: it never stands in a message or a log."""


class TokenService(Protocol):
    """All but ``verify`` need the scope operator."""

    async def create(self, ctx: Context, request: CreateTokenRequest) -> CreatedToken: ...

    async def list(self, ctx: Context, request: ListTokensRequest) -> ListTokensResult: ...

    async def revoke(self, ctx: Context, request: RevokeTokenRequest) -> RevokeTokenResult: ...

    async def verify(self, ctx: Context, request: VerifyTokenRequest) -> Principal:
        """Who ``ctx.credential`` is. Raises ``unauthenticated`` (missing, malformed, unknown,
        wrong secret, expired and revoked look alike); compares in constant time."""
        ...


class Authenticator(Protocol):
    """Turns a bearer credential into a caller; handed to the HTTP and gRPC edges by node/."""

    async def authenticate(self, credential: str | None) -> Principal:
        """Raises ``unauthenticated``. Where ``auth = "off"``: always the local operator."""
        ...
