"""``lakehouse storage``: the buckets of a running node."""

from __future__ import annotations

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import size_text


@click.group()
def command() -> None:
    """The buckets of a running node."""


@command.command()
@node_command
async def buckets(invocation: Invocation) -> None:
    """The bucket registry: class, reachability, requests and bytes since start."""
    from lakehouse.contracts.storage import BucketsRequest

    async with invocation.clients() as clients:
        result = await clients.storage.buckets(invocation.context(), BucketsRequest())
    rows = [
        (
            b.name,
            b.bucket_class,
            b.url,
            "yes" if b.reachable else "NO",
            b.requests,
            size_text(b.bytes_read),
            size_text(b.bytes_written),
            b.last_error,
        )
        for b in result.buckets
    ]
    columns = ("bucket", "class", "url", "reachable", "requests", "read", "written", "last error")
    invocation.output.records(result, columns, rows)


@command.command()
@click.argument("bucket")
@node_command
async def probe(invocation: Invocation, bucket: str) -> None:
    """Run the conformance probe on a bucket from the node."""
    from lakehouse.contracts.storage import ProbeRequest
    from lakehouse.node.primary import refuse_unfit

    async with invocation.clients() as clients:
        report = await clients.storage.probe(invocation.context(), ProbeRequest(bucket))
    rows = [
        (c.name, "ok" if c.passed else "FAILED", c.detail, f"{c.elapsed_ms:.1f}")
        for c in report.checks
    ]
    invocation.output.records(report, ("check", "result", "seen", "ms"), rows)
    refuse_unfit(report)
