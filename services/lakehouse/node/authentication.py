"""Who calls: the local operator where authentication is off, else the owner of a service token."""

from __future__ import annotations

import hashlib
from typing import Final

from lakehouse.contracts.tokens import TokenService, VerifyTokenRequest
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context, Principal

REMEMBERED_SECONDS: Final = 5.0
_REMEMBERED_MAX: Final = 10_000
_NOBODY: Final = Principal(id="", scopes=())


class LocalOperator:
    """``auth = "off"``: the caller is on this machine, and is the operator."""

    async def authenticate(self, credential: str | None) -> Principal:
        return ANONYMOUS_OPERATOR


class TokenAuthenticator:
    """Asks the token service, and remembers its yes for a while where it is far.

    Args:
        remember_seconds: how long a verified credential is taken without asking again, and so how
            long a revoked one may go on. 0 asks always: right where the service is in this process.
    """

    def __init__(
        self, tokens: TokenService, clock: Clock, ids: Ids, remember_seconds: float = 0.0
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._ids = ids
        self._seconds = remember_seconds
        self._known: dict[bytes, tuple[float, Principal]] = {}

    async def authenticate(self, credential: str | None) -> Principal:
        """Raises ``unauthenticated``; what the service says besides (``unavailable``) passes."""
        # The secret itself is not kept: a dump of the process shows digests.
        digest = hashlib.sha256((credential or "").encode()).digest()
        now = self._clock.monotonic()
        held = self._known.get(digest)
        if held is not None and now < held[0]:
            return held[1]
        ctx = Context(principal=_NOBODY, request_id=self._ids.ulid(), credential=credential)
        principal = await self._tokens.verify(ctx, VerifyTokenRequest())
        if self._seconds > 0:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[digest] = (now + self._seconds, principal)
        return principal
