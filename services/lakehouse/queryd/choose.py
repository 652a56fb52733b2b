"""``engine=auto``: a small rule, measured by tests/bench/bench_scan.py."""

from __future__ import annotations

from lakehouse.contracts.query import Engine
from lakehouse.queryd.prepare import Prepared


def choose_engine(asked: Engine, prepared: Prepared) -> Engine:
    """The engine that runs a statement; for ``auto`` it depends on the statement alone."""
    if asked is not Engine.AUTO:
        return asked
    return Engine.DUCKDB
