"""Where failed attempts go: a sink that neither waits nor fails."""

from __future__ import annotations

from typing import Protocol

from lakehouse.model.failures import FailedAttempt


class FailureSink(Protocol):
    """Takes each failed attempt once, when it is known what came of it."""

    def failed(self, attempt: FailedAttempt) -> None:
        """Remember it; never blocks, never raises, never uses a journaled bucket handle."""
        ...


class NoSink:
    """For tools and tests that keep no journal."""

    def failed(self, attempt: FailedAttempt) -> None:
        return None
