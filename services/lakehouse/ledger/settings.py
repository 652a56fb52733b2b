"""Every number of the ledger, in one value; tests and simulations hand in their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    fold_records: int = 32
    unfolded_records_max: int = 256
    group_commits_max: int = 256
    queue_max: int = 4096
    inline_bytes_max: int = 256 * 1024
    append_budget_seconds: float = 30.0
    backoff_seconds: float = 0.05
    backoff_seconds_max: float = 2.0
    keys_max: int = 1_000_000
    keys_seconds: int = 24 * 3600
    records_kept: int = 100
    fence_check_seconds: float = 1.0
    clock_jump_seconds: float = 2.0
    holder_probes: int = 3
    holder_probe_seconds: float = 1.0
    part_bytes_max: int = 32 * 1024 * 1024
    reader_retention_seconds: float = 3600.0
    hedge_factor: float = 3.0
    hedge_seconds_min: float = 0.25
