"""``lakehouse rag``: an answer from what an index has to say, with citations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.commands.search import MODES, RECORDS, key_words, short_text
from lakehouse.cli.output import shown
from lakehouse.cli.points import POINT, point
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.rag import AnswerEnd, AnswerHeader, AnswerStream

_CONTEXT_COLUMNS = ("", "key", "version", "span", "text")


@click.command()
@click.argument("index")
@click.argument("question")
@click.option("-k", "k", default=5, show_default=True, help="So many pieces of text.")
@click.option(
    "--mode", default="hybrid", show_default=True, type=click.Choice(MODES), help="Of the search."
)
@click.option("--filter", "filter_", default="", metavar="SQL", help="Only rows of this predicate.")
@click.option("--also", multiple=True, metavar="INDEX", help="Search it, too; repeatable.")
@click.option("--as-of", default="", metavar=POINT, help="Rows as they were then.")
@click.option("--model", default="", help="That answers  [default: rag.model]")
@click.option("--instructions", default="", help="To the model, before the retrieved text.")
@click.option("--tokens-max", default=0, help="Of the answer  [default: as its server does]")
@click.option("--temperature", type=float, help="Of the answer  [default: as its server does]")
@click.option(
    "--record",
    default="durable",
    show_default=True,
    type=click.Choice(RECORDS),
    help="How the retrieval is remembered.",
)
@node_command
async def command(invocation: Invocation, index: str, question: str, **given: Any) -> None:
    """Search INDEX, and have a generative model answer QUESTION from what was found."""
    from lakehouse.contracts.rag import AnswerRequest
    from lakehouse.model.retrieval import RecordClass, SearchMode

    request = AnswerRequest(
        index=index,
        question=question,
        k=given["k"],
        mode=SearchMode(given["mode"]),
        filter=given["filter_"],
        also=given["also"],
        as_of=point(given["as_of"]),
        model=given["model"],
        instructions=given["instructions"],
        tokens_max=given["tokens_max"],
        temperature=given["temperature"],
        record=RecordClass(given["record"]),
    )
    async with invocation.clients() as clients:
        try:
            stream = await clients.rag.answer(invocation.context(), request)
            end = await _told(invocation, stream)
        except LakehouseError as error:
            raise _without_context(invocation, error) from error
    if invocation.output.as_json:
        invocation.output.record({"header": stream.header, "end": end}, {})
    else:
        _show(invocation, stream.header, end)


async def _told(invocation: Invocation, stream: AnswerStream) -> AnswerEnd | None:
    """The words as they come; the end."""
    said, end = "", None
    try:
        async for part in stream.parts:
            end = part.end
            if not invocation.output.as_json and part.text:
                said = part.text
                click.echo(shown(said), nl=False)
    finally:
        if said and not said.endswith("\n"):
            click.echo()
    return end


def _show(invocation: Invocation, header: AnswerHeader, end: AnswerEnd | None) -> None:
    output = invocation.output
    cited = end.cited if end is not None else ()
    by_number = {one.number: one for one in header.context}
    rows = [
        (
            f"[{one.number}]",
            f"{one.index}: {key_words(one.key)}" if one.index else key_words(one.key),
            one.version,
            f"{one.start}-{one.end}",
            short_text(one.text),
        )
        for one in (by_number[number] for number in cited if number in by_number)
    ]
    if rows:
        output.table(_CONTEXT_COLUMNS, rows)
    else:
        output.say("it cites nothing of what was found", "yellow")
    if end is not None and end.unknown:
        unknown = ", ".join(f"[{number}]" for number in end.unknown)
        output.say(f"it cites {unknown}, which there is not", "yellow")
    if header.degraded:
        output.say("degraded: found by words alone", "yellow")
    took = f", {end.seconds:.1f} s" if end is not None else ""
    output.say(f"retrieval {header.retrieval_id}, answered by {header.model}{took}", "dim")


def _without_context(invocation: Invocation, error: LakehouseError) -> LakehouseError:
    """What was retrieved is shown as a table to people, and in whole in JSON."""
    context = error.fields.get("context")
    if invocation.output.as_json or not isinstance(context, list):
        return error
    rows = [_context_row(one) for one in context if isinstance(one, dict)]
    invocation.output.say("no answer, but this was found:")
    invocation.output.table(_CONTEXT_COLUMNS, rows)
    fields = {name: value for name, value in error.fields.items() if name != "context"}
    return LakehouseError(error.kind, error.message, **fields)


def _context_row(one: dict[str, Any]) -> tuple[object, ...]:
    span = f"{one.get('start', '')}-{one.get('end', '')}"
    key, text = str(one.get("key", "")), str(one.get("text", ""))
    return (
        f"[{one.get('number', '')}]",
        key_words(key),
        one.get("version"),
        span,
        short_text(text),
    )
