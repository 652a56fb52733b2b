"""A statement without the values in it, for logs: what was asked, not of whom."""

from __future__ import annotations

import re
from typing import Final

SHOWN_MAX: Final = 1000
# In this order: what begins first hides what follows in it. One that does not end hides the rest.
_VALUES: Final = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | "(?:[^"]|"")*(?:"|\Z)
    | (?P<text> [eEbBxXuU]?&?'(?:[^'\\]|''|\\.)*(?:'|\Z) | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z) )
    | (?P<word> [^\W\d]\w* | \$\d+ )
    | (?P<number> \d[\w.]* )
    """,
    re.VERBOSE | re.DOTALL,
)


def struck(sql: str) -> str:
    """``sql`` with ``?`` for each text and number, without comments, on one line, cut."""
    return " ".join(_VALUES.sub(_shown, sql[: 4 * SHOWN_MAX]).split())[:SHOWN_MAX]


def _shown(found: re.Match[str]) -> str:
    if found["comment"]:
        return " "
    return "?" if found["text"] or found["number"] else found[0]
