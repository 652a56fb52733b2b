"""Readiness with reasons: what ``GET /ready`` and the gRPC health service show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether work can be sent here.

    Attributes:
        reasons: why it is not ready; empty if it is.
        details: figures to show.
        degraded: what does not work although it is ready: a bucket that is no primary and does not
            answer, say. Somebody should look; nobody needs to be sent elsewhere.
        parts: the same of each role, by its name; empty for a role itself.
    """

    ready: bool
    reasons: tuple[str, ...] = ()
    details: dict[str, str] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    parts: Mapping[str, Readiness] = field(default_factory=dict)


class ReadinessSource(Protocol):
    """Never blocks on a bucket; answers from memory."""

    def readiness(self) -> Readiness: ...
