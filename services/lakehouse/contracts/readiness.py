"""Readiness with reasons: what ``GET /ready`` and the gRPC health service show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Readiness:
    """``reasons`` are why it is not ready (empty if it is); ``details`` are figures to show."""

    ready: bool
    reasons: tuple[str, ...] = ()
    details: dict[str, str] = field(default_factory=dict)


class ReadinessSource(Protocol):
    """Never blocks on a bucket; answers from memory."""

    def readiness(self) -> Readiness: ...
