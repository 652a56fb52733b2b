"""``lakehouse up``: every role in one process."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from lakehouse.cli.calls import Invocation, local_command

if TYPE_CHECKING:
    from lakehouse.node.lifecycle import Node


@click.command()
@click.option("--take-over", is_flag=True, help="Take the store over from a holder that answers.")
@local_command
def command(invocation: Invocation, take_over: bool) -> None:
    """Run every role in one process until stopped.

    An empty local folder becomes a store by itself; a bucket on a server is made one by
    `lakehouse init`. A node that another one took over from ends with exit code 75.
    """
    run(invocation, (), take_over)


def run(invocation: Invocation, roles: tuple[str, ...], take_over: bool) -> None:
    """Run a node with ``roles`` (empty: those of the configuration), and say where it answers."""
    # Start-up is imports, and none of them is garbage; ``run_node`` turns it on again.
    gc.disable()
    from lakehouse.node.process import run_node

    config = invocation.config()
    if roles:
        config = replace(config, node=replace(config.node, roles=roles))

    async def started(node: Node) -> None:
        place = {
            "http": f"http://{node.http_address}" if node.http_address else "",
            "grpc": node.grpc_address,
            "roles": ", ".join(config.node.roles),
        }
        invocation.output.record(place, {name: text for name, text in place.items() if text})

    run_node(config, started, take_over=take_over)
