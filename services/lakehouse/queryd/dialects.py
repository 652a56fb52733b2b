"""One bound tree, two engines: the text each of them needs for PostgreSQL's answer."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.dialects.postgres import Postgres


class DataFusionSql(Postgres):
    """DataFusion reads PostgreSQL's syntax with a few words of its own."""


def engine_sql(tree: exp.Expression, engine: str, tables: Mapping[str, str]) -> str:
    """``tree`` as text for ``engine``; ``tables`` maps slots to names of scans."""
    copy = tree.copy()
    for table in copy.find_all(exp.Table):
        if table.name in tables:
            table.set("this", exp.to_identifier(tables[table.name], quoted=True))
    dialect = DuckDB if engine == "duckdb" else DataFusionSql
    return copy.sql(dialect=dialect)
