"""``lakehouse rows``: rows by key, and the upkeep of what their changes leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.batches import fields_text, key_text, read_batch, typed_columns
from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import counted, size_text
from lakehouse.cli.points import POINT, point
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.cli.calls import Clients
    from lakehouse.contracts.ingest import IngestOptions
    from lakehouse.contracts.rows import ChangeRowsReport, ChangeRowsRequest, RowChange
    from lakehouse.model.dataset import Dataset


@click.group()
def command() -> None:
    """Rows by key: read, change, compare, restore, compact."""


def _change_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--reason", default="", help="Why; it stays in the journal."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option(
            "--expected-version", type=int, help="Refuse if rows changed since this version."
        ),
        click.option("--idempotency-key", default="", help="Of this call  [default: a new one]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option(
            "--format",
            "format_",
            default="auto",
            type=click.Choice(["auto", "csv", "tsv", "json", "ndjson", "parquet", "arrow"]),
            help="Of the file.",
        ),
        click.option("--delimiter", default="", help="Between fields  [default: detected]"),
        click.option("--encoding", default="", help="Of the text  [default: detected]"),
        click.option("--null", "nulls", multiple=True, metavar="TEXT", help="Null; repeatable."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command.command()
@click.argument("dataset")
@click.argument("key")
@click.option("--as-of", default="", metavar=POINT, help="As it was then.")
@node_command
async def get(invocation: Invocation, dataset: str, key: str, as_of: str) -> None:
    """One row by its key: the value, or for several columns a JSON array of values."""
    from lakehouse.contracts.rows import RowRequest

    async with invocation.clients() as clients:
        known = await _dataset(invocation, clients, dataset)
        request = RowRequest(dataset, key_text(known, key), point(as_of))
        found = await clients.rows.get(invocation.context(), request)
    invocation.output.records(found, ("column", "value"), json.loads(found.row_json).items())
    note = "" if found.served_from == "table" else ", made from the journal"
    invocation.output.say(f"version {found.version}{note}", "dim")


@command.command()
@click.argument("dataset")
@click.argument("source", metavar="[FILE|-]", required=False)
@click.option("--row", "rows", multiple=True, metavar="JSON", help="A row itself; repeatable.")
@_reading_options
@_change_options
@node_command
async def upsert(
    invocation: Invocation, dataset: str, source: str | None, rows: tuple[str, ...], **given: Any
) -> None:
    """Put whole rows in the place of those with their key, and add the others.

    A column that a row lacks becomes null; all of the batch is applied, or nothing.
    """
    from lakehouse.contracts.rows import RowChange

    if rows and source:
        raise LakehouseError(ErrorKind.INVALID, "give a file or --row, not both")
    body = "\n".join(rows).encode() if rows else await read_batch(source or "-")
    form = "ndjson" if rows else given["format_"]
    options = _options(given, "" if source in (None, "-") else str(source), form)
    await _change(invocation, _request(dataset, RowChange.UPSERT, given, body, options))


@command.command()
@click.argument("dataset")
@click.argument("source", metavar="[FILE|-]", required=False)
@click.option("--key", default="", help="Of the row  [default: FILE or --where says which]")
@click.option("--where", default="", metavar="SQL", help="Of which rows: a predicate.")
@click.option("--set", "sets", multiple=True, metavar="NAME=VALUE", help="A field; repeatable.")
@click.option("--set-null", "nulls_", multiple=True, metavar="NAME", help="To null; repeatable.")
@click.option(
    "--expect", "expects", multiple=True, metavar="NAME=VALUE", help="Refuse if it is another."
)
@_change_options
@node_command
async def patch(invocation: Invocation, dataset: str, source: str | None, **given: Any) -> None:
    """Set some fields of rows that are there.

    Of one row with --key, of those that --where selects, or of many: FILE then has objects of
    "key", "set" and "expect".
    """
    from lakehouse.contracts.rows import RowChange

    if sum(map(bool, (source, given["key"], given["where"]))) != 1:
        raise LakehouseError(ErrorKind.INVALID, "say which rows: FILE, --key or --where")
    if source:
        body, fields = await read_batch(source), ""
    else:
        async with invocation.clients() as clients:
            known = await _dataset(invocation, clients, dataset)
        body, fields = _patch(known, given)
    request = _request(dataset, RowChange.PATCH, given, body, None, fields)
    await _change(invocation, request)


def _patch(known: Dataset, given: dict[str, Any]) -> tuple[bytes, str]:
    """The body, or the fields to set where a predicate says of which rows."""
    fields = fields_text(known, given["sets"], given["nulls_"])
    if given["where"]:
        if given["expects"]:
            raise LakehouseError(ErrorKind.INVALID, "--expect is for one row; let --where say it")
        return b"", fields
    expected = fields_text(known, given["expects"])
    key = key_text(known, given["key"])
    expect = f', "expect": {expected}' if given["expects"] else ""
    return f'{{"key": {key}, "set": {fields}{expect}}}'.encode(), ""


@command.command()
@click.argument("dataset")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--where", default="", metavar="SQL", help="Of which rows: a predicate.")
@click.option("--file", "source", default="", metavar="FILE|-", help="With the keys.")
@_change_options
@node_command
async def delete(
    invocation: Invocation, dataset: str, keys: tuple[str, ...], source: str, **given: Any
) -> None:
    """Delete rows by their keys, or those that --where selects."""
    from lakehouse.contracts.rows import RowChange

    if sum(map(bool, (keys, given["where"], source))) != 1:
        raise LakehouseError(ErrorKind.INVALID, "say which rows: KEY..., --where or --file")
    body, options = b"", None
    if source:
        body, options = await read_batch(source), _options(given, source, "auto")
    elif keys:
        async with invocation.clients() as clients:
            known = await _dataset(invocation, clients, dataset)
        body = f"[{', '.join(key_text(known, key) for key in keys)}]".encode()
    await _change(invocation, _request(dataset, RowChange.DELETE, given, body, options))


@command.command()
@click.argument("dataset")
@click.option("--from", "old", required=True, metavar=POINT, help="Compared with it.")
@click.option("--to", "new", default="", metavar=POINT, help="What is compared  [default: now]")
@click.option("--limit", default=1000, show_default=True, help="At most so many rows.")
@click.option("--cursor", default="", help="From an earlier page.")
@node_command
async def diff(
    invocation: Invocation, dataset: str, old: str, new: str, limit: int, cursor: str
) -> None:
    """Rows that differ between two versions, by key, and which fields."""
    from lakehouse.contracts.rows import DiffRequest

    request = DiffRequest(dataset, point(old), point(new), limit, cursor)
    async with invocation.clients() as clients:
        result = await clients.rows.diff(invocation.context(), request)
    rows = [
        (row.key_json, row.change, one.field, one.old_json, one.new_json)
        for row in result.rows
        for one in row.fields
    ]
    columns = ("key", "change", "field", "old", "new")
    invocation.output.records(result, columns, rows)
    invocation.output.say(
        f"{result.added:,} added, {result.removed:,} removed, {result.changed:,} changed"
        f" between versions {result.old_version} and {result.new_version}"
    )
    if result.cursor:
        invocation.output.say(f"there are more: --cursor {result.cursor}", "dim")


@command.command()
@click.argument("dataset")
@click.argument("as_of", metavar=POINT)
@click.option("--reason", default="", help="Why; it stays in the journal.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--idempotency-key", default="", help="Of this call  [default: a new one]")
@node_command
async def restore(invocation: Invocation, dataset: str, as_of: str, **given: Any) -> None:
    """Make the rows what they were, by a commit like any other: nothing is undone."""
    from lakehouse.contracts.rows import RestoreRowsRequest

    request = RestoreRowsRequest(dataset, point(as_of), given["reason"], given["dry_run"])
    async with invocation.clients() as clients:
        report = await clients.rows.restore(_keyed(invocation, given), request)
    _show(invocation, report)


@command.command("set-key")
@click.argument("dataset")
@click.argument("columns", metavar="COLUMN...", nargs=-1, required=True)
@click.option("--reason", default="", help="Why; it stays in the journal.")
@node_command
async def set_key(
    invocation: Invocation, dataset: str, columns: tuple[str, ...], reason: str
) -> None:
    """Declare the primary key of a dataset that has none; rows that break it are named."""
    from lakehouse.contracts.rows import SetKeyRequest

    async with invocation.clients() as clients:
        request = SetKeyRequest(dataset, columns, reason)
        report = await clients.rows.set_key(_keyed(invocation, {}), request)
    lines = {
        "dataset": report.dataset,
        "primary key": ", ".join(report.primary_key),
        "checked": counted(report.rows_checked, "row"),
        "done": _verdict(report.no_op, False, report.version),
    }
    invocation.output.record(report, lines)


@command.command()
@click.argument("dataset")
@click.option("--add", multiple=True, metavar="NAME=TYPE", help="A new column; repeatable.")
@click.option("--to", "widen_", multiple=True, metavar="NAME=TYPE", help="Its wider type.")
@click.option("--reason", default="", help="Why; it stays in the journal.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@node_command
async def widen(invocation: Invocation, dataset: str, **given: Any) -> None:
    """Add columns, or give columns a wider type; nothing is rewritten."""
    from lakehouse.contracts.rows import WidenRequest

    add, wider = typed_columns(given["add"]), typed_columns(given["widen_"])
    if not add and not wider:
        raise LakehouseError(ErrorKind.INVALID, "name columns with --add or --to")
    request = WidenRequest(dataset, add, wider, given["reason"], given["dry_run"])
    async with invocation.clients() as clients:
        report = await clients.rows.widen(_keyed(invocation, {}), request)
    rows = [(one.name, one.old_type, one.new_type) for one in report.differences]
    invocation.output.records(report, ("column", "was", "is"), rows)
    invocation.output.say(_verdict(report.no_op, report.dry_run, report.version))


@command.command()
@click.argument("dataset")
@click.option("--full", is_flag=True, help="All of it, whatever the thresholds say.")
@click.option("--dry-run", is_flag=True, help="Show what it is expected to gain.")
@node_command
async def compact(invocation: Invocation, dataset: str, full: bool, dry_run: bool) -> None:
    """Fold row changes and small files together; readers and writers go on meanwhile."""
    from lakehouse.contracts.rows import CompactRequest

    async with invocation.clients() as clients:
        request = CompactRequest(dataset, full, dry_run)
        report = await clients.rows.compact(_keyed(invocation, {}), request)
    lines = {
        "strategy": report.strategy,
        "files": f"{report.files_before:,} -> {report.files_after:,}",
        "size": f"{size_text(report.size_bytes_before)} -> {size_text(report.size_bytes_after)}",
        "row changes": f"{report.key_files_before:,} -> {report.key_files_after:,} files",
        "rows": f"{report.rows:,} ({report.rows_hash}), the same before and after",
        "read, written": f"{size_text(report.bytes_read)}, {size_text(report.bytes_written)}",
        "took": f"{report.elapsed_ms / 1000:.2f} s",
    }
    invocation.output.record(report, lines)
    invocation.output.say(_verdict(report.no_op, report.dry_run, report.version))


async def _dataset(invocation: Invocation, clients: Clients, name: str) -> Dataset:
    from lakehouse.contracts.catalog import GetRequest

    return (await clients.catalog.get(invocation.context(), GetRequest(name))).dataset


def _options(given: dict[str, Any], file_name: str, form: str) -> IngestOptions:
    from pathlib import Path

    from lakehouse.contracts.ingest import IngestOptions, SourceFormat

    return IngestOptions(
        format=SourceFormat(form),
        file_name=Path(file_name).name if file_name != "-" else "",
        delimiter=given.get("delimiter", "").replace("\\t", "\t"),
        encoding=given.get("encoding", ""),
        null_values=given.get("nulls") or None,
    )


def _request(
    dataset: str,
    change: RowChange,
    given: dict[str, Any],
    body: bytes,
    options: IngestOptions | None = None,
    fields: str = "",
) -> tuple[ChangeRowsRequest, str]:
    """What is asked for, and the idempotency key that was given."""
    from lakehouse.contracts.ingest import IngestOptions
    from lakehouse.contracts.rows import ChangeRowsRequest

    request = ChangeRowsRequest(
        dataset,
        change,
        body,
        options or IngestOptions(),
        given.get("where", ""),
        fields,
        given["expected_version"],
        given["reason"],
        given["dry_run"],
    )
    return request, given["idempotency_key"]


async def _change(invocation: Invocation, asked: tuple[ChangeRowsRequest, str]) -> None:
    request, key = asked
    ctx = _keyed(invocation, {"idempotency_key": key})
    async with invocation.clients() as clients:
        report = await clients.rows.change(ctx, request)
    _show(invocation, report)


def _keyed(invocation: Invocation, given: dict[str, Any]) -> Any:
    """A change that is sent twice is done once."""
    return invocation.context(given.get("idempotency_key") or invocation.context().request_id)


def _show(invocation: Invocation, report: ChangeRowsReport) -> None:
    counts = {
        name: getattr(report, name)
        for name in ("inserted", "updated", "deleted", "unchanged", "missing")
        if getattr(report, name)
    }
    lines = {name: f"{count:,}" for name, count in counts.items()}
    verdict = _verdict(report.no_op, report.dry_run, report.version)
    invocation.output.record(report, {"dataset": report.dataset, **lines, "done": verdict})


def _verdict(no_op: bool, dry_run: bool, version: int) -> str:
    if dry_run:
        return "a dry run: nothing changed"
    return f"nothing to do, version {version}" if no_op else f"version {version}"
