"""``lakehouse search``: texts of an index by what they mean, by their words, or by both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.points import POINT, point

if TYPE_CHECKING:
    from lakehouse.contracts.vectors import Hit, SearchResult
    from lakehouse.model.retrieval import StageScore

MODES: Final = ("vector", "text", "hybrid")
RECORDS: Final = ("none", "best_effort", "durable")
_TEXT_CHARS: Final = 120


@click.command()
@click.argument("index")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("-k", "k", default=10, show_default=True, help="So many hits.")
@click.option(
    "--mode",
    default="vector",
    show_default=True,
    type=click.Choice(MODES),
    help="By meaning, by words (BM25), or by both, fused.",
)
@click.option("--filter", "filter_", default="", metavar="SQL", help="Only rows of this predicate.")
@click.option("--also", multiple=True, metavar="INDEX", help="Search it, too; repeatable.")
@click.option("--candidates", default=0, help="Of each stage, for fusion  [default: what fits -k]")
@click.option(
    "--rerank",
    default="none",
    show_default=True,
    type=click.Choice(["none", "vectors", "sentences"]),
    help="Order the best candidates anew.",
)
@click.option("--rerank-max", default=0, help="So many of them  [default: what fits -k]")
@click.option("--as-of", default="", metavar=POINT, help="Rows as they were then.")
@click.option(
    "--record",
    default="best_effort",
    show_default=True,
    type=click.Choice(RECORDS),
    help="How the retrieval is remembered.",
)
@click.option("--number", default=0, help="Of the index's version  [default: the live one]")
@click.option("--model", default="", help="Refuse unless this one embedded it.")
@click.option("--exact", is_flag=True, help="Compare with every vector.")
@click.option("--ef", default=0, help="Candidates in the graph  [default: as the profile says]")
@click.option("--full", is_flag=True, help="Whole texts, not their beginnings.")
@node_command
async def command(invocation: Invocation, index: str, texts: tuple[str, ...], **given: Any) -> None:
    """The texts of INDEX that have most to do with TEXT; several are asked in one call."""
    from lakehouse.contracts.vectors import SearchRequest, VectorQuery
    from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode

    request = SearchRequest(
        index=index,
        queries=tuple(VectorQuery(text) for text in texts),
        k=given["k"],
        filter=given["filter_"],
        number=given["number"],
        model=given["model"],
        ef=given["ef"],
        exact=given["exact"],
        mode=SearchMode(given["mode"]),
        also=given["also"],
        candidates=given["candidates"],
        rerank=Rerank(given["rerank"]),
        rerank_max=given["rerank_max"],
        as_of=point(given["as_of"]),
        record=RecordClass(given["record"]),
    )
    async with invocation.clients() as clients:
        result = await clients.vectors.search(invocation.context(), request)
    _show(invocation, texts, result, given["full"])


def _show(invocation: Invocation, texts: tuple[str, ...], result: SearchResult, full: bool) -> None:
    output = invocation.output
    if output.as_json:
        output.records(result, (), ())
        return
    for text, found in zip(texts, result.results, strict=True):
        if len(texts) > 1:
            output.say(text, "bold")
        output.table(*hit_table(found.hits, full))
        if found.retrieval_id:
            output.say(f"retrieval {found.retrieval_id}", "dim")
    behind = ", rows that changed since are being embedded" if result.behind else ""
    output.say(
        f"version {result.number} ({result.model}, {result.served_by}) of {result.index},"
        f" rows up to version {result.source_version}{behind};"
        f" {result.embed_ms:.1f} ms embedding, {result.search_ms:.1f} ms search",
        "dim",
    )
    if result.degraded:
        output.say(f"degraded: {result.degraded_reason or 'the model did not answer'}", "yellow")


def hit_table(hits: Sequence[Hit], full: bool) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Columns and rows of a table of hits; where they came from only if there is something to
    tell."""
    staged = any(hit.stages for hit in hits)
    several = any(hit.index for hit in hits)
    columns = (
        *("rank", "score"),
        *(("stages",) if staged else ()),
        *(("index",) if several else ()),
        *("key", "text"),
    )
    rows: list[tuple[object, ...]] = [
        (
            *(rank, f"{hit.score:.3f}" if not staged else f"{hit.score:.4f}"),
            *((stage_words(hit.stages),) if staged else ()),
            *((hit.index,) if several else ()),
            *(key_words(hit.key), hit.text if full else short_text(hit.text)),
        )
        for rank, hit in enumerate(hits, 1)
    ]
    return columns, rows


def stage_words(stages: Sequence[StageScore]) -> str:
    """``vector 2 (0.61), text 1 (4.25)``: rank and score of each stage before fusion."""
    told = [one for one in stages if one.stage.value != "fusion"]
    return ", ".join(f"{one.stage.value} {one.rank} ({one.score:.3g})" for one in told)


def key_words(key: str) -> str:
    """``7`` for a key of one column, ``["a", 7]`` for several, an id as it is."""
    try:
        values = json.loads(key)
    except ValueError:
        return key
    if isinstance(values, list) and len(values) == 1:
        return str(values[0])
    return key


def short_text(text: str) -> str:
    """One line of at most 120 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_CHARS else line[: _TEXT_CHARS - 1] + "…"
