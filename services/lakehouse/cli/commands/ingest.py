"""``lakehouse ingest``: files, or standard input, each into a dataset."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from lakehouse.cli.batches import typed_columns
from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import counted, size_text
from lakehouse.cli.sources import chunks_of, open_source, progress
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakehouse.cli.calls import Clients
    from lakehouse.contracts.ingest import IngestReport, IngestRequest

_ENDINGS: Final = re.compile(r"(\.(csv|tsv|txt|json|ndjson|jsonl|parquet|arrow|gz|zst))+$", re.I)


@click.command()
@click.argument("sources", metavar="FILE...|-", nargs=-1, required=True)
@click.option("-d", "--dataset", default="", help="The dataset  [default: each file's name]")
@click.option("--key", default="", metavar="COL,COL", help="The primary key's columns.")
@click.option(
    "--mode",
    default="auto",
    type=click.Choice(["auto", "create", "append", "replace", "upsert"]),
    help="auto creates what is absent and takes the same file again as a no-op; upsert puts rows in"
    " the place of those with their key.",
)
@click.option(
    "--format",
    "format_",
    default="auto",
    help="csv, tsv, json, ndjson, parquet, arrow.",
    type=click.Choice(["auto", "csv", "tsv", "json", "ndjson", "parquet", "arrow"]),
)
@click.option("--compression", default="", help="none, gzip or zstd  [default: detected]")
@click.option("--delimiter", default="", help="Between fields  [default: detected]")
@click.option("--quote", default="", help="Around fields  [default: detected]")
@click.option("--encoding", default="", help="Of the text, as cp1252  [default: detected]")
@click.option("--header/--no-header", default=None, help="Names in line one  [default: detected]")
@click.option(
    "--null",
    "nulls",
    multiple=True,
    metavar="TEXT",
    help="A text that is null in columns other than string; repeatable.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=TYPE",
    help="A stated type, as zip=string; repeatable.",
)
@click.option(
    "--nested",
    default="struct",
    type=click.Choice(["struct", "json"]),
    help="What nested JSON becomes.",
)
@click.option("--owner", default="", help="For the dataset's card.")
@click.option("--description", default="", help="For the dataset's card.")
@click.option("--sensitivity", default="", help="public, internal, confidential or restricted.")
@click.option("--tag", "tags", multiple=True, help="For the dataset's card; repeatable.")
@click.option("--source-system", default="", help="Where the file came from, for the lineage.")
@click.option("--object", "is_object", is_flag=True, help="FILE is a key in a bucket of the node.")
@click.option("--object-bucket", default="primary", help="Of --object  [default: primary]")
@click.option("--bucket", default="", help="The home of a new dataset  [default: primary]")
@click.option("--reason", default="", help="Why; it stays in the journal.")
@click.option("--force", is_flag=True, help="Ingest even if the same content is there.")
@click.option("--dry-run", is_flag=True, help="Show the inferred schema and sample rows only.")
@click.option("--idempotency-key", default="", help="Of this ingest  [default: a new one]")
@node_command
async def command(invocation: Invocation, sources: tuple[str, ...], **given: Any) -> None:
    """Read each FILE (or standard input) into a dataset: all of it in one commit, or nothing.

    CSV, TSV, JSON, NDJSON, Parquet and Arrow, also gzip or zstd of them. What is ambiguous becomes
    a string; rows that cannot be read at all go to a dead-letter dataset. Several files are taken
    in turn, up to the first that fails.
    """
    for source in sources:
        _refuse_folder(source)
    _check_several(sources, given)
    reports: list[IngestReport] = []
    async with invocation.clients() as clients:
        for source in sources:
            try:
                report = await _one(invocation, clients, source, given)
            except LakehouseError as error:
                raise _about(error, source, len(reports), len(sources)) from error
            reports.append(report)
            if not invocation.output.as_json:
                show(invocation, report)
    if invocation.output.as_json:
        document = reports[0] if len(sources) == 1 else {"reports": reports}
        invocation.output.record(document, {})


async def _one(
    invocation: Invocation, clients: Clients, source: str, given: dict[str, Any]
) -> IngestReport:
    request = _request(source, given)
    size, stream = _open(source, given["is_object"])
    key = given["idempotency_key"] or invocation.context().request_id
    with progress(not invocation.output.as_json, size) as advance:
        body = _chunks(stream, advance)
        return await clients.ingest.ingest(invocation.context(key), request, body)


def _refuse_folder(source: str) -> None:
    if source != "-" and Path(source).is_dir():
        raise LakehouseError(
            ErrorKind.INVALID,
            "a folder is not a file",
            path=source,
            hint=f"name its files, as in: lakehouse ingest {source.rstrip('/')}/*.csv",
        )


def _check_several(sources: tuple[str, ...], given: dict[str, Any]) -> None:
    if len(sources) == 1:
        return
    if given["idempotency_key"]:
        raise LakehouseError(
            ErrorKind.INVALID, "an idempotency key is for one file", files=len(sources)
        )
    if given["dataset"] and given["mode"] not in ("append", "upsert"):
        raise LakehouseError(
            ErrorKind.INVALID,
            "several files into one dataset are appended or upserted",
            dataset=given["dataset"],
            hint="add --mode append or upsert, or leave --dataset out: each file then has its own",
        )


def _about(error: LakehouseError, source: str, done: int, files: int) -> LakehouseError:
    """Which of several files it was, and how many are in already."""
    if files == 1:
        return error
    fields = {**error.fields, "file": source, "files_done": done, "files": files}
    return LakehouseError(error.kind, error.message, **fields)


def _request(source: str, given: dict[str, Any]) -> IngestRequest:
    from lakehouse.contracts.ingest import (
        CardHints,
        IngestMode,
        IngestOptions,
        IngestRequest,
        NestedAs,
        SourceFormat,
    )

    name = "" if source == "-" else Path(source).name
    dataset = given["dataset"] or _ENDINGS.sub("", name)
    if not dataset:
        raise LakehouseError(
            ErrorKind.INVALID, "standard input has no name", hint="name it with --dataset"
        )
    options = IngestOptions(
        format=SourceFormat(given["format_"]),
        compression=given["compression"],
        file_name=name,
        delimiter=given["delimiter"].replace("\\t", "\t"),
        quote=given["quote"],
        encoding=given["encoding"],
        header=given["header"],
        null_values=given["nulls"] or None,
        columns=typed_columns(given["columns"]),
        nested=NestedAs(given["nested"]),
        force=given["force"],
    )
    card = CardHints(
        given["owner"],
        given["description"],
        given["sensitivity"],
        given["tags"],
        given["source_system"],
    )
    return IngestRequest(
        dataset=dataset,
        mode=IngestMode(given["mode"]),
        key=tuple(part.strip() for part in given["key"].split(",") if part.strip()),
        options=options,
        card=card,
        dry_run=given["dry_run"],
        object_key=source if given["is_object"] else "",
        object_bucket=given["object_bucket"],
        bucket=given["bucket"],
        reason=given["reason"],
    )


def _open(source: str, is_object: bool) -> tuple[int | None, BinaryIO | None]:
    """The size if it is known, and the bytes; None for an object that the node reads itself."""
    if is_object:
        return None, None
    return open_source(source)


async def _chunks(stream: BinaryIO | None, advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    if stream is not None:
        async for chunk in chunks_of(stream, advance):
            yield chunk


def show(invocation: Invocation, report: IngestReport) -> None:
    """An ingest report for people, or as JSON."""
    output = invocation.output
    if output.as_json:
        output.record(report, {})
        return
    seconds = report.elapsed_ms / 1000
    what = (
        "nothing to do, the same content is there"
        if report.no_op
        else ("would be read" if report.dry_run else "queryable")
    )
    output.say(
        f"{report.dataset}: {counted(report.rows, 'row')} {what}, version {report.version}"
        f" ({report.format}, {size_text(report.bytes_read)} in {seconds:.2f} s)",
        "bold",
    )
    by_key = {n: getattr(report, n) for n in ("inserted", "updated", "deleted", "unchanged")}
    if any(by_key.values()):
        output.say("  " + ", ".join(f"{count:,} {name}" for name, count in by_key.items() if count))
    if report.dry_run:
        output.table(("column", "type"), [(c.name, c.type) for c in report.schema])
        if report.sample_json:
            output.say(report.sample_json)
    for warning in report.warnings:
        where = f" [{warning.column}]" if warning.column else ""
        line = f" (line {warning.line})" if warning.line is not None else ""
        output.say(f"  note{where}: {warning.message}{line}", "yellow")
    if report.dead_letters:
        output.say(
            f"  {counted(report.dead_letters, 'row')} could not be read: select * from"
            f' "{report.dead_letter_dataset}"',
            "yellow",
        )
