"""``lakehouse storage``: the buckets of a running node, and what went wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import counted, size_text, time_text

if TYPE_CHECKING:
    from lakehouse.cli.output import Output
    from lakehouse.contracts.storage import BucketInfo, ErrorsResult

_BUCKETS = ("bucket", "class", "url", "reachable", "breaker", "ms", "requests", "read", "written")


@click.group()
def command() -> None:
    """The buckets of a running node, and what went wrong with them."""


@command.command()
@node_command
async def buckets(invocation: Invocation) -> None:
    """The bucket registry: class, reachability, breaker, requests and bytes since start."""
    from lakehouse.contracts.storage import BucketsRequest

    async with invocation.clients() as clients:
        result = await clients.storage.buckets(invocation.context(), BucketsRequest())
    rows = [(*_bucket_row(each), each.last_error) for each in result.buckets]
    invocation.output.records(result, (*_BUCKETS, "last error"), rows)
    if result.rescue.bucket:
        found = result.rescue
        invocation.output.say(
            f"rescue bucket {found.bucket}: {found.copied} of {counted(found.objects, 'object')}"
            f" copied, {found.lag_seconds:.0f} s behind, {counted(found.served, 'read')} served"
        )


def _bucket_row(info: BucketInfo) -> tuple[object, ...]:
    return (
        info.name,
        info.bucket_class,
        info.url,
        "yes" if info.reachable else "NO",
        info.breaker.value,
        f"{info.latency_ms:.1f}",
        info.requests,
        size_text(info.bytes_read),
        size_text(info.bytes_written),
    )


@command.command()
@click.argument("bucket")
@node_command
async def probe(invocation: Invocation, bucket: str) -> None:
    """Run the conformance probe on a bucket from the node."""
    from lakehouse.contracts.storage import ProbeRequest
    from lakehouse.objectstore.probe import refuse_unfit

    async with invocation.clients() as clients:
        report = await clients.storage.probe(invocation.context(), ProbeRequest(bucket))
    rows = [
        (c.name, "ok" if c.passed else "FAILED", c.detail, f"{c.elapsed_ms:.1f}")
        for c in report.checks
    ]
    invocation.output.records(report, ("check", "result", "seen", "ms"), rows)
    refuse_unfit(report)


@command.command()
@click.argument("name")
@click.argument("place", metavar="URL")
@click.option("--endpoint", default="", help="Of the S3 server; without it, AWS.")
@click.option("--region", default="us-east-1", show_default=True, help="Of the bucket.")
@click.option("--class", "bucket_class", default="tenant", show_default=True, help="Its class.")
@click.option("--residency", default="", help="Where its bytes may be, e.g. eu.")
@click.option("--secret-ref", default="", help="Where the credentials are: env:, file:, aws-sm:.")
@node_command
async def add(invocation: Invocation, name: str, place: str, **given: Any) -> None:
    """Take up a bucket at run time, once it passed the probe."""
    from lakehouse.contracts.storage import AddBucketRequest

    async with invocation.clients() as clients:
        request = AddBucketRequest(name, place, **given)
        info = await clients.storage.add_bucket(invocation.context(), request)
    lines = {"added": info.name, "class": info.bucket_class, "url": info.url}
    invocation.output.record(info, lines)


@command.command()
@click.argument("name")
@node_command
async def remove(invocation: Invocation, name: str) -> None:
    """Give up a bucket that was added at run time; nothing in it is deleted."""
    from lakehouse.contracts.storage import RemoveBucketRequest

    async with invocation.clients() as clients:
        result = await clients.storage.remove_bucket(
            invocation.context(), RemoveBucketRequest(name)
        )
    invocation.output.record(result, {"removed" if result.removed else "not there": result.name})


@command.command()
@click.option("--bucket", default="", help="Only of this bucket.")
@click.option("--op", default="", help="Only get, put, head, list or delete.")
@click.option("--kind", default="", help="Only errors of this kind.")
@click.option("--since", default="", metavar="1h", help="From then on: 90s, 15m, 1h, 7d or a time.")
@click.option("--until", default="", metavar="30m", help="Before then: 90s, 15m, 1h or a time.")
@click.option("--final", is_flag=True, help="Only the attempt that decided each operation.")
@click.option(
    "--limit", default=100, show_default=True, help="At most so many; no more than 10000."
)
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def errors(invocation: Invocation, **given: Any) -> None:
    """The error journal: every failed attempt at a bucket, newest first, and counts of all."""
    from lakehouse.contracts.storage import ErrorsRequest
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.when import parse_when

    clock = SystemClock()
    request = ErrorsRequest(
        bucket=given["bucket"],
        operation=given["op"],
        error_kind=given["kind"],
        since=parse_when("--since", given["since"], clock),
        until=parse_when("--until", given["until"], clock),
        final_only=given["final"],
        limit=given["limit"],
        cursor=given["cursor"],
    )
    async with invocation.clients() as clients:
        result = await clients.storage.errors(invocation.context(), request)
    _show_errors(invocation.output, result)


def _show_errors(output: Output, result: ErrorsResult) -> None:
    rows = [
        (
            time_text(each.at),
            each.bucket,
            each.operation,
            each.error_kind,
            each.http_status or None,
            f"{each.attempt} {each.outcome.value}",
            f"{each.latency_ms:.0f}",
            each.actor,
            each.key,
            each.reason,
        )
        for each in result.errors
    ]
    columns = ("at", "bucket", "op", "kind", "http", "attempt", "ms", "actor", "key", "reason")
    output.records(result, columns, rows)
    for count in result.counts:
        output.say(
            f"{count.bucket} {count.operation} {count.error_kind}:"
            f" {counted(count.attempts, 'attempt')}, {counted(count.operations, 'operation')}"
        )
    if result.primary_unavailable_since is not None:
        output.say(
            f"the primary has not answered since {time_text(result.primary_unavailable_since)}",
            "bold red",
        )
    if not result.complete:
        output.say("this is what the node itself holds: the log could not be read", "yellow")
    if result.spooled or result.dropped:
        output.say(f"{result.spooled} spooled on disk, {result.dropped} dropped", "yellow")
    if result.next:
        output.say(f"there are more: --cursor {result.next}", "dim")
