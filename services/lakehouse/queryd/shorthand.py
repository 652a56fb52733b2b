"""``SHOW TABLES`` and ``DESCRIBE t``, as people write them first, in terms of the system tables."""

from __future__ import annotations

import re
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError

_SHOW: Final = re.compile(r"\s*+(?:show\s++(?:tables|datasets)|\\dt?)\s*+;?\s*+", re.IGNORECASE)
_DESCRIBE: Final = re.compile(
    r"\s*+(?:describe|desc|show\s++columns\s++(?:from|in)|\\d)\s++(?:table\s++)?+"
    r"(?:\"((?:[^\"]|\"\")++)\"|([\w.-]++))\s*+;?\s*+",
    re.IGNORECASE,
)
_OTHER: Final = re.compile(r"\s*+(?:show\b|desc\b|describe\b|\\)", re.IGNORECASE)


def spelled_out(sql: str) -> str:
    """``sql``, or the SELECT that it is short for.

    Raises ``forbidden`` for other forms of SHOW and DESCRIBE and for commands of a shell.
    """
    if not _OTHER.match(sql):
        return sql
    if _SHOW.fullmatch(sql):
        return "select name, row_count, description from system.datasets order by name"
    described = _DESCRIBE.fullmatch(sql)
    if described:
        name = (described[1] or "").replace('""', '"') or described[2].removeprefix("public.")
        text = name.replace("'", "''")
        return (
            "select name, type from system.columns"
            f" where lower(dataset) = lower('{text}') order by position"
        )
    raise LakehouseError(
        ErrorKind.FORBIDDEN,
        "only a SELECT may run",
        hint="select * from system.datasets, or select * from system.columns where dataset = 't'",
    )
