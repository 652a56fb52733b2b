"""What the conformance probe of a bucket reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """One line of the conformance probe; ``detail`` says what was seen and what it means."""

    name: str
    passed: bool
    detail: str
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class ProbeReport:
    bucket: str
    url: str
    passed: bool
    checks: tuple[ProbeCheck, ...]
