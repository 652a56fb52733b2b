"""The stock Lance library, as this process wants it."""

from __future__ import annotations

import os
import warnings
from typing import Any

__all__ = ["stock_lance"]


def stock_lance() -> Any:
    """The module; called where a table is, for its import takes seconds and starts threads."""
    # Read by the import.
    os.environ.setdefault("LANCE_LOG", "error")
    # It warns at each fork. The processes that are started here are others at once, and nothing of
    # Lance is used between a fork and that.
    warnings.filterwarnings("ignore", "lance is not fork-safe", UserWarning)
    import lance

    return lance
