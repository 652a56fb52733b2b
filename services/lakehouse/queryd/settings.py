"""What queryd can be told; read from the configuration by node/ alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """Limits of one node's query service. A request may lower a limit, never raise it.

    Attributes:
        cache_dir: folder of verified copies of remote objects; may be deleted at any time.
        spill_dir: folder for spilled operators and links; emptied at start.
        workers_min: processes kept warm (>= 1).
        workers_max: bound of processes, and so of queries running at once.
        threads: engine threads a worker.
        queue_max: queries that may wait for a worker before ``unavailable``.
        timeout_seconds: wall time of one query.
        memory_bytes_max: memory pool of the engine; the process is killed at this plus
            ``memory_slack_bytes`` resident.
        sql_bytes_max: longest statement in UTF-8 bytes.
        nesting_max: deepest nesting of parentheses and expressions.
        slow_seconds: queries beyond it are logged, their statement without its values; 0 is never.
    """

    cache_dir: str = "./data/cache/query"
    spill_dir: str = "./data/spill"
    cache_bytes_max: int = 8 * GIB
    spill_bytes_max: int = 8 * GIB
    workers_min: int = 1
    workers_max: int = 2
    threads: int = field(default_factory=lambda: max(1, min(8, os.cpu_count() or 1)))
    queue_max: int = 256
    timeout_seconds: float = 60.0
    rows_max: int = 50_000_000
    bytes_max: int = 4 * GIB
    memory_bytes_max: int = 2 * GIB
    memory_slack_bytes: int = 768 * MIB
    sql_bytes_max: int = 256 * 1024
    nesting_max: int = 40
    start_seconds_max: float = 30.0
    fetches_max: int = 16
    plans_max: int = 1024
    slow_seconds: float = 10.0
