"""What the janitor did, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.kit.figures import Figure, Kind, Readout, alone

_PASSES: Final = Figure(
    "lakehouse_janitor_passes",
    Kind.COUNTER,
    "looks at the store: idle where nothing had changed, done, or the kind of the error",
    ("outcome",),
)
_ASKED: Final = Figure(
    "lakehouse_janitor_compactions",
    Kind.COUNTER,
    "compactions that were asked for: done, no_op, or the kind of the error",
    ("outcome",),
)
_DUE: Final = Figure(
    "lakehouse_janitor_datasets_due", Kind.GAUGE, "datasets that the last pass had to ask for"
)


class JanitorFigures:
    """Counters of one janitor."""

    def __init__(self) -> None:
        self._passes: dict[tuple[str, ...], int] = {}
        self._asked: dict[tuple[str, ...], int] = {}
        self.due = 0

    def passed(self, outcome: str) -> None:
        self._passes[(outcome,)] = self._passes.get((outcome,), 0) + 1

    def asked(self, outcome: str) -> None:
        self._asked[(outcome,)] = self._asked.get((outcome,), 0) + 1

    def figures(self) -> Iterator[Readout]:
        yield _PASSES, self._passes
        yield _ASKED, self._asked
        yield alone(_DUE, self.due)
