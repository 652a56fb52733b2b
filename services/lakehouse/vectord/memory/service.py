"""The memory service."""

from __future__ import annotations

__all__ = ["Memory"]


class Memory:
    """Implements ``contracts.memory.MemoryService``."""
