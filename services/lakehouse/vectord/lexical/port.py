"""What search by words needs from outside: a structure that ranks rows by BM25."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.vectord.ports import Labels

__all__ = ["K1", "B", "Ranked", "Scores", "WordIndex"]

Scores = npt.NDArray[np.float32]
Ranked = tuple[Labels, Scores]
"""Row numbers and scores, best first."""

K1: Final = 1.2
B: Final = 0.75


class WordIndex(Protocol):
    """Texts by the words in them. Any number of threads may search while one appends.

    The score of a text is the sum over the words of a query, each counted once, of ``idf * tf * (K1
    + 1) / (tf + K1 * (1 - B + B * length / average))`` with ``idf = ln(1 + (n - df + 0.5) / (df +
    0.5))``: ``tf`` times in it, in ``df`` of ``n`` texts; lengths in words.
    """

    @property
    def texts(self) -> int:
        """How many are in it."""
        ...

    def append(self, rows: Labels, texts: pa.Array) -> None:
        """Texts of rows by their numbers, each number once; searched when this returns.

        Raises ``exhausted`` where they cannot be written; then the index is of no use any more.
        """
        ...

    def words(self, text: str) -> list[str]:
        """The distinct words of ``text``, as texts are indexed by; syntax means nothing."""
        ...

    def frequency(self, word: str) -> int:
        """In how many texts a word is."""
        ...

    def search(self, words: Sequence[str], limit: int, only: Labels | None = None) -> Ranked:
        """The min(limit, matches) best texts that have one of ``words``.

        Args:
            only: rows that are candidates; few. None is all.

        Raises ``corrupt`` where the index cannot be read.
        """
        ...

    def exact(self, words: Sequence[str], texts: Sequence[str]) -> list[float] | None:
        """The scores of texts that are in it; those that ``search`` gives are never less. None
        where they are the same."""
        ...

    def close(self) -> None:
        """Let go of what is on the disk, when the last search is done."""
        ...
