"""``engine=auto``: a rule as small as the measurement allows (tests/bench/bench_scan.py).

On TPC-H at SF1 bare DuckDB was the faster engine in 22 of 22 queries, and it spills hash joins,
which DataFusion cannot. So ``auto`` is DuckDB, whatever the statement: the same text always runs on
the same engine, and so always gives the same answer. DataFusion is there to be asked for.
"""

from __future__ import annotations

from typing import Final

from lakehouse.contracts.query import Engine

AUTO: Final = Engine.DUCKDB


def choose_engine(asked: Engine) -> Engine:
    """The engine that runs a statement."""
    return AUTO if asked is Engine.AUTO else asked
