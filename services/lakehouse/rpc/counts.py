"""How often each RPC was called, how long it took and how it ended; read by who shows figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from lakehouse.kit.figures import Distribution, Figure, Kind, Readout, alone

_CALLS: Final = Figure(
    "lakehouse_grpc_calls", Kind.COUNTER, "gRPC calls that have ended", ("method", "status")
)
_SECONDS: Final = Figure(
    "lakehouse_grpc_call_seconds",
    Kind.DISTRIBUTION,
    "from the arrival of a gRPC call to its status",
    ("method",),
)
_OPEN: Final = Figure("lakehouse_grpc_calls_open", Kind.GAUGE, "gRPC calls under way")


class CallCounts:
    """Counters of one server; both parts of a key are of a closed set."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, ...], int] = {}
        self._seconds: dict[tuple[str, ...], Distribution] = {}
        self._open = 0

    def began(self) -> None:
        self._open += 1

    def ended(self, path: str, status: str, seconds: float) -> None:
        """Count a call of ``/service/method`` that ``began``."""
        self._open -= 1
        method = path[1:]
        key = (method, status)
        self._ended[key] = self._ended.get(key, 0) + 1
        taken = self._seconds.get((method,))
        if taken is None:
            taken = self._seconds[(method,)] = Distribution()
        taken.observe(seconds)

    def totals(self) -> Mapping[tuple[str, ...], int]:
        """Calls that have ended since the start, by ``lakehouse.v1.Catalog/Get`` and the name of a
        gRPC status."""
        return dict(self._ended)

    def figures(self) -> Iterator[Readout]:
        yield _CALLS, self._ended
        yield _SECONDS, self._seconds
        yield alone(_OPEN, self._open)
