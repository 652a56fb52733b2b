"""``lakehouse doctor``: is this configuration fit, bucket by bucket, check by check."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from lakehouse.cli.calls import Invocation, local_command

if TYPE_CHECKING:
    from lakehouse.model.probe import ProbeReport


@click.command()
@click.option("--bucket", default="", help="Only this bucket  [default: all of them]")
@local_command
def command(invocation: Invocation, bucket: str) -> None:
    """Probe the configured buckets: atomic put-if-absent, consistency, order, ranges, deletes.

    Needs no node. Ends with exit code 77 if a bucket is not fit, and says which check failed.
    """
    from lakehouse.node.primary import refuse_unfit

    reports = asyncio.run(_probe(invocation, bucket))
    rows = [
        (
            report.bucket,
            check.name,
            "ok" if check.passed else "FAILED",
            check.detail,
            f"{check.elapsed_ms:.1f}",
        )
        for report in reports
        for check in report.checks
    ]
    columns = ("bucket", "check", "result", "seen", "ms")
    invocation.output.records({"reports": reports}, columns, rows)
    for report in reports:
        refuse_unfit(report)
    invocation.output.say(f"{len(reports)} of {len(reports)} buckets are fit", "green")


async def _probe(invocation: Invocation, only: str) -> list[ProbeReport]:
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.ids import SystemIds
    from lakehouse.node.lifecycle import open_buckets
    from lakehouse.objectstore.probe import probe_store

    clock = SystemClock()
    ids = SystemIds(clock)
    buckets = open_buckets(invocation.config(), clock, ids)
    names = [buckets.settings(only).name] if only else list(buckets.names())
    try:
        return [await probe_store(buckets.raw(name), name, clock, ids) for name in names]
    finally:
        await buckets.close()
