"""The writing session of a structure: objects below an id that is live until they are named."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from lakehouse.contracts.catalog import SessionRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.parts import VectorParts

__all__ = ["writing"]

_ROLE: Final = "vectord"


@asynccontextmanager
async def writing(parts: VectorParts) -> AsyncIterator[str]:
    """A live session's id for the length of the block: what is written below it and named by a
    commit inside the block stays; the rest is swept."""
    session_id = await _ask(parts, "")
    beating = asyncio.create_task(_keep_alive(parts, session_id), name="vectors session")
    try:
        yield session_id
    finally:
        beating.cancel()
        # A catalog that cannot be reached ends it by itself, for silence.
        with contextlib.suppress(LakehouseError):
            await _ask(parts, session_id, close=True)


async def _ask(parts: VectorParts, session_id: str, *, close: bool = False) -> str:
    request = SessionRequest(parts.settings.writer, _ROLE, session_id, close)
    return (await parts.catalog.session(own_context(parts.ids), request)).session_id


async def _keep_alive(parts: VectorParts, session_id: str) -> None:
    while True:
        await parts.clock.sleep(parts.settings.heartbeat_seconds)
        try:
            await _ask(parts, session_id)
        except LakehouseError as error:
            if error.kind is ErrorKind.CONFLICT:
                return  # it has ended: the commit will say so
