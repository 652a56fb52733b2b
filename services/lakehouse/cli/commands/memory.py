"""``lakehouse memory``: turns of conversations, remembered, recalled, caught up with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.commands.search import MODES, RECORDS, key_words, short_text
from lakehouse.cli.output import counted, time_text
from lakehouse.cli.records import moment, read_records, turns
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.memory import Recalled, Turn

_WHEN = "AGO|TIME"


@click.group()
def command() -> None:
    """Conversations: remember turns, recall them, catch up."""


@command.command()
@click.argument("memory")
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--file", "source", default="", metavar="FILE|-", help="Turns: JSON, or an object a line."
)
@click.option("--who", default="", help="Said it.")
@click.option("--session", default="", help="In which it was said.")
@click.option("--at", default="", metavar="TIME", help="When  [default: now]")
@click.option("--tag", "tags", multiple=True, help="Of it; repeatable.")
@click.option("--profile", default="conversation", show_default=True, help="Of a new memory.")
@click.option("--idempotency-key", default="", help="Of this call  [default: a new one]")
@node_command
async def remember(
    invocation: Invocation, memory: str, texts: tuple[str, ...], source: str, **given: Any
) -> None:
    """Remember TEXTs, or the turns of a file; what is there already is not remembered twice.

    A turn of a file has text, and if known who, session, at and tags.
    """
    from lakehouse.contracts.memory import RememberRequest, Turn

    if bool(texts) == bool(source):
        raise LakehouseError(
            ErrorKind.INVALID,
            "give either texts or a file of turns",
            hint=f"for example: lakehouse memory remember {memory} 'the roof leaks' --who ann",
        )
    at = moment(given["at"]) if given["at"] else None
    said = tuple(Turn(text, given["who"], given["session"], at, given["tags"]) for text in texts)
    if source:
        said = turns(await read_records(source))
    key = given["idempotency_key"] or invocation.context().request_id
    async with invocation.clients() as clients:
        request = RememberRequest(memory, said, given["profile"])
        report = await clients.memory.remember(invocation.context(key), request)
    lines = {
        "memory": report.memory + (" (made)" if report.created else ""),
        "remembered": counted(report.remembered, "turn"),
        "known": counted(report.duplicates, "duplicate"),
        "done": f"version {report.version}",
    }
    invocation.output.record(report, lines)


@command.command()
@click.argument("memory")
@click.argument("text")
@click.option("-k", "k", default=10, show_default=True, help="So many hits.")
@click.option(
    "--mode", default="hybrid", show_default=True, type=click.Choice(MODES), help="Of the search."
)
@click.option("--session", default="", help="Only of this one.")
@click.option("--who", default="", help="Only by this one.")
@click.option("--tag", "tags", multiple=True, help="Only turns with it; repeated: with all.")
@click.option("--since", default="", metavar=_WHEN, help="Said from then on: 1h, 7d, or a time.")
@click.option("--until", default="", metavar=_WHEN, help="Said before then.")
@click.option("--also", multiple=True, metavar="INDEX", help="Over a table; repeatable.")
@click.option(
    "--record",
    default="best_effort",
    show_default=True,
    type=click.Choice(RECORDS),
    help="How the retrieval is remembered.",
)
@node_command
async def recall(invocation: Invocation, memory: str, text: str, **given: Any) -> None:
    """What was said that has to do with TEXT, best first."""
    from lakehouse.contracts.memory import RecallRequest
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.when import parse_when
    from lakehouse.model.retrieval import RecordClass, SearchMode

    clock = SystemClock()
    request = RecallRequest(
        memory,
        text,
        given["k"],
        SearchMode(given["mode"]),
        given["session"],
        given["who"],
        given["tags"],
        parse_when("--since", given["since"], clock),
        parse_when("--until", given["until"], clock),
        given["also"],
        RecordClass(given["record"]),
    )
    async with invocation.clients() as clients:
        result = await clients.memory.recall(invocation.context(), request)
    columns = ("rank", "score", "said by", "at", "session", "text")
    rows = [_recalled(rank, one) for rank, one in enumerate(result.recalled, 1)]
    output = invocation.output
    output.records(result, columns, rows)
    if result.retrieval_id:
        output.say(f"retrieval {result.retrieval_id}", "dim")
    if result.behind:
        output.say("turns that came just now are being embedded", "dim")
    if result.degraded:
        output.say("degraded: found by words alone", "yellow")


def _recalled(rank: int, one: Recalled) -> tuple[object, ...]:
    turn = one.turn
    if turn is None:
        where = f"{one.hit.index}: {key_words(one.hit.key)}"
        return (rank, f"{one.hit.score:.4f}", where, "", "", short_text(one.hit.text))
    at = "" if turn.at is None else time_text(turn.at)
    return (rank, f"{one.hit.score:.4f}", turn.who, at, turn.session, short_text(turn.text))


@command.command("catch-up")
@click.argument("memory")
@click.option("--since", default="", metavar=_WHEN, help="Remembered from then on: 1h, or a time.")
@click.option("--session", default="", help="Only of this one.")
@click.option("--who", default="", help="Only by this one.")
@click.option("--tag", "tags", multiple=True, help="Only turns with it; repeated: with all.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From the time before.")
@node_command
async def catch_up(invocation: Invocation, memory: str, since: str, **given: Any) -> None:
    """What came in since, in the order in which it was remembered."""
    from lakehouse.contracts.memory import CatchUpRequest
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.when import parse_when

    when = parse_when("--since", since, SystemClock())
    async with invocation.clients() as clients:
        request = CatchUpRequest(memory, when, **given)
        result = await clients.memory.catch_up(invocation.context(), request)
    columns = ("remembered", "said by", "session", "tags", "text")
    invocation.output.records(result, columns, _turn_rows(result.turns))
    more = "there are more" if result.more else "that is all for now"
    invocation.output.say(f"{more}; go on with: --cursor {result.cursor}", "dim")


def _turn_rows(said: Iterable[Turn]) -> list[tuple[object, ...]]:
    return [
        (
            "" if one.remembered_at is None else time_text(one.remembered_at),
            one.who,
            one.session,
            ", ".join(one.tags),
            one.text,
        )
        for one in said
    ]


@command.command("list")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def list_(invocation: Invocation, limit: int, cursor: str) -> None:
    """The memories, by name."""
    from lakehouse.contracts.memory import MemoriesRequest

    async with invocation.clients() as clients:
        request = MemoriesRequest(limit, cursor)
        result = await clients.memory.memories(invocation.context(), request)
    rows = [(one.name, f"{one.turns:,}", one.index, one.updated_at) for one in result.memories]
    invocation.output.records(result, ("memory", "turns", "index", "updated"), rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")
