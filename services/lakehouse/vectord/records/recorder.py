"""Retrievals on their way into the log."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.retrieval.searched import Searched

__all__ = ["Recorder"]


class Recorder:
    """Belongs to one event loop."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts

    async def start(self) -> None:
        """Open the log."""

    async def close(self) -> None:
        """Write what waits; idempotent."""

    def note(self, searched: Sequence[Searched]) -> None:
        """Best-effort: never waits, never raises; what is dropped is counted."""

    async def keep(self, searched: Sequence[Searched]) -> None:
        """Durable: returns once it is in the log. Raises ``unavailable`` or ``unknown``."""
