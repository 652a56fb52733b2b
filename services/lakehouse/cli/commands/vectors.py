"""``lakehouse vectors``: indexes for searching by meaning, their versions, their builds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.commands.vectors_tuning import autotune, evals, promote, trials
from lakehouse.cli.output import counted
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.cli.calls import Clients
    from lakehouse.contracts.vectors import IndexResult, VersionFigures
    from lakehouse.model.identity import Context
    from lakehouse.model.vectors import IndexVersion, Structure, VectorIndexInfo

_LOOK_SECONDS: Final = 0.2
_COLUMNS: Final = (
    "version",
    "state",
    "model",
    "backend",
    "documents",
    "chunks",
    "structures",
    "embedded",
)


@click.group()
def command() -> None:
    """Indexes for searching by meaning: make, build, compare, cut over, tune."""


for _tuning in (evals, autotune, trials, promote):
    command.add_command(_tuning)


@command.command("list")
@click.option("-d", "--dataset", default="", help="Only over this one.")
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def list_(invocation: Invocation, dataset: str, limit: int, cursor: str) -> None:
    """The indexes, by name."""
    from lakehouse.contracts.vectors import ListIndexesRequest

    async with invocation.clients() as clients:
        request = ListIndexesRequest(dataset, limit, cursor)
        result = await clients.vectors.list_indexes(invocation.context(), request)
    rows = [
        (
            one.name,
            one.dataset or "(given)",
            ", ".join(one.columns),
            one.profile,
            one.live or "none",
            len(one.versions),
            *_live_cells(one),
        )
        for one in result.indexes
    ]
    columns = ("index", "dataset", "columns", "profile", "live", "versions")
    invocation.output.records(result, (*columns, "model", "documents", "state"), rows)
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@command.command()
@click.argument("name")
@click.option("-d", "--dataset", default="", help="Whose texts  [default: vectors are given]")
@click.option("-c", "--column", "columns", multiple=True, help="A column of texts; repeatable.")
@click.option("--profile", default="default", show_default=True, help="How, and by what.")
@click.option("--dimensions", default=0, help="Of given vectors.")
@click.option("--build/--no-build", default=True, help="Begin to embed at once  [default: build]")
@click.option("--wait/--no-wait", default=True, help="Until it is done  [default: wait]")
@node_command
async def create(invocation: Invocation, name: str, **given: Any) -> None:
    """Make an index over columns of a dataset, or of given vectors, and build it."""
    from lakehouse.contracts.vectors import CreateIndexRequest

    request = CreateIndexRequest(
        name,
        given["dataset"],
        given["columns"],
        given["profile"],
        given["dimensions"],
        given["build"],
    )
    async with invocation.clients() as clients:
        result = await clients.vectors.create_index(_keyed(invocation), request)
        if given["wait"]:
            result = await watch(invocation, clients, result)
    show_index(invocation, result)


@command.command()
@click.argument("name")
@node_command
async def show(invocation: Invocation, name: str) -> None:
    """An index with its versions, and how far a build is."""
    from lakehouse.contracts.vectors import IndexRequest

    async with invocation.clients() as clients:
        result = await clients.vectors.get_index(invocation.context(), IndexRequest(name))
    show_index(invocation, result)


@command.command()
@click.argument("name")
@click.option("--new-version", is_flag=True, help="Embed all anew, beside what is live.")
@click.option("--profile", default="", help="Another one from now on; a version of its own.")
@click.option(
    "--cut-over/--no-cut-over",
    default=True,
    help="Make a new version live as soon as it is ready  [default: cut-over]",
)
@click.option("--wait/--no-wait", default=True, help="Until it is done  [default: wait]")
@node_command
async def build(invocation: Invocation, name: str, wait: bool, **given: Any) -> None:
    """Catch up with the dataset, go on with a build that ended early, or build a version beside.

    Only documents that are new or changed are embedded.
    """
    from lakehouse.contracts.vectors import BuildRequest

    request = BuildRequest(name, given["new_version"], given["profile"], given["cut_over"])
    async with invocation.clients() as clients:
        result = await clients.vectors.build(_keyed(invocation), request)
        if wait:
            result = await watch(invocation, clients, result)
    show_index(invocation, result)


@command.command("cut-over")
@click.argument("name")
@click.argument("number", type=int, default=0, metavar="[NUMBER]")
@node_command
async def cut_over(invocation: Invocation, name: str, number: int) -> None:
    """Make version NUMBER the live one; without it, go back to the one before."""
    from lakehouse.contracts.vectors import CutOverRequest

    async with invocation.clients() as clients:
        request = CutOverRequest(name, number)
        result = await clients.vectors.cut_over(_keyed(invocation), request)
    show_index(invocation, result)


@command.command()
@click.argument("name")
@click.argument("first", type=int, default=0, metavar="[FIRST]")
@click.argument("second", type=int, default=0, metavar="[SECOND]")
@click.option("-q", "--query", "queries", multiple=True, help="A text to ask; repeatable.")
@click.option("-k", "k", default=10, show_default=True, help="So many hits.")
@click.option("--samples", default=50, show_default=True, help="Documents drawn without --query.")
@node_command
async def compare(invocation: Invocation, name: str, first: int, second: int, **given: Any) -> None:
    """Two versions on the same queries; by default the live one and the newest other one."""
    from lakehouse.contracts.vectors import CompareRequest

    request = CompareRequest(
        name, first, second, given["queries"], k=given["k"], samples=given["samples"]
    )
    async with invocation.clients() as clients:
        report = await clients.vectors.compare(invocation.context(), request)
    columns = ("version", "model", "backend", "chunks", "recall", "p50 ms", "p99 ms")
    rows = [_figure_cells(one) for one in (report.first, report.second)]
    invocation.output.records(report, columns, rows)
    asked = "1 query" if report.queries == 1 else f"{report.queries:,} queries"
    hits = counted(report.k, "hit")
    invocation.output.say(f"{asked} for {hits} each; {report.overlap:.1%} of the hits are the same")


@command.command()
@click.argument("name")
@click.option("--number", default=0, help="Only this version, which must not be live.")
@node_command
async def delete(invocation: Invocation, name: str, number: int) -> None:
    """Delete an index with all its vectors, or one version of it; the dataset stays."""
    from lakehouse.contracts.vectors import DeleteIndexRequest

    async with invocation.clients() as clients:
        request = DeleteIndexRequest(name, number)
        result = await clients.vectors.delete_index(_keyed(invocation), request)
    lines = {
        "index": result.name,
        "deleted": counted(result.versions_deleted, "version"),
        "done": f"version {result.version}",
    }
    invocation.output.record(result, lines)


async def watch(invocation: Invocation, clients: Clients, result: IndexResult) -> IndexResult:
    """The index when its build has ended. Raises ``unavailable`` if that was not its end."""
    from lakehouse.contracts.vectors import IndexRequest

    built = result.building
    with _bar(not invocation.output.as_json) as advance:
        while result.building:
            await asyncio.sleep(_LOOK_SECONDS)
            request = IndexRequest(result.index.name)
            result = await clients.vectors.get_index(invocation.context(), request)
            advance(result.index.versions[-1] if result.index.versions else None)
    newest = result.index.versions[-1] if result.index.versions else None
    if built and newest is not None and newest.error:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the build did not come to its end",
            index=result.index.name,
            number=newest.number,
            reason=newest.error,
            documents_done=newest.documents_done,
            hint=f"it goes on with: lakehouse vectors build {result.index.name}",
        )
    return result


@contextmanager
def _bar(wanted: bool) -> Iterator[Callable[[IndexVersion | None], None]]:
    """A bar on standard error where it is wanted and somebody may be watching."""
    if not wanted or not sys.stderr.isatty():
        yield lambda version: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        "documents",
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)

        def advance(version: IndexVersion | None) -> None:
            if version is not None:
                total = version.documents_total or None
                bar.update(task, completed=version.documents_done, total=total)

        yield advance


def show_index(invocation: Invocation, result: IndexResult) -> None:
    """An index for people, or as JSON."""
    output, index = invocation.output, result.index
    if output.as_json:
        output.record(result, {})
        return
    lines: dict[str, object] = {
        "index": index.name,
        "over": f"{index.dataset} ({', '.join(index.columns)})" if index.dataset else "given ones",
        "profile": index.profile,
        "live": f"version {index.live}" if index.live else "none yet",
    }
    if index.previous:
        lines["before"] = f"version {index.previous}"
    if result.building:
        lines["now"] = "a build runs"
    elif index.behind:
        lines["now"] = "behind its dataset"
    output.record(result, lines)
    output.table(_COLUMNS, map(_version_cells, index.versions))
    for version in index.versions:
        if version.error:
            output.say(f"version {version.number}: {version.error}", "yellow")


def _version_cells(one: IndexVersion) -> tuple[object, ...]:
    done = f"{one.documents:,}"
    if one.state.value != "ready" and one.documents_total:
        done = f"{one.documents_done:,} of {one.documents_total:,}"
    return (
        one.number,
        one.state.value,
        f"{one.model}, {one.dimensions}" if one.dimensions else one.model,
        one.profile.vector_backend.value,
        done,
        f"{one.chunks:,}",
        ", ".join(map(_structure_words, one.structures)) or "exact",
        f"{one.embedded_texts:,}",
    )


def _structure_words(one: Structure) -> str:
    found = "" if one.recall is None else f" (recall {one.recall:.3f})"
    return f"{one.kind} {one.rows:,}{found}"


def _live_cells(index: VectorIndexInfo) -> tuple[object, ...]:
    for one in index.versions:
        if one.number == (index.live or index.versions[-1].number):
            return (one.model, f"{one.documents:,}", one.state.value)
    return ("", "", "")


def _figure_cells(one: VersionFigures) -> tuple[object, ...]:
    return (
        one.number,
        one.model,
        one.backend,
        f"{one.chunks:,}",
        f"{one.recall:.3f}",
        f"{one.p50_ms:.2f}",
        f"{one.p99_ms:.2f}",
    )


def _keyed(invocation: Invocation) -> Context:
    """A change that is sent twice is done once."""
    return invocation.context(invocation.context().request_id)
