"""What engines say when they fail, sorted by what the caller can do about it."""

from __future__ import annotations

import re
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError

_PATH: Final = re.compile(
    r"(?:file:)?/?(?:[\w.+~%-]+/){3,}[\w.+~%-]*|(?:file:)?(?<![\w/ ])/(?:[\w.+~-]+/)+[\w.+~-]+"
)
_TEXT_MAX: Final = 300

_RULES: Final[tuple[tuple[str, ErrorKind, str], ...]] = (
    (r"divi(de|sion) by zero|zerodivision", ErrorKind.INVALID, "division by zero"),
    (
        r"resources exhausted|out of memory|memory limit|max_temp_directory|disk limit",
        ErrorKind.EXHAUSTED,
        "the query needs more memory than its limit",
    ),
    (
        r"not supported: (ddl|dml)|(ddl|dml) not supported|statement not supported"
        r"|permission error|disabled by configuration|configuration has been locked"
        r"|cannot access|external access",
        ErrorKind.FORBIDDEN,
        "the engine does not allow this statement",
    ),
    (
        r"overflow|out of range|does not fit|too large to store|int64 value",
        ErrorKind.INVALID,
        "a value is out of range",
    ),
    (
        r"cast error|conversion error|could not convert|cannot cast|error parsing|parser error",
        ErrorKind.INVALID,
        "a value cannot be cast",
    ),
    (
        r"square root of (a )?negative|logarithm of|domain error|negative power",
        ErrorKind.INVALID,
        "an argument is outside the function's domain",
    ),
    (
        r"more than one row|returned more than|multiple rows",
        ErrorKind.INVALID,
        "a subquery used as a value gave more than one row",
    ),
    (
        r"no such file|object at location|io error|corrupt|thrift|not a parquet",
        ErrorKind.UNAVAILABLE,
        "a data file could not be read",
    ),
)
_COMPILED: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, text) for pattern, kind, text in _RULES
)


_PYTHON: Final = re.compile(r"PyErr \{.*?value: (.*?), traceback: .*", re.DOTALL)
_STATEMENT: Final = re.compile(r"\s*LINE \d+:.*", re.DOTALL)


def _cause(text: str) -> str:
    """What went wrong, without a stack and without the statement that was made of the caller's."""
    return _STATEMENT.sub("", _PYTHON.sub(r"\1", text))


def scrub(text: str) -> str:
    """``text`` without local paths."""
    return _PATH.sub("<file>", text)


def engine_error(engine: str, error: Exception) -> LakehouseError:
    """A foreign exception of ``engine`` as ours: no path, no stack, at most 300 characters."""
    text = " ".join(scrub(_cause(str(error))).split())[:_TEXT_MAX]
    for pattern, kind, message in _COMPILED:
        if pattern.search(text):
            fields = {"http_status": 422} if kind is ErrorKind.EXHAUSTED else {}
            return LakehouseError(kind, message, engine=engine, reason=text, **fields)
    return LakehouseError(
        ErrorKind.INVALID,
        f"{engine} cannot run this statement",
        engine=engine,
        reason=text,
        hint="see the list of functions and types in docs/guides/sql.md",
    )
