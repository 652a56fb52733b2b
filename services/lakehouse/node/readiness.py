"""Whether the node is ready, and if not, why."""

from __future__ import annotations

from lakehouse.contracts.readiness import Readiness, ReadinessSource


class NodeReadiness:
    """The node's own phase and what each role in it says, joined."""

    def __init__(self) -> None:
        self._phase = "starting"
        self._sources: dict[str, ReadinessSource] = {}
        self._details: dict[str, str] = {}

    def add(self, role: str, source: object) -> None:
        """Ask ``source`` from now on, if it has an answer to give."""
        if callable(getattr(source, "readiness", None)):
            self._sources[role] = source  # type: ignore[assignment]

    def note(self, key: str, value: str) -> None:
        """A figure to show beside the answer."""
        self._details[key] = value

    def enter(self, phase: str) -> None:
        """``starting``, ``running`` or ``stopping``; only ``running`` is ready."""
        self._phase = phase

    def readiness(self) -> Readiness:
        reasons = [] if self._phase == "running" else [f"the node is {self._phase}"]
        degraded: list[str] = []
        details = dict(self._details)
        parts = {role: source.readiness() for role, source in self._sources.items()}
        for role, said in parts.items():
            reasons += [f"{role}: {reason}" for reason in said.reasons]
            degraded += [f"{role}: {reason}" for reason in said.degraded]
            details |= said.details
        return Readiness(not reasons, tuple(reasons), details, tuple(degraded), parts)
