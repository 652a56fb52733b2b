"""What was searched and built, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.kit.figures import Distribution, Figure, Kind, Readout, alone

__all__ = ["VectorFigures"]

_SEARCHES: Final = Figure(
    "lakehouse_vector_searches",
    Kind.COUNTER,
    "searches of indexes that have ended: done, or the kind of the error",
    ("outcome",),
)
_SECONDS: Final = Figure(
    "lakehouse_vector_search_seconds",
    Kind.DISTRIBUTION,
    "from a search's arrival to its hits, embedding of texts included",
)
_BUILDS: Final = Figure(
    "lakehouse_vector_builds",
    Kind.COUNTER,
    "builds of index versions that have ended: done, overtaken by another node, or the kind of the"
    " error",
    ("outcome",),
)
_TEXTS: Final = Figure(
    "lakehouse_vector_embedded_texts", Kind.COUNTER, "texts that builds sent to the model"
)
_BUILDING: Final = Figure(
    "lakehouse_vector_builds_open", Kind.GAUGE, "builds of index versions under way"
)
_BYTES: Final = Figure(
    "lakehouse_vector_memory_bytes", Kind.GAUGE, "bytes of vectors and graphs held in memory"
)
_LOADS: Final = Figure(
    "lakehouse_vector_loads", Kind.COUNTER, "index versions read into memory from the store"
)
_STRUCTURES: Final = Figure(
    "lakehouse_vector_structures", Kind.COUNTER, "search structures that were built"
)


class VectorFigures:
    """Counters of one vectors service."""

    def __init__(self) -> None:
        self._searches: dict[tuple[str, ...], int] = {}
        self._seconds = Distribution()
        self._builds: dict[tuple[str, ...], int] = {}
        self.texts = 0

    def searched(self, outcome: str, seconds: float) -> None:
        """A search has ended."""
        key = (outcome,)
        self._searches[key] = self._searches.get(key, 0) + 1
        self._seconds.observe(seconds)

    def built(self, outcome: str) -> None:
        """A build has ended."""
        key = (outcome,)
        self._builds[key] = self._builds.get(key, 0) + 1

    def figures(self, building: int, held: tuple[int, int, int]) -> Iterator[Readout]:
        """All of them; ``held``: bytes in memory, loads, and structures that were made."""
        yield _SEARCHES, self._searches
        yield _SECONDS, {(): self._seconds}
        yield _BUILDS, self._builds
        yield alone(_TEXTS, self.texts)
        yield alone(_BUILDING, building)
        yield alone(_BYTES, held[0])
        yield alone(_LOADS, held[1])
        yield alone(_STRUCTURES, held[2])
