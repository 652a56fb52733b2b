"""How often each RPC was called and how it ended; read by whoever shows figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Ended = tuple[str, str]
"""An RPC's ``lakehouse.v1.Catalog/Get`` and the name of a gRPC status."""


class CallCounts:
    """Counters of one server; both parts of a key are of a closed set."""

    def __init__(self) -> None:
        self._ended: Counter[Ended] = Counter()

    def ended(self, path: str, status: str) -> None:
        """Count a call of ``/service/method``."""
        self._ended[(path[1:], status)] += 1

    def totals(self) -> Mapping[Ended, int]:
        """Calls that have ended since the start."""
        return dict(self._ended)
