"""``lakehouse vectors evals|autotune|trials|promote``: what is found, and how fast."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.commands.search import MODES, short_text
from lakehouse.cli.output import counted, size_text, time_text
from lakehouse.cli.pictures import write_text
from lakehouse.cli.records import eval_queries, read_records
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.cli.calls import Clients
    from lakehouse.contracts.trials import TrialsReport
    from lakehouse.model.retrieval import Trial

_LOOK_SECONDS: Final = 0.3
_COLUMNS: Final = ("trial", "setting", "rows", "recall", "nDCG", "MRR", "found", "p50 ms", "p99 ms")
_PLOT: Final = click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg",
    help="Write a picture of recall against latency.",
)


@click.group()
def evals() -> None:
    """Eval sets: queries with what they should find."""


@evals.command("put")
@click.argument("name")
@click.argument("index")
@click.argument("source", metavar="[FILE|-]", required=False)
@click.option("--samples", default=0, help="Draw so many documents instead of a file.")
@click.option("--seed", default=1, show_default=True, help="Of the draw.")
@click.option("--description", default="", help="What it is.")
@node_command
async def put(
    invocation: Invocation, name: str, index: str, source: str | None, **given: Any
) -> None:
    """Set eval set NAME for INDEX, from a file of queries, or from documents that are drawn.

    A query is an object with text (or vector), relevant (keys), and if wanted grades; the file is a
    JSON list, or has one a line.
    """
    from lakehouse.contracts.trials import PutEvalRequest

    if (source is None) == (given["samples"] == 0):
        raise LakehouseError(
            ErrorKind.INVALID,
            "give either a file of queries or --samples",
            hint=f"for example: lakehouse vectors evals put {name} {index} --samples 200",
        )
    queries = () if source is None else eval_queries(await read_records(source))
    request = PutEvalRequest(
        name, index, queries, given["samples"], given["seed"], given["description"]
    )
    async with invocation.clients() as clients:
        result = await clients.trials.put_eval(_keyed(invocation), request)
    one = result.eval_set
    lines = {
        "eval set": one.name,
        "index": one.index,
        "queries": f"{len(one.queries):,}",
        "done": ("made" if result.created else "replaced") + f", version {result.version}",
    }
    invocation.output.record(result, lines)


@evals.command("list")
@click.option("--index", default="", help="Only of this one.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def list_(invocation: Invocation, index: str, limit: int, cursor: str) -> None:
    """The eval sets, by name."""
    from lakehouse.contracts.trials import ListEvalsRequest

    async with invocation.clients() as clients:
        request = ListEvalsRequest(index, limit, cursor)
        result = await clients.trials.list_evals(invocation.context(), request)
    rows = [
        (e.name, e.index, f"{e.queries:,}", f"{e.relevant:,}", e.created_at, e.description)
        for e in result.evals
    ]
    columns = ("eval set", "index", "queries", "relevant", "created", "description")
    invocation.output.records(result, columns, rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@evals.command()
@click.argument("name")
@node_command
async def show(invocation: Invocation, name: str) -> None:
    """An eval set with its queries."""
    from lakehouse.contracts.trials import EvalRequest

    async with invocation.clients() as clients:
        result = await clients.trials.get_eval(invocation.context(), EvalRequest(name))
    rows = [
        (short_text(one.text) or "(a vector)", ", ".join(one.relevant) or "(exact neighbours)")
        for one in result.eval_set.queries
    ]
    invocation.output.records(result, ("query", "should find"), rows)


@evals.command()
@click.argument("name")
@node_command
async def delete(invocation: Invocation, name: str) -> None:
    """Delete an eval set; its trials stay."""
    from lakehouse.contracts.trials import DeleteEvalRequest

    async with invocation.clients() as clients:
        request = DeleteEvalRequest(name)
        result = await clients.trials.delete_eval(_keyed(invocation), request)
    lines = {"eval set": result.name, "done": f"deleted, version {result.version}"}
    invocation.output.record(result, lines)


@evals.command()
@click.argument("name")
@click.option(
    "--mode", "modes", multiple=True, type=click.Choice(MODES), help="Repeatable  [default: all]"
)
@click.option("--number", default=0, help="Of the index's version  [default: the live one]")
@click.option("-k", "k", default=10, show_default=True, help="So many hits.")
@node_command
async def run(
    invocation: Invocation, name: str, modes: tuple[str, ...], number: int, k: int
) -> None:
    """Search with each query in each mode: how much is found, how early, how fast."""
    from lakehouse.contracts.trials import EvaluateRequest
    from lakehouse.model.retrieval import SearchMode

    request = EvaluateRequest(name, tuple(map(SearchMode, modes)), number, k)
    async with invocation.clients() as clients:
        report = await clients.trials.evaluate(_keyed(invocation), request)
    _show(invocation, report)


@click.command()
@click.argument("index")
@click.option("--recall", default=0.99, show_default=True, help="Of the exact -k, in (0, 1].")
@click.option("-k", "k", default=10, show_default=True, help="So many hits.")
@click.option("--budget", default=60.0, show_default=True, help="Seconds.")
@click.option("--eval-set", default="", help="Its queries  [default: documents that are drawn]")
@click.option("--samples", default=200, show_default=True, help="Documents drawn.")
@click.option("--m", "m", multiple=True, type=int, help="To try; repeatable  [default: a grid]")
@click.option("--ef-construction", multiple=True, type=int, help="To try; repeatable.")
@click.option("--ef", multiple=True, type=int, help="To try; repeatable.")
@click.option("--rows-max", default=0, help="Of a sample  [default: what the budget allows]")
@click.option("--exhaustive", is_flag=True, help="Every setting, however unpromising.")
@click.option("--number", default=0, help="Of the index's version  [default: the live one]")
@click.option("--promote", is_flag=True, help="Give the index what was chosen.")
@click.option("--wait/--no-wait", default=True, help="Until it is done  [default: wait]")
@_PLOT
@node_command
async def autotune(
    invocation: Invocation, index: str, plot: Path | None, wait: bool, **given: Any
) -> None:
    """Find the fastest setting of the graph of INDEX that has the recall asked for."""
    from lakehouse.contracts.trials import AutotuneRequest

    promoted, budget = given.pop("promote"), given.pop("budget")
    request = AutotuneRequest(index, budget_seconds=budget, **given)
    async with invocation.clients() as clients:
        report = await clients.trials.autotune(_keyed(invocation), request)
        if wait or promoted:
            report = await watch(invocation, clients, report)
        if promoted and report.chosen is not None and report.chosen.m:
            await _promoted(invocation, clients, report.chosen)
    _plotted(plot, report.trials)
    _show(invocation, report, taken=promoted)
    if plot is not None:
        invocation.output.say(f"written to {plot}", "dim")


async def watch(invocation: Invocation, clients: Clients, report: TrialsReport) -> TrialsReport:
    """The run when it has ended. Raises ``unavailable`` if it failed."""
    from lakehouse.contracts.trials import RunRequest

    with _bar(not invocation.output.as_json) as advance:
        while report.state == "running":
            await asyncio.sleep(_LOOK_SECONDS)
            request = RunRequest(report.run)
            report = await clients.trials.get_run(invocation.context(), request)
            advance(report)
    if report.state == "failed":
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the run did not come to its end",
            run=report.run,
            reason=report.error,
            trials=len(report.trials),
        )
    return report


async def _promoted(invocation: Invocation, clients: Clients, chosen: Trial) -> None:
    from lakehouse.cli.commands.vectors import watch as watch_build
    from lakehouse.contracts.trials import PromoteRequest

    result = await clients.trials.promote(_keyed(invocation), PromoteRequest(chosen.id))
    await watch_build(invocation, clients, result)


@contextmanager
def _bar(wanted: bool) -> Iterator[Callable[[TrialsReport], None]]:
    """A bar on standard error where it is wanted and somebody may be watching."""
    if not wanted or not sys.stderr.isatty():
        yield lambda report: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("settings {task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)

        def advance(report: TrialsReport) -> None:
            best = max((one.recall or 0.0 for one in report.trials), default=None)
            words = "" if best is None else f"(best recall {best:.4f})"
            total, done = report.planned or None, len(report.trials)
            bar.update(task, completed=done, total=total, description=words)

        yield advance


@click.command()
@click.option("--index", default="", help="Only of this one.")
@click.option("--run", default="", help="Only of this run.")
@click.option("--kind", default="", type=click.Choice(["", "hnsw", "mode"]), help="Only of it.")
@click.option("--since", default="", metavar="AGO|TIME", help="From then on: 1h, 7d, or a time.")
@click.option("--until", default="", metavar="AGO|TIME", help="Before then.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@_PLOT
@node_command
async def trials(
    invocation: Invocation, since: str, until: str, plot: Path | None, **given: Any
) -> None:
    """Every setting that was ever tried, newest first."""
    from lakehouse.contracts.trials import TrialsRequest
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.when import parse_when

    clock = SystemClock()
    times: dict[str, Any] = {
        "since": parse_when("--since", since, clock),
        "until": parse_when("--until", until, clock),
    }
    async with invocation.clients() as clients:
        result = await clients.trials.trials(invocation.context(), TrialsRequest(**given, **times))
    _plotted(plot, result.trials)
    rows = [(time_text(one.at), one.index, *_cells(one)) for one in result.trials]
    invocation.output.records(result, *_told(("at", "index", *_COLUMNS), rows))
    if not rows:
        invocation.output.say("nothing like that was tried", "dim")
    if plot is not None:
        invocation.output.say(f"written to {plot}", "dim")
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@click.command()
@click.argument("trial")
@click.option("--number", default=0, help="Of the index's version  [default: the tried one]")
@click.option("--wait/--no-wait", default=True, help="Until it is done  [default: wait]")
@node_command
async def promote(invocation: Invocation, trial: str, number: int, wait: bool) -> None:
    """Give the index the setting of TRIAL, in one commit; a new graph is built beside."""
    from lakehouse.cli.commands.vectors import show_index
    from lakehouse.cli.commands.vectors import watch as watch_build
    from lakehouse.contracts.trials import PromoteRequest

    async with invocation.clients() as clients:
        request = PromoteRequest(trial, number)
        result = await clients.trials.promote(_keyed(invocation), request)
        if wait:
            result = await watch_build(invocation, clients, result)
    show_index(invocation, result)


def _plotted(plot: Path | None, tried: Iterable[Trial]) -> None:
    if plot is not None:
        from lakehouse.model.trial_plot import recall_plot

        write_text(plot, recall_plot(tried))


def _show(invocation: Invocation, report: TrialsReport, taken: bool = False) -> None:
    output = invocation.output
    if output.as_json:
        output.record(report, {})
        return
    output.table(*_told(_COLUMNS, [_cells(one) for one in report.trials]))
    if report.state == "running":
        output.say(f"run {report.run} goes on: lakehouse vectors trials --run {report.run}")
        return
    took = f"{counted(len(report.trials), 'setting')} in {report.seconds:.1f} s"
    output.say(f"run {report.run}: {took}{_ended(report)}", "dim")
    if report.chosen is not None:
        _show_chosen(invocation, report, report.chosen, taken)


def _show_chosen(invocation: Invocation, report: TrialsReport, chosen: Trial, taken: bool) -> None:
    from lakehouse.model.trial_plot import setting

    output = invocation.output
    if chosen.kind == "mode":
        output.say(f"best: {setting(chosen)} (nDCG {_share(chosen.ndcg)})", "bold")
        return
    fell_short = "" if report.reached else ", though less than was asked for"
    found = f"recall {_share(chosen.recall)}{fell_short}"
    output.say(f"chosen: {setting(chosen)} ({found})", "bold")
    if chosen.note:
        output.say(chosen.note)
    if chosen.m:
        way = f"take it with: lakehouse vectors promote {chosen.id}"
        output.say(f"{report.index} has it now" if taken else way, "dim")


def _ended(report: TrialsReport) -> str:
    if report.ended == "time":
        return f", then the time was over ({report.planned} were planned)"
    return ", which was enough" if report.ended == "enough" else ""


def _cells(one: Trial) -> tuple[object, ...]:
    from lakehouse.model.trial_plot import setting

    built = f" ({size_text(one.size_bytes)})" if one.size_bytes else ""
    return (
        one.id,
        setting(one) + built + (" *" if one.chosen else ""),
        f"{one.rows:,}" + (" (a sample)" if one.sampled else ""),
        _share(one.recall),
        _share(one.ndcg),
        _share(one.mrr),
        _share(one.relevant_recall),
        f"{one.p50_ms:.3f}",
        f"{one.p99_ms:.3f}",
    )


def _told(
    columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> tuple[list[str], list[list[object]]]:
    """The same without the columns that are empty in all rows."""
    kept = [at for at in range(len(columns)) if any(row[at] != "" for row in rows)]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _keyed(invocation: Invocation) -> Any:
    """With a key, so that a call that is repeated has one effect."""
    return invocation.context(invocation.context().request_id)
