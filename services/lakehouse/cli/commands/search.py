"""``lakehouse search``: texts of an index by what they mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.cli.calls import Invocation, node_command

if TYPE_CHECKING:
    from lakehouse.contracts.vectors import SearchResult

_TEXT_CHARS: Final = 120


@click.command()
@click.argument("index")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("-k", "k", default=10, show_default=True, help="So many hits.")
@click.option("--filter", "filter_", default="", metavar="SQL", help="Only rows of this predicate.")
@click.option("--number", default=0, help="Of the index's version  [default: the live one]")
@click.option("--model", default="", help="Refuse unless this one embedded it.")
@click.option("--exact", is_flag=True, help="Compare with every vector.")
@click.option("--ef", default=0, help="Candidates in the graph  [default: as the profile says]")
@click.option("--full", is_flag=True, help="Whole texts, not their beginnings.")
@node_command
async def command(invocation: Invocation, index: str, texts: tuple[str, ...], **given: Any) -> None:
    """The texts of INDEX that are nearest to TEXT; several are asked in one call."""
    from lakehouse.contracts.vectors import SearchRequest, VectorQuery

    request = SearchRequest(
        index=index,
        queries=tuple(VectorQuery(text) for text in texts),
        k=given["k"],
        filter=given["filter_"],
        number=given["number"],
        model=given["model"],
        ef=given["ef"],
        exact=given["exact"],
    )
    async with invocation.clients() as clients:
        result = await clients.vectors.search(invocation.context(), request)
    _show(invocation, texts, result, given["full"])


def _show(invocation: Invocation, texts: tuple[str, ...], result: SearchResult, full: bool) -> None:
    output = invocation.output
    columns = ("rank", "score", "key", "text")
    if output.as_json:
        output.records(result, columns, ())
        return
    for text, found in zip(texts, result.results, strict=True):
        if len(texts) > 1:
            output.say(text, "bold")
        rows = [
            (rank, f"{hit.score:.3f}", key_words(hit.key), hit.text if full else _short(hit.text))
            for rank, hit in enumerate(found.hits, 1)
        ]
        output.table(columns, rows)
    behind = ", rows that changed since are being embedded" if result.behind else ""
    output.say(
        f"version {result.number} ({result.model}, {result.served_by}) of {result.index},"
        f" rows up to version {result.source_version}{behind};"
        f" {result.embed_ms:.1f} ms embedding, {result.search_ms:.1f} ms search",
        "dim",
    )


def key_words(key: str) -> str:
    """``7`` for a key of one column, ``["a", 7]`` for several, an id as it is."""
    try:
        values = json.loads(key)
    except ValueError:
        return key
    if isinstance(values, list) and len(values) == 1:
        return str(values[0])
    return key


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_CHARS else line[: _TEXT_CHARS - 1] + "…"
