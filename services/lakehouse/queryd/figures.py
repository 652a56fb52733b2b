"""What was queried, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.kit.figures import Distribution, Figure, Kind, Readout, alone

_QUERIES: Final = Figure(
    "lakehouse_queries",
    Kind.COUNTER,
    "queries that have ended, by engine: done, cancelled, or the kind of the error",
    ("engine", "outcome"),
)
_SECONDS: Final = Figure(
    "lakehouse_query_seconds",
    Kind.DISTRIBUTION,
    "from a query's arrival to its last row, waiting for a worker included",
    ("engine",),
)
_ROWS: Final = Figure("lakehouse_query_rows", Kind.COUNTER, "rows of results")
_OPEN: Final = Figure("lakehouse_queries_open", Kind.GAUGE, "queries under way", ("state",))
_WORKERS: Final = Figure("lakehouse_query_workers", Kind.GAUGE, "query processes", ("state",))


class QueryFigures:
    """Counters of one query service."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, ...], int] = {}
        self._seconds: dict[tuple[str, ...], Distribution] = {}
        self._rows = 0

    def ended(self, engine: str, outcome: str, seconds: float, rows: int) -> None:
        """A query has come to its end, by whatever way."""
        key = (engine, outcome)
        self._ended[key] = self._ended.get(key, 0) + 1
        taken = self._seconds.get((engine,))
        if taken is None:
            taken = self._seconds[(engine,)] = Distribution()
        taken.observe(seconds)
        self._rows += rows

    def figures(self, states: dict[str, int], workers: dict[str, int]) -> Iterator[Readout]:
        """All of them; ``states`` of the queries under way, and of the worker processes."""
        yield _QUERIES, self._ended
        yield _SECONDS, self._seconds
        yield alone(_ROWS, self._rows)
        yield _OPEN, {(state,): count for state, count in states.items()}
        yield _WORKERS, {(state,): count for state, count in workers.items()}
