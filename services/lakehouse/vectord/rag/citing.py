"""Which pieces of context an answer refers to. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["cited"]

# [2], [1, 3], [1-3] and the brackets that some models write in their place.
_MARK: Final = re.compile(r"[\[\u3010]\s*([0-9]{1,4}(?:\s*[,;\u2013-]\s*[0-9]{1,4})*)\s*[\]\u3011]")
_RANGE: Final = re.compile(r"([0-9]+)(?:\s*[\u2013-]\s*([0-9]+))?")
_UNKNOWN_MAX: Final = 100


def cited(answer: str, context: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers in brackets in ``answer`` that are of one of ``context`` pieces, counted from 1, in
    order of their first mention, and those that are of none: the model made them up."""
    seen: dict[int, None] = {}
    for mark in _MARK.finditer(answer):
        for part in _RANGE.finditer(mark[1]):
            first = int(part[1])
            last = int(part[2] or first)
            # A range that cannot be one of pieces is two numbers.
            whole = first <= last <= max(context, first)
            for number in range(first, last + 1) if whole else (first, last):
                seen.setdefault(number)
    known = tuple([number for number in seen if 1 <= number <= context])
    unknown = [number for number in seen if not 1 <= number <= context]
    return known, tuple(unknown[:_UNKNOWN_MAX])
