"""The answers service."""

from __future__ import annotations

__all__ = ["Rag"]


class Rag:
    """Implements ``contracts.rag.RagService``."""
