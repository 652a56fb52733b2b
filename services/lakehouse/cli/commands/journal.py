"""``lakehouse journal``: what happened to rows, one row's past, and a feed of what happens."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.batches import key_text
from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import counted, time_text, to_record
from lakehouse.cli.points import POINT, point

if TYPE_CHECKING:
    from lakehouse.cli.calls import Clients
    from lakehouse.contracts.journal import EventsRequest
    from lakehouse.model.events import JournalEvent

_COLUMNS = ("version", "at", "by", "kind", "row", "field", "old", "new", "reason")


@click.group()
def command() -> None:
    """What happened to rows: events, one row's past, a feed."""


@command.command()
@click.argument("dataset")
@click.argument("key")
@click.option("--as-of", default="", metavar=POINT, help="And the row as it was then.")
@click.option("--limit", default=100, show_default=True, help="At most so many changes.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def history(
    invocation: Invocation, dataset: str, key: str, as_of: str, limit: int, cursor: str
) -> None:
    """Who changed which field of a row, from what, to what, when and why; newest first.

    KEY is the value of the primary key, or for several columns a JSON array of values.
    """
    from lakehouse.contracts.journal import HistoryRequest

    async with invocation.clients() as clients:
        key_json = await _key(invocation, clients, dataset, key)
        request = HistoryRequest(dataset, key_json, point(as_of), limit, cursor)
        result = await clients.journal.history(invocation.context(), request)
    rows = [
        (one.version, time_text(one.at), one.actor, one.kind, *field, one.reason)
        for one in result.revisions
        for field in [(f.field, f.old_json, f.new_json) for f in one.fields] or [("", "", "")]
    ]
    output = invocation.output
    output.records(result, tuple(name for name in _COLUMNS if name != "row"), rows)
    if output.as_json:
        return
    if result.row_json is None:
        output.say(f"at version {result.version} the row is not there")
    else:
        output.table(("column", "value"), json.loads(result.row_json).items())
        note = "" if result.served_from == "table" else ", made from the journal"
        output.say(f"the row at version {result.version}{note}", "dim")
    output.say(f"every change since version {result.history_since} is told", "dim")
    if result.cursor:
        output.say(f"there are more: --cursor {result.cursor}", "dim")


@command.command()
@click.option("-d", "--dataset", default="", help="Only of this one.")
@click.option("--key", default="", help="Only of the row with this key; needs --dataset.")
@click.option("--field", default="", help="Only of this column.")
@click.option("--kind", default="", help="batch, insert, update or delete.")
@click.option("--actor", default="", help="Only by this one.")
@click.option("--workspace", default="", help="Only from this one.")
@click.option("--request-id", default="", help="Only by this call.")
@click.option("--since", default="", metavar="AGO|TIME", help="From then on: 1h, 7d, or a time.")
@click.option("--until", default="", metavar="AGO|TIME", help="Before then.")
@click.option("--after-version", default=0, help="Only later than this version.")
@click.option("--before-version", default=0, help="Only up to this version.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def events(invocation: Invocation, **given: Any) -> None:
    """What happened to rows, newest first; the filters are joined by and."""
    async with invocation.clients() as clients:
        request = await _filtered(invocation, clients, given)
        result = await clients.journal.events(invocation.context(), request)
    rows = [_cells(event) for event in result.events]
    invocation.output.records(result, ("dataset", *_COLUMNS), rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


async def _filtered(
    invocation: Invocation, clients: Clients, given: dict[str, Any]
) -> EventsRequest:
    from lakehouse.contracts.journal import EventsRequest
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.when import parse_when

    key, dataset = given["key"], given["dataset"]
    clock = SystemClock()
    return EventsRequest(
        dataset=dataset,
        entity_json=await _key(invocation, clients, dataset, key) if key and dataset else key,
        field=given["field"],
        kind=given["kind"],
        actor=given["actor"],
        workspace=given["workspace"],
        request_id=given["request_id"],
        since=parse_when("since", given["since"], clock),
        until=parse_when("until", given["until"], clock),
        after_version=given["after_version"],
        before_version=given["before_version"],
        limit=given["limit"],
        cursor=given["cursor"],
    )


@command.command()
@click.argument("dataset")
@click.option("--after", default=0, metavar="VERSION", help="Only events later than it.")
@click.option("--follow", is_flag=True, help="Then wait for more, until interrupted.")
@node_command
async def feed(invocation: Invocation, dataset: str, after: int, follow: bool) -> None:
    """Every event later than a version, oldest first; with --json an event a line."""
    from lakehouse.contracts.journal import FeedRequest

    async with invocation.clients() as clients:
        request = FeedRequest(dataset, after, follow)
        stream = await clients.journal.feed(invocation.context(), request)
        async for group in stream.groups:
            sys.stdout.writelines(_line(invocation, event) for event in group)
            sys.stdout.flush()


def _line(invocation: Invocation, event: JournalEvent) -> str:
    if invocation.output.as_json:
        return json.dumps(to_record(event), ensure_ascii=False) + "\n"
    old, new = event.old_json or "null", event.new_json or "null"
    what = f"{event.entity} {event.field}: {old} -> {new}"
    if not event.entity:
        what = f"{counted(event.rows, 'row')} ({event.operation})"
    why = f" ({event.reason})" if event.reason else ""
    when = time_text(event.at)
    return f"{event.version}  {when}  {event.actor}  {event.kind.value}  {what}{why}\n"


def _cells(event: JournalEvent) -> tuple[object, ...]:
    of_many = not event.entity
    return (
        event.dataset,
        event.version,
        time_text(event.at),
        event.actor,
        event.kind.value,
        counted(event.rows, "row") if of_many else event.entity,
        event.field,
        "" if of_many else event.old_json,
        "" if of_many else event.new_json,
        event.reason,
    )


async def _key(invocation: Invocation, clients: Clients, dataset: str, key: str) -> str:
    """The key as JSON, its words read by the columns that they are for."""
    from lakehouse.contracts.catalog import GetRequest

    found = await clients.catalog.get(invocation.context(), GetRequest(dataset))
    return key_text(found.dataset, key)
