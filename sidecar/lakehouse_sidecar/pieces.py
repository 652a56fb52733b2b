"""Texts in pieces that each take the model about the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# What a text costs beside its characters, in characters: a call has a price of its own, too.
TEXT_COST: Final = 20
_FIRST_RATE: Final = 8_000.0
_SMOOTHING: Final = 0.3


def cost(text: str) -> int:
    """About proportional to the time that the model needs for it."""
    return len(text) + TEXT_COST


class Pace:
    """Cost a second of a model, as measured."""

    def __init__(self) -> None:
        self.rate = _FIRST_RATE

    def measured(self, done: int, seconds: float) -> None:
        """``done`` cost took so long."""
        if done and seconds > 0:
            self.rate += _SMOOTHING * (done / seconds - self.rate)


def order(texts: Sequence[str]) -> list[int]:
    """Places by length: texts of one length fill a batch without gaps."""
    return sorted(range(len(texts)), key=lambda place: len(texts[place]))


def take(texts: Sequence[str], places: Sequence[int], budget: float, texts_max: int) -> int:
    """How many of the next places make a piece of that cost; at least one."""
    spent = 0
    for count, place in enumerate(places[:texts_max]):
        spent += cost(texts[place])
        if count and spent > budget:
            return count
    return min(len(places), texts_max)
