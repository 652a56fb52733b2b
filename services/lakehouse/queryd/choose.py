"""``engine=auto``: a rule as small as the measurement allows (tests/bench/bench_scan.py).

On TPC-H at SF1 bare DuckDB took less CPU than bare DataFusion in 21 of 22 queries, 0.56 of it in
the geometric mean; query 22 is the exception (0.09 s against 0.07 s). It also spills hash joins,
which DataFusion cannot. So ``auto`` is DuckDB, whatever the statement: the same text always runs
on the same engine, and so always gives the same answer. DataFusion is there to be asked for.
"""

from __future__ import annotations

from typing import Final

from lakehouse.contracts.query import Engine

AUTO: Final = Engine.DUCKDB


def choose_engine(asked: Engine) -> Engine:
    """The engine that runs a statement."""
    return AUTO if asked is Engine.AUTO else asked
