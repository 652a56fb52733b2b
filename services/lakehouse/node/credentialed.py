"""The node's own token, for its own calls to peers; it may rotate where its reference leads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.secrets import SecretsProvider
from lakehouse.model.identity import Context

# After a refusal for which no other token was found, none leads to another look for so long.
_AGAIN_SECONDS: Final = 1.0


class OwnToken:
    """Resolved once at the start (raises as ``SecretsProvider``), and when a peer refuses it."""

    def __init__(self, secrets: SecretsProvider, reference: str, clock: Clock) -> None:
        self._secrets = secrets
        self._reference = reference
        self._clock = clock
        self._secret = secrets.resolve(reference)
        self._looking = asyncio.Lock()
        self._in_vain_at = float("-inf")

    def reveal(self) -> str:
        return self._secret.reveal()

    async def exchanged(self, refused: str) -> bool:
        """Whether there is another token by now than the one that was refused."""
        async with self._looking:
            if self.reveal() == refused and self._again():
                try:
                    self._secret = await run_blocking(self._secrets.resolve, self._reference)
                except LakehouseError:
                    return False
                if self.reveal() == refused:
                    self._in_vain_at = self._clock.monotonic()
        return self.reveal() != refused

    def _again(self) -> bool:
        return self._clock.monotonic() - self._in_vain_at > _AGAIN_SECONDS


class Credentialed:
    """A client whose calls without a caller's credential carry the node's own."""

    def __init__(self, client: Any, own: OwnToken) -> None:
        self._client = client
        self._own = own

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(ctx: Context, request: Any, *body: Any) -> Any:
            if ctx.credential is not None:
                return await method(ctx, request, *body)
            token = self._own.reveal()
            if body:  # is read once: what was refused cannot be sent again
                return await method(replace(ctx, credential=token), request, *body)
            try:
                return await method(replace(ctx, credential=token), request)
            except LakehouseError as error:
                refused = error.kind is ErrorKind.UNAUTHENTICATED
                if not (refused and await self._own.exchanged(token)):
                    raise
            return await method(replace(ctx, credential=self._own.reveal()), request)

        return call
