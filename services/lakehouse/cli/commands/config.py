"""``lakehouse config``: each value in force and where it came from."""

from __future__ import annotations

import click

from lakehouse.cli.calls import Invocation, local_command


@click.command()
@local_command
def command(invocation: Invocation) -> None:
    """Show every value in force and where it came from; secrets are references, never shown."""
    config = invocation.config()
    rows = [(key, _shown(held.value), held.source) for key, held in config.values.items()]
    values = {
        key: {"value": held.value, "source": held.source} for key, held in config.values.items()
    }
    record = {"file": str(config.file) if config.file else None, "values": values}
    invocation.output.records(record, ("key", "value", "from"), rows)


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
