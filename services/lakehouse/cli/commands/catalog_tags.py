"""``lakehouse catalog tag``: names for versions, which stay readable as long as they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import time_text
from lakehouse.cli.points import POINT, point

if TYPE_CHECKING:
    from lakehouse.contracts.tags import SetTagRequest


@click.group("tag")
def tag() -> None:
    """Names for versions, which then stay readable."""


@tag.command("set")
@click.argument("name")
@click.option("--as-of", default="", metavar=POINT, help="Which version  [default: now]")
@click.option("-d", "--dataset", default="", help="Of this one alone  [default: the store]")
@click.option("--note", default="", help="What it is for.")
@node_command
async def set_(invocation: Invocation, name: str, as_of: str, dataset: str, note: str) -> None:
    """Tag a version: it stays readable as long as the tag is there."""
    from lakehouse.contracts.tags import SetTagRequest

    await _set(invocation, SetTagRequest(name, dataset, point(as_of), note))


@tag.command("list")
@click.option("-d", "--dataset", default="", help="Only of this one.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def list_(invocation: Invocation, dataset: str, limit: int, cursor: str) -> None:
    """The tags, by name."""
    from lakehouse.contracts.tags import TagsRequest

    async with invocation.clients() as clients:
        request = TagsRequest(dataset, limit, cursor)
        result = await clients.catalog.tags(invocation.context(), request)
    rows = [
        (t.name, t.version, t.dataset or "(the store)", time_text(t.at), t.created_by, t.note)
        for t in result.tags
    ]
    columns = ("tag", "version", "dataset", "at", "by", "note")
    invocation.output.records(result, columns, rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@tag.command()
@click.argument("name")
@node_command
async def remove(invocation: Invocation, name: str) -> None:
    """Remove a tag; what it alone kept is collected as all else is."""
    from lakehouse.contracts.tags import SetTagRequest

    await _set(invocation, SetTagRequest(name, remove=True))


async def _set(invocation: Invocation, request: SetTagRequest) -> None:
    ctx = invocation.context(invocation.context().request_id)
    async with invocation.clients() as clients:
        result = await clients.catalog.set_tag(ctx, request)
    named = result.tag
    done = "removed" if request.remove else "set" if result.created else "there already"
    lines = {"tag": named.name, "version": named.version, "dataset": named.dataset, "done": done}
    invocation.output.record(result, {name: text for name, text in lines.items() if text != ""})
