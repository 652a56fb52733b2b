"""Figures that a part of the program keeps of itself: plain numbers, read when somebody asks.

Counting must cost nothing to speak of and know of no exporter, so a counter is an ``int`` that its
owner raises, and a ``Distribution`` a list of them. The owner has ``figures()``; whoever shows
figures asks all owners and turns what they say into a format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

SECONDS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds for how long something took."""

COUNTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Upper bounds for how many there were."""


class Kind(StrEnum):
    """``COUNTER`` only rises; ``GAUGE`` is as it is now; ``DISTRIBUTION`` has buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    DISTRIBUTION = "histogram"


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured.

    Attributes:
        name: in Prometheus' manner: the unit last (``_seconds``, ``_bytes``); ``_total`` is added
            to a counter's by whoever shows it.
        labels: names; their values are of closed sets, never what a user sent.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


class Distribution:
    """How often a value fell below which bound. Belongs to one thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By the first bound that the value does not exceed; the last is beyond all of them."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


Values = Mapping[tuple[str, ...], "float | Distribution"]
Readout = tuple[Figure, Values]
"""A figure and its values by the values of its labels; () where it has none."""


class FigureSource(Protocol):
    """Whoever keeps figures. Asked at any time on the loop's thread: it neither waits nor fails."""

    def figures(self) -> Iterable[Readout]: ...


def alone(figure: Figure, value: float | Distribution) -> Readout:
    """The reading of a figure without labels."""
    return figure, {(): value}
