"""``lakehouse doctor``: is this configuration fit, bucket by bucket, check by check."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from lakehouse.cli.calls import Invocation, local_command
from lakehouse.cli.output import counted
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.model.probe import ProbeReport


@click.command()
@click.option("--bucket", default="", help="Only this bucket  [default: all of them]")
@local_command
def command(invocation: Invocation, bucket: str) -> None:
    """Probe the configured buckets: atomic put-if-absent, consistency, order, ranges, deletes.

    Needs no node. Ends with exit code 77 if a bucket is not fit, and says which check failed; with
    69 if one cannot be reached.
    """
    from lakehouse.objectstore.probe import refuse_unfit

    reports, errors = asyncio.run(_probe(invocation, bucket))
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
    rows += [(name, "reach", "FAILED", _told(error), "") for name, error in errors.items()]
    columns = ("bucket", "check", "result", "seen", "ms")
    unreached = {name: {"kind": e.kind, "detail": _told(e)} for name, e in errors.items()}
    invocation.output.records({"reports": reports, "unreached": unreached}, columns, rows)
    for error in errors.values():
        raise error
    for report in reports:
        refuse_unfit(report)
    invocation.output.say(
        f"{counted(len(reports), 'bucket')} {'is' if len(reports) == 1 else 'are'} fit", "green"
    )


def _told(error: LakehouseError) -> str:
    cause = error.fields.get("cause")
    return f"{error.message}: {cause}" if cause else error.message


async def _probe(
    invocation: Invocation, only: str
) -> tuple[list[ProbeReport], dict[str, LakehouseError]]:
    """What the buckets that answer were seen to do, and why the others did not answer."""
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.ids import SystemIds
    from lakehouse.node.buckets import open_buckets
    from lakehouse.objectstore.probe import probe_store

    clock = SystemClock()
    ids = SystemIds(clock)
    buckets = open_buckets(invocation.config(), clock, ids)
    names = [buckets.settings(only).name] if only else list(buckets.names())
    reports: list[ProbeReport] = []
    errors: dict[str, LakehouseError] = {}
    try:
        for name in names:
            try:
                reports.append(await probe_store(buckets.raw(name), name, clock, ids))
            except LakehouseError as error:
                errors[name] = error
    finally:
        await buckets.close()
    return reports, errors
