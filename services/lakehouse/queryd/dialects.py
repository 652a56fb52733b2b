"""One bound tree, two engines: the text each of them needs for PostgreSQL's answer.

What cannot be made equal stands in docs/guides/sql.md and in the shared corpus.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

from lakehouse.queryd.datafusion_sql import DataFusionSql, rewrite_datafusion
from lakehouse.queryd.duckdb_sql import rewrite_duckdb
from lakehouse.queryd.kinds import is_big_integer
from lakehouse.queryd.parse import invalid
from lakehouse.queryd.rewriting import cast, hole, kind_of_type, put

_STRFTIME: Final = {"Month": "%B", "Mon": "%b", "Day": "%A", "Dy": "%a"}
_TIME_NAMES: Final = re.compile("Month|Mon|Day|Dy")


def engine_sql(tree: exp.Expr, engine: str, tables: Mapping[str, str]) -> str:
    """``tree`` as text for ``engine``; ``tables`` maps slots to names of scans.

    Raises ``invalid`` where an engine has no way to say it.
    """
    copy = tree.copy()
    for table in copy.find_all(exp.Table):
        if table.name in tables:
            table.set("this", exp.to_identifier(tables[table.name], quoted=True))
    rule = rewrite_duckdb if engine == "duckdb" else rewrite_datafusion
    for node in reversed(list(copy.walk(bfs=True))):
        for rewrite in (_common, rule):
            changed = rewrite(node)
            if changed is not None and changed is not node:
                put(node, changed)
                break
    if engine == "duckdb":
        return copy.sql(dialect=DuckDB)
    return copy.sql(dialect=DataFusionSql, normalize_functions="lower")


def _common(node: exp.Expr) -> exp.Expr | None:
    if isinstance(node, exp.Literal):
        return _literal(node)
    if isinstance(node, exp.Anonymous) and node.name.lower() == "every":
        return exp.LogicalAnd(this=node.expressions[0])
    if isinstance(node, exp.TimeToStr | exp.StrToDate | exp.StrToTime):
        _names_of_time(node)
    if isinstance(node, exp.AnyValue):
        return exp.Min(this=node.this.copy())  # any value will do: the same one on both engines
    if isinstance(node, exp.Cast):
        return _text_cast(node) or _plain_decimal(node)
    return None


def _names_of_time(node: exp.Expr) -> None:
    """Formats with names of months and days, which the parser leaves as they are."""
    pattern = node.args.get("format")
    if not isinstance(pattern, exp.Literal):
        raise invalid("a format of times must be a constant")
    named = _TIME_NAMES.sub(lambda found: _STRFTIME[found.group()], str(pattern.this))
    node.set("format", exp.Literal.string(named))


def _literal(node: exp.Literal) -> exp.Expr | None:
    if isinstance(node.parent, exp.Cast | exp.Interval):
        return None
    if node.is_number and "e" in str(node.this).lower():
        return cast(exp.Literal.string(str(node.this)), "DOUBLE")
    if is_big_integer(node):
        return cast(exp.Literal.string(str(node.this)), "DECIMAL(38, 0)")
    return None


def _text_cast(node: exp.Cast) -> exp.Expr | None:
    """``varchar(3)`` cuts, as in PostgreSQL."""
    if kind_of_type(node.to) == "text" and node.to.expressions:
        length = node.to.expressions[0].this.copy()
        node.set("to", exp.DataType.build("TEXT"))
        return exp.Left(this=hole(), expression=length)
    return None


def _plain_decimal(node: exp.Cast) -> exp.Expr | None:
    if kind_of_type(node.to) == "decimal" and not node.to.expressions:
        node.set("to", exp.DataType.build("DECIMAL(38, 10)"))
    return None
