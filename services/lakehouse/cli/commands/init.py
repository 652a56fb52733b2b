"""``lakehouse init``: make a store in the primary bucket."""

from __future__ import annotations

import asyncio

import click

from lakehouse.cli.calls import Invocation, local_command


@click.command()
@click.option(
    "--create-bucket", is_flag=True, help="Make the bucket on its server if it is absent."
)
@local_command
def command(invocation: Invocation, create_bucket: bool) -> None:
    """Make a store in the primary bucket, or confirm the one that is there.

    The bucket must exist, or be made by --create-bucket, and pass the conformance probe. Running
    it again changes nothing.
    """
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.ids import SystemIds
    from lakehouse.node.buckets import open_buckets
    from lakehouse.node.lifecycle import state_dir
    from lakehouse.node.primary import initialise

    config = invocation.config()
    clock = SystemClock()
    ids = SystemIds(clock)

    async def make() -> tuple[str, int]:
        buckets = open_buckets(config, clock, ids)
        try:
            if create_bucket:
                await buckets.create("primary")
            state = state_dir(config)
            found = await initialise(buckets, clock, ids, state, config.node.store_id)
            return found.store_id, found.format
        finally:
            await buckets.close()

    store_id, version = asyncio.run(make())
    url = config.buckets["primary"].url
    record = {"store_id": store_id, "format": version, "url": url}
    invocation.output.record(record, record)
