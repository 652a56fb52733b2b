"""The trials service."""

from __future__ import annotations

__all__ = ["Trials"]


class Trials:
    """Implements ``contracts.trials.TrialsService``."""
