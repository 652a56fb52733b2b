"""What a compaction came to, and its answer kept with the commit. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.contracts.rows import CompactReport, CompactRequest
from lakehouse.ingestd.compaction.balance import told
from lakehouse.ingestd.compaction.planning import Plan
from lakehouse.model.dataset import KEYS, ROWS, DataFile

__all__ = ["asked_sha256", "done", "expected", "kept_answer", "standing", "told_again"]


def standing(snapshot: DatasetSnapshot, version: int) -> CompactReport:
    """The report of having done nothing."""
    dataset = snapshot.dataset
    balance = told(file for file in snapshot.files if file.content in (ROWS, KEYS))
    return CompactReport(
        dataset=dataset.name,
        version=version,
        strategy="nothing",
        files_before=dataset.files,
        files_after=dataset.files,
        size_bytes_before=dataset.size_bytes,
        size_bytes_after=dataset.size_bytes,
        key_files_before=dataset.key_files,
        key_files_after=dataset.key_files,
        rows=dataset.row_count or 0,
        rows_hash="" if balance is None else balance.hash_text,
        inputs=0,
        outputs=0,
        bytes_read=0,
        bytes_written=0,
        elapsed_ms=0.0,
        no_op=True,
    )


def expected(report: CompactReport, plan: Plan) -> CompactReport:
    """What ``plan`` would come to, ``report`` being of how things stand."""
    inputs = plan.inputs
    read = sum(file.size_bytes for file in inputs)
    keys = sum(file.content == KEYS for file in inputs)
    return replace(
        report,
        strategy=plan.strategy,
        files_after=report.files_before - len(inputs) + plan.expected,
        size_bytes_after=report.size_bytes_before - read + plan.expected_bytes,
        key_files_after=report.key_files_before - keys + plan.expected_keys,
        inputs=len(inputs),
        outputs=plan.expected,
        bytes_read=read,
        bytes_written=plan.expected_bytes,
        no_op=not plan.runs,
        dry_run=True,
    )


def done(report: CompactReport, plan: Plan, outputs: Sequence[DataFile]) -> CompactReport:
    """What ``plan`` came to by ``outputs``; version, work and time are still to be said."""
    inputs = plan.inputs
    gained = [*outputs]
    return replace(
        report,
        strategy=plan.strategy,
        files_after=report.files_before - len(inputs) + len(gained),
        size_bytes_after=report.size_bytes_before
        - sum(file.size_bytes for file in inputs)
        + sum(file.size_bytes for file in gained),
        key_files_after=report.key_files_before
        - sum(file.content == KEYS for file in inputs)
        + sum(file.content == KEYS for file in gained),
        inputs=len(inputs),
        outputs=len(gained),
        no_op=False,
    )


def asked_sha256(request: CompactRequest) -> str:
    """What makes a repeated call the same."""
    return hashlib.sha256(json.dumps(asdict(request), sort_keys=True).encode()).hexdigest()


def kept_answer(report: CompactReport) -> str:
    """``report`` as text, without its version: that is the commit's."""
    return json.dumps(asdict(replace(report, version=0)))


def told_again(answer: str, version: int) -> CompactReport:
    """The inverse of ``kept_answer``, for the commit that made ``version``."""
    return CompactReport(**{**json.loads(answer), "version": version})
