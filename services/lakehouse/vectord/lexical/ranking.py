"""The best rows for some words, ties told apart, whatever the structure that scores them.

A structure adds up in float32, in an order of its own: scores that differ from the best of them by
less than that may be off by are equal here, as are those of the same six digits, which are shown:
the rows are told apart by entity and chunk.
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
Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Scored = tuple[Rows, Floats]

WORDS_MAX: Final = 1024
"""Of one query that are searched for: the rarest."""
_ROUGHNESS: Final = 2e-6
_DIGITS: Final = 6
# Nearer to each other, two may have the same digits.
_SHOWN: Final = 2e-5
_SPARE: Final = 16
_WIDER: Final = 4
# Of the sum of a word's scores, in float32.
_ROUGHNESS_A_WORD: Final = 6e-8
# So many at a time are scored exactly, which costs as much as taking their texts apart.
_EXACT_MIN: Final = 400
_EXACT_AT_ONCE: Final = 4_096
# Of one query: beyond, the best of these are the answer, which is then as good as the length of a
# text in a byte is.
_EXACT_MAX: Final = 20_000
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
    bound = _SHOWN + 4.0 * _ROUGHNESS + _ROUGHNESS_A_WORD * len(words)
    exact: dict[int, float] = {}
    while True:
        rows, scores = index.search(words, fetched, only)
        whole = len(rows) < fetched
        last = float(scores[-1]) if len(scores) else 0.0
        there = rows < len(allowed)
        rows, scores = rows[there], scores[there]
        kept = allowed[rows]
        rows, true = rows[kept], scores[kept].astype(np.float64)
        if whole or (len(rows) >= k and last < float(true[k - 1]) * (1.0 - bound)):
            rows, true = _exactly(index, book, words, (rows, true), (k, bound, exact))
        enough = whole or len(exact) >= max(_EXACT_MAX, _EXACT_A_HIT * k)
        if enough or (len(rows) >= k and last < float(true[k - 1]) * (1.0 - bound)):
            return _settled(book, rows, true, k, 0.0 if exact else _ROUGHNESS)
        fetched *= _WIDER


def _exactly(
    index: WordIndex,
    book: Book,
    words: Sequence[str],
    found: Scored,
    known: tuple[int, float, dict[int, float]],
) -> Scored:
    """By their exact scores, best first: those that came and may be among the k best; as they came
    where the structure's scores are what can be had.

    Args:
        known: k, what a score of the structure may be too small by, and scores that were worked
            out already.
    """
    k, bound, exact = known
    rows, rough = found[0].copy(), found[1]
    group = _groups(rough, _ROUGHNESS)
    sorted_ = 0
    most = min(len(rows), max(_EXACT_MAX, _EXACT_A_HIT * k))
    scores = np.empty(0, np.float64)
    step = max(_EXACT_MIN, k)
    while (at := len(scores)) < most:
        if at >= k:
            least = float(np.partition(scores, at - k)[at - k])
            if rough[at] * (1.0 + bound) < least:
                break
            # What is left of those that look alike is as good at most, and behind by its key.
            first = int(group.searchsorted(group[at]))
            before = np.count_nonzero(scores > least) + np.count_nonzero(scores[first:] == least)
            if rough[at] <= least * (1.0 + bound) and before >= k:
                break
        upto = min(at + step, most)
        if upto > sorted_:
            whole = slice(sorted_, int(group.searchsorted(group[upto - 1], side="right")))
            _sort(book, rows, group, whole)
            sorted_ = whole.stop
        some = rows[at:upto].tolist()
        new = [row for row in some if row not in exact]
        worked_out = index.exact(words, [_text(book, row) for row in new]) if new else []
        if worked_out is None:
            return found
        exact.update(zip(new, map(_rounded, worked_out), strict=True))
        scores = np.concatenate([scores, [exact[row] for row in some]])
        step = _EXACT_AT_ONCE
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]


def _sort(book: Book, rows: Rows, group: Rows, some: slice) -> None:
    """``some`` whole groups: within each by key."""
    starts = some.start + np.flatnonzero(np.diff(group[some], prepend=-1))
    ends = np.append(starts[1:], some.stop)
    for at in np.flatnonzero(ends - starts > 1).tolist():
        tied = slice(starts[at], ends[at])
        rows[tied] = sorted(rows[tied].tolist(), key=book.key)


def _text(book: Book, row: int) -> str:
    page, at = book.place(row)
    return page.texts[at]


def _groups(scores: Floats, roughness: float) -> Rows:
    """For each of ``scores``, best first, a number; the same one for those that differ from the
    best of them by no more than ``roughness`` of it."""
    if not len(scores):
        return np.empty(0, np.int64)
    share = 1.0 - roughness
    begins = np.concatenate([[True], scores[1:] < scores[:-1] * share])
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(scores))
    # Each near the one before it, and the last far from the first.
    for at in np.flatnonzero(scores[ends - 1] < scores[starts] * share).tolist():
        place = int(starts[at])
        while scores[ends[at] - 1] < scores[place] * share:
            rest = -scores[place : ends[at]]
            place += int(rest.searchsorted(rest[0] * share, side="right"))
            begins[place] = True
    numbers: Rows = np.cumsum(begins) - 1
    return numbers


def _settled(book: Book, rows: Rows, scores: Floats, k: int, roughness: float) -> Ranked:
    """The first ``k``, those of one score by key."""
    if len(rows) > k:
        count = np.count_nonzero(scores >= scores[k - 1] * (1.0 - _SHOWN))
        rows, scores = rows[:count], scores[:count]
    group = _groups(scores, roughness)
    firsts = np.flatnonzero(np.diff(group, prepend=-1))
    shown = np.array([_rounded(score) for score in scores[firsts].tolist()], np.float64)[group]
    rows = rows.copy()
    if len(rows):
        _sort(book, rows, _groups(shown, 0.0), slice(0, len(rows)))
    return rows[:k], shown[:k].astype(np.float32)


def _rounded(score: float) -> float:
    return float(f"{score:.{_DIGITS}g}")
