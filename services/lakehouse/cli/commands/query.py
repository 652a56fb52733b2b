"""``lakehouse query``: the queries that run on a node."""

from __future__ import annotations

import click

from lakehouse.cli.calls import Invocation, node_command


@click.group()
def command() -> None:
    """The queries that run on a node."""


@command.command("list")
@node_command
async def list_(invocation: Invocation) -> None:
    """Your running queries; an operator sees all."""
    from lakehouse.contracts.query import RunningRequest

    async with invocation.clients() as clients:
        result = await clients.query.running(invocation.context(), RunningRequest())
    rows = [
        (q.query_id, q.actor, q.engine.value, q.state, f"{q.elapsed_ms:.0f}", q.rows, q.sql[:80])
        for q in result.queries
    ]
    columns = ("id", "actor", "engine", "state", "ms", "rows", "sql")
    invocation.output.records(result, columns, rows)


@command.command()
@click.argument("query_id")
@node_command
async def cancel(invocation: Invocation, query_id: str) -> None:
    """Cancel a running query."""
    from lakehouse.contracts.query import CancelRequest

    async with invocation.clients() as clients:
        result = await clients.query.cancel(invocation.context(), CancelRequest(query_id))
    record = {"query_id": result.query_id, "cancelled": result.cancelled}
    invocation.output.record(record, record)
