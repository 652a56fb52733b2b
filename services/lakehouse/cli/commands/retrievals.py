"""``lakehouse retrievals``: what was asked and answered, shown again, explained, kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.commands.search import MODES, key_words, short_text, stage_words
from lakehouse.cli.output import counted, time_text
from lakehouse.cli.pictures import write_text

if TYPE_CHECKING:
    from lakehouse.contracts.retrievals import Explanation, ReplayReport
    from lakehouse.model.retrieval import Retrieval

_QUERY_CHARS: Final = 60


@click.group()
def command() -> None:
    """What was asked and answered: list, show, replay, explain, pin."""


@command.command("list")
@click.option("--index", default="", help="Only of this one.")
@click.option("--actor", default="", help="Only by this one.")
@click.option("--mode", default="", type=click.Choice(["", *MODES]), help="Only in this mode.")
@click.option("--purpose", default="", help="Only for this: search, sql, rag, recall.")
@click.option("--since", default="", metavar="AGO|TIME", help="From then on: 1h, 7d, or a time.")
@click.option("--until", default="", metavar="AGO|TIME", help="Before then.")
@click.option("--limit", default=20, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def list_(invocation: Invocation, since: str, until: str, **given: Any) -> None:
    """What was asked, newest first."""
    from lakehouse.contracts.retrievals import ListRetrievalsRequest
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.when import parse_when

    clock = SystemClock()
    times: dict[str, Any] = {
        "since": parse_when("--since", since, clock),
        "until": parse_when("--until", until, clock),
    }
    async with invocation.clients() as clients:
        request = ListRetrievalsRequest(**given, **times)
        result = await clients.retrievals.list(invocation.context(), request)
    columns = ("retrieval", "at", "by", "for", "mode", "index", "asked", "hits", "best")
    invocation.output.records(result, columns, [_listed(one) for one in result.retrievals])
    if not result.retrievals:
        invocation.output.say("nothing like that is remembered", "dim")
    if result.dropped:
        what = counted(result.dropped, "retrieval")
        invocation.output.say(f"{what} came too fast to be remembered", "yellow")
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


def _listed(one: Retrieval) -> tuple[object, ...]:
    return (
        one.id,
        time_text(one.at),
        one.actor,
        one.purpose,
        one.mode.value + (" (degraded)" if one.degraded else ""),
        ", ".join(searched.index for searched in one.indexes),
        asked_words(one)[:_QUERY_CHARS],
        one.hits_total or len(one.hits),
        key_words(one.hits[0].key) if one.hits else "",
    )


@command.command()
@click.argument("retrieval")
@node_command
async def show(invocation: Invocation, retrieval: str) -> None:
    """What was asked, of what, and the ranked rows as they were answered."""
    from lakehouse.contracts.retrievals import RetrievalRequest

    async with invocation.clients() as clients:
        request = RetrievalRequest(retrieval)
        result = await clients.retrievals.get(invocation.context(), request)
    output = invocation.output
    if output.as_json:
        output.record(result, {})
        return
    _header(invocation, result.retrieval)
    rows = [
        (
            rank,
            f"{one.score:.4f}",
            stage_words(one.stages),
            one.index,
            key_words(one.key),
            one.chunk,
            one.version,
            one.text_sha256[:12],
        )
        for rank, one in enumerate(result.retrieval.hits, 1)
    ]
    columns = ("rank", "score", "stages", "index", "key", "chunk", "version", "text sha256")
    output.table(columns, rows)
    output.say(f"their texts: lakehouse retrievals replay {result.retrieval.id}", "dim")


@command.command()
@click.argument("retrieval")
@click.option("--full", is_flag=True, help="Whole texts, not their beginnings.")
@node_command
async def replay(invocation: Invocation, retrieval: str, full: bool) -> None:
    """The same ranked rows and scores with the texts they had; no model, no index is asked."""
    from lakehouse.contracts.retrievals import RetrievalRequest

    async with invocation.clients() as clients:
        request = RetrievalRequest(retrieval)
        report = await clients.retrievals.replay(invocation.context(), request)
    output = invocation.output
    if output.as_json:
        output.record(report, {})
        return
    _header(invocation, report.retrieval)
    rows = [
        (
            one.rank,
            f"{one.score:.4f}",
            key_words(one.key),
            one.row,
            one.text_from,
            one.text if full or one.text is None else short_text(one.text),
        )
        for one in report.hits
    ]
    output.table(("rank", "score", "key", "row now", "text from", "text"), rows)
    output.say(*_verdict(report))


def _verdict(report: ReplayReport) -> tuple[str, str]:
    if report.same:
        return f"the same, by digest {report.digest[:16]}…", "green"
    if report.digest != report.retrieval.digest:
        return "not the same: the digest of what is shown is another than the recorded one", "red"
    missing = counted(report.texts_missing, "text")
    return f"the same rows and scores, by digest; {missing} cannot be read any more", "yellow"


@command.command()
@click.argument("retrieval")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page for a browser into this file.",
)
@node_command
async def explain(invocation: Invocation, retrieval: str, page: Path | None) -> None:
    """What was done, and which stage brought which hit."""
    from lakehouse.contracts.retrievals import RetrievalRequest

    async with invocation.clients() as clients:
        request = RetrievalRequest(retrieval)
        found = await clients.retrievals.explain(invocation.context(), request)
    output = invocation.output
    if page is not None:
        from lakehouse.gateway.pages.explanation import explanation_page

        write_text(page, bytes(explanation_page(found).body).decode())
    if output.as_json:
        output.record(found, {})
        return
    _explained(invocation, found)
    if page is not None:
        output.say(f"written to {page}", "dim")


def _explained(invocation: Invocation, found: Explanation) -> None:
    output = invocation.output
    _header(invocation, found.retrieval)
    for number, step in enumerate(found.steps, 1):
        output.say(f"{number}. {step}")
    rows = [
        (
            one.rank,
            f"{one.score:.4f}",
            one.index,
            key_words(one.key),
            one.sentence,
            None if one.text is None else short_text(one.text),
        )
        for one in found.hits
    ]
    output.table(("rank", "score", "index", "key", "why", "text"), rows)


@command.command()
@click.argument("retrieval")
@click.option("--remove", is_flag=True, help="Let it go.")
@click.option("--note", default="", help="Why.")
@node_command
async def pin(invocation: Invocation, retrieval: str, remove: bool, note: str) -> None:
    """Keep the rows that it cites readable for as long as it is pinned."""
    from lakehouse.contracts.retrievals import PinRequest

    ctx = invocation.context()
    async with invocation.clients() as clients:
        request = PinRequest(retrieval, remove, note)
        result = await clients.retrievals.pin(invocation.context(ctx.request_id), request)
    lines = {
        "retrieval": result.id,
        "pinned": "yes" if result.pinned else "no",
        "by": ", ".join(result.tags) or "nothing",
        "done": f"version {result.version}" if result.changed else "it was so already",
    }
    invocation.output.record(result, lines)


def asked_words(one: Retrieval) -> str:
    """The query in a line."""
    return short_text(one.text) or "(a vector)"


def _header(invocation: Invocation, one: Retrieval) -> None:
    took = f"{one.embed_ms:.1f} ms embedding, {one.search_ms:.1f} ms search"
    lines: dict[str, object] = {
        "retrieval": one.id,
        "asked": asked_words(one),
        "by": f"{one.actor}, {time_text(one.at)}, for {one.purpose}",
        "mode": one.mode.value + (f" (degraded: {one.degraded_reason})" if one.degraded else ""),
        "filter": one.filter,
        "of": ", ".join(f"{i.index} version {i.number} ({i.served_by})" for i in one.indexes),
        "read": f"version {one.as_of_version or one.version}",
        "took": took,
        "pinned": ", ".join(one.tags),
        "digest": one.digest,
    }
    invocation.output.record(one, {name: text for name, text in lines.items() if text})
