"""``lakehouse token``: service tokens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import time_text
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.tokens import CreatedToken, CreateTokenRequest

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# A running node cannot tell who made it: only who may write to its bucket makes the first one.
_FIRST: Final = (
    "put an operator's token into LAKEHOUSE_TOKEN; if there is none yet: stop the node, run"
    " lakehouse token create NAME --scope operator on its machine, and start it again"
)


@click.group()
def command() -> None:
    """Service tokens lh_<id>.<secret>, with the scopes read, write and operator."""


@command.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "write", "operator"]),
    help="What its holder may do; each includes the ones before it  [default: read]",
)
@click.option("--expires", default="", metavar="30d", help="Lifetime: 90s, 15m, 12h, 30d.")
@node_command
async def create(invocation: Invocation, name: str, scopes: tuple[str, ...], expires: str) -> None:
    """Make a token and show it, once.

    Where no node runs, it is written to the store directly: that is how the first one is made.
    """
    from lakehouse.contracts.tokens import CreateTokenRequest
    from lakehouse.model.identity import Scope

    held = tuple(Scope(scope) for scope in scopes) or (Scope.READ,)
    created = await _create(invocation, CreateTokenRequest(name, held, _lifetime(expires)))
    lines = {
        "token": created.token,
        "id": created.info.id,
        "scopes": ", ".join(scope.value for scope in created.info.scopes),
        "expires": time_text(created.info.expires_at) if created.info.expires_at else "never",
    }
    invocation.output.record(created, lines)
    invocation.output.say("this is the only time it is shown: put it into LAKEHOUSE_TOKEN", "dim")


async def _create(invocation: Invocation, request: CreateTokenRequest) -> CreatedToken:
    try:
        async with invocation.clients() as clients:
            return await clients.tokens.create(invocation.context(), request)
    except LakehouseError as error:
        if error.kind is ErrorKind.UNAUTHENTICATED:
            error.fields["hint"] = _FIRST
        if error.kind is not ErrorKind.UNAVAILABLE or invocation.url:
            raise
    from dataclasses import replace

    from lakehouse.model.identity import ANONYMOUS_OPERATOR
    from lakehouse.node.process import offline_tokens

    async with offline_tokens(invocation.config()) as tokens:
        ctx = replace(invocation.context(), principal=ANONYMOUS_OPERATOR, credential=None)
        return await tokens.create(ctx, request)


def _lifetime(text: str) -> int | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a lifetime is a number with a unit",
            value=text,
            hint="for example 90s, 15m, 12h or 30d",
        )
    return int(match[1]) * _SECONDS[match[2]]


@command.command("list")
@node_command
async def list_(invocation: Invocation) -> None:
    """Tokens by id and name; never their secrets."""
    from lakehouse.contracts.tokens import ListTokensRequest

    async with invocation.clients() as clients:
        result = await clients.tokens.list(invocation.context(), ListTokensRequest())
    rows = [
        (
            t.id,
            t.name,
            ", ".join(s.value for s in t.scopes),
            t.created_by,
            time_text(t.created_at),
            time_text(t.expires_at) if t.expires_at else "never",
        )
        for t in result.tokens
    ]
    columns = ("id", "name", "scopes", "created by", "created", "expires")
    invocation.output.records(result, columns, rows)


@command.command()
@click.argument("token_id")
@node_command
async def revoke(invocation: Invocation, token_id: str) -> None:
    """Make a token useless: at once here, within 5 s on nodes that ask a peer."""
    from lakehouse.contracts.tokens import RevokeTokenRequest

    async with invocation.clients() as clients:
        result = await clients.tokens.revoke(invocation.context(), RevokeTokenRequest(token_id))
    invocation.output.record(result, {"revoked": result.id, "version": result.version})
