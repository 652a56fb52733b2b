"""``lakehouse serve``: some roles in this process, the others elsewhere."""

from __future__ import annotations

import click

from lakehouse.cli.calls import Invocation, local_command
from lakehouse.cli.commands.up import run


@click.command()
@click.option(
    "--roles",
    default="",
    metavar="ROLE,ROLE",
    help="Of gateway, storaged, catalogd, ingestd, queryd, janitor  [default: node.roles]",
)
@click.option("--take-over", is_flag=True, help="Take the store over from a holder that answers.")
@local_command
def command(invocation: Invocation, roles: str, take_over: bool) -> None:
    """Run some roles in this process.

    What they need from roles that run elsewhere is called over gRPC at node.peers.<role>.
    """
    from lakehouse.errors import ErrorKind, LakehouseError
    from lakehouse.node.settings import ROLES

    chosen = tuple(role.strip() for role in roles.split(",") if role.strip())
    strangers = [role for role in chosen if role not in ROLES]
    if strangers:
        raise LakehouseError(
            ErrorKind.INVALID, "there is no such role", roles=list(strangers), known=list(ROLES)
        )
    run(invocation, chosen, take_over)
