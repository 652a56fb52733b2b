"""The retrievals service."""

from __future__ import annotations

__all__ = ["Retrievals"]


class Retrievals:
    """Implements ``contracts.retrievals.RetrievalsService``."""
