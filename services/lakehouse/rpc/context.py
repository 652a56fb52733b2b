"""Context over gRPC: metadata for who, for what and from where; the call's own deadline for when.

The idempotency key is not here: it stands in the message (``methods.py``). The principal is not
either: the other side finds out by itself whose the credential is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, unquote

from lakehouse.contracts.tokens import Authenticator
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit import tracing
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import Context
from lakehouse.rpc.errors import ROOM, ROOM_BYTES_DEFAULT, ROOM_BYTES_MAX

AUTHORIZATION: Final = "authorization"
REQUEST_ID: Final = "lakehouse-request-id"
WORKSPACE: Final = "lakehouse-workspace"
SOURCE: Final = "lakehouse-source"

_VALUE_CHARS_MAX: Final = 512
_BEARER: Final = "bearer "
# Printable ASCII that stays as it is in metadata; the rest, and "%" itself, is percent-encoded.
_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")

Metadata = tuple[tuple[str, str], ...]


def metadata_of(ctx: Context) -> Metadata:
    """What a call sends along."""
    pairs = [(ROOM, str(ROOM_BYTES_MAX)), (REQUEST_ID, quote(ctx.request_id, _SAFE))]
    if ctx.credential is not None:
        pairs.append((AUTHORIZATION, f"Bearer {quote(ctx.credential, _SAFE)}"))
    if ctx.workspace is not None:
        pairs.append((WORKSPACE, quote(ctx.workspace, _SAFE)))
    if ctx.source is not None:
        pairs.append((SOURCE, quote(ctx.source, _SAFE)))
    if tracing.tracer is not None and (parent := tracing.header()):
        pairs.append((tracing.TRACEPARENT, parent))
    return tuple(pairs)


def timeout_of(ctx: Context, clock: Clock) -> float | None:
    """Seconds left until the deadline (None: no deadline). Raises ``timeout`` if there are none."""
    if ctx.deadline is None:
        return None
    left = ctx.deadline - clock.monotonic()
    if left <= 0:
        raise LakehouseError(ErrorKind.TIMEOUT, "the deadline passed before the call was made")
    return left


class Incoming:
    """The metadata of a call that came in; nothing in it is trusted before ``context``."""

    def __init__(self, pairs: Iterable[Any] | None) -> None:
        self._values: dict[str, str] = {
            name: value for name, value in pairs or () if isinstance(value, str)
        }

    def request_id(self, ids: Ids) -> str:
        """The caller's id for this request, or a new one."""
        return self._text(REQUEST_ID) or ids.ulid()

    def traceparent(self) -> str:
        """W3C trace context of the caller's span; "" if it sent none."""
        return self._values.get(tracing.TRACEPARENT, "")

    def room_bytes(self) -> int:
        """How large an error trailer the caller can take."""
        said = self._values.get(ROOM, "")
        if not (said.isascii() and said.isdigit() and len(said) < 10):
            return ROOM_BYTES_DEFAULT
        return min(max(int(said), ROOM_BYTES_DEFAULT), ROOM_BYTES_MAX)

    async def context(
        self, authenticator: Authenticator, clock: Clock, request_id: str, left: float | None
    ) -> Context:
        """The authenticated context of the call, ``left`` seconds before its deadline.

        Raises ``unauthenticated``.
        """
        said = self._values.get(AUTHORIZATION, "")
        bearer = said[: len(_BEARER)].lower() == _BEARER
        credential = unquote(said[len(_BEARER) :].strip()) if bearer else None
        principal = await authenticator.authenticate(credential)
        endless = left is None or not math.isfinite(left)
        return Context(
            principal=principal,
            request_id=request_id,
            deadline=None if left is None or endless else clock.monotonic() + left,
            workspace=self._text(WORKSPACE),
            source=self._text(SOURCE),
            credential=credential,
        )

    def _text(self, name: str) -> str | None:
        value = self._values.get(name)
        # Printable only: these go into logs and version entries.
        text = "".join(char for char in unquote(value or "") if char.isprintable())
        return text[:_VALUE_CHARS_MAX] or None
