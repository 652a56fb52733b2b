"""The best rows for some words, ties told apart, whatever the structure that scores them.

A structure adds up in float32, in an order of its own: scores that differ by less than that may be
off by are equal here, and the rows are told apart by entity and chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from lakehouse.vectord.book import Book
from lakehouse.vectord.lexical.port import Ranked, WordIndex

__all__ = ["WORDS_MAX", "best_rows", "chosen_words"]

Flags = npt.NDArray[np.bool_]

WORDS_MAX: Final = 1024
"""Of one query that are searched for: the rarest."""
_ROUGHNESS: Final = 2e-6
_DIGITS: Final = 6
_SPARE: Final = 16
_WIDER: Final = 4
# So many are scored exactly, which costs as much as taking their texts apart.
_EXACT_MIN: Final = 400
_EXACT_A_HIT: Final = 4
_ROOM: Final = 1.5
# So few rows are told to the structure; of more of them the best are picked out of its answer.
_TOLD_MAX: Final = 2_000
_TOLD_SHARE: Final = 20


def chosen_words(index: WordIndex, text: str) -> list[str]:
    """The words of ``text`` that some row has, the ``WORDS_MAX`` rarest."""
    words = index.words(text)
    if len(words) <= WORDS_MAX:
        return words
    counted = [(index.frequency(word), at, word) for at, word in enumerate(words)]
    there = sorted(each for each in counted if each[0])[:WORDS_MAX]
    return [word for _, _, word in sorted(there, key=lambda each: each[1])]


def best_rows(index: WordIndex, book: Book, words: Sequence[str], k: int, allowed: Flags) -> Ranked:
    """The min(k, matches) best rows of those that are allowed; equal ones by entity, then chunk.

    Args:
        allowed: one flag a row of ``book``; rows beyond are no candidates.
    """
    total = int(np.count_nonzero(allowed))
    if not total or not words:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    only = None
    fetched = k + _SPARE
    if total <= _TOLD_MAX and total * _TOLD_SHARE < index.texts:
        only = np.flatnonzero(allowed)
    elif total < index.texts:
        fetched = int(fetched * max(1.0, _ROOM * index.texts / total))
    exact: dict[int, float] = {}
    while True:
        rows, scores = index.search(words, fetched, only)
        whole = len(rows) < fetched
        last = float(scores[-1]) if len(scores) else 0.0
        there = rows < len(allowed)
        rows, scores = rows[there], scores[there]
        kept = allowed[rows]
        rows, true = _true(index, book, words, (rows[kept], scores[kept]), (k, exact))
        if whole or (len(rows) >= k and last < float(true[k - 1]) * (1.0 - 4.0 * _ROUGHNESS)):
            return _settled(book, rows, true, k)
        fetched *= _WIDER


def _true(
    index: WordIndex,
    book: Book,
    words: Sequence[str],
    found: Ranked,
    known: tuple[int, dict[int, float]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The rows by their exact scores, those of the best that came.

    Args:
        known: k, and scores that were worked out already.
    """
    rows, scores = found[0], found[1].astype(np.float64)
    k, exact = known
    most = max(_EXACT_MIN, _EXACT_A_HIT * k)
    new = [row for row in rows[:most].tolist() if row not in exact]
    texts = []
    for row in new:
        page, at = book.place(row)
        texts.append(page.text[at].as_py())
    worked_out = index.exact(words, texts) if new else []
    if worked_out is None:
        return rows, scores
    exact.update(zip(new, worked_out, strict=True))
    scores[:most] = [exact[row] for row in rows[:most].tolist()]
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]


def _settled(
    book: Book, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], k: int
) -> Ranked:
    """The first ``k``, those of one score by key."""
    falls = scores[1:] < scores[:-1] * (1.0 - _ROUGHNESS)
    group = np.concatenate([[0], np.cumsum(falls)]) if len(rows) else np.empty(0, np.int64)
    if len(rows) > k:
        count = int(group.searchsorted(group[k - 1], side="right"))
        rows, scores, group = rows[:count], scores[:count], group[:count]
    if len(rows) and group[-1] + 1 < len(rows):
        places = sorted(range(len(rows)), key=lambda at: (group[at], book.key(int(rows[at]))))
        rows = rows[places]
    firsts = np.flatnonzero(np.diff(group, prepend=-1))
    rounded = [float(f"{score:.{_DIGITS}g}") for score in scores[firsts].tolist()]
    return rows[:k], np.array(rounded, np.float32)[group][:k]
