"""``lakehouse sql``: one SELECT, as a table or in a format for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lakehouse.cli.calls import Invocation, node_command
from lakehouse.cli.output import counted
from lakehouse.cli.points import point
from lakehouse.errors import ErrorKind, LakehouseError

if TYPE_CHECKING:
    from lakehouse.contracts.catalog import AsOf, Pin
    from lakehouse.contracts.query import QueryHeader, QueryRequest, QueryStream

_ROWS_SHOWN: Final = 200
_FILE_FORMATS: Final = ("json", "ndjson", "csv", "parquet", "arrow")
_BY_ENDING: Final = {"jsonl": "ndjson", "arrows": "arrow"}


@click.command()
@click.argument("statement", required=False)
@click.option("-f", "--file", "file", type=click.Path(path_type=Path), help="Read it from a file.")
@click.option(
    "--format",
    "format_",
    default="",
    help="Of the result  [default: table, or as the ending of --output says]",
    type=click.Choice(["", "table", "json", "ndjson", "csv", "parquet", "arrow"]),
    metavar="[table|json|ndjson|csv|parquet|arrow]",
)
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Write it there.")
@click.option(
    "--engine",
    default="auto",
    type=click.Choice(["auto", "datafusion", "duckdb"]),
    show_default=True,
    help="Answers are the same on both.",
)
@click.option(
    "--as-of",
    "as_of",
    multiple=True,
    metavar="VERSION|TIME|tag:NAME|DATASET=..",
    help="Read the past: a store version, an RFC 3339 time, a tag, or one dataset at one.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="JSON",
    help="For $1, $2, ...: JSON, or text as it is; repeatable.",
)
@click.option("--timeout", type=float, help="Seconds the query may take.")
@click.option(
    "--rows", "rows_shown", default=_ROWS_SHOWN, show_default=True, help="Rows that a table shows."
)
@node_command
async def command(invocation: Invocation, statement: str | None, **given: Any) -> None:
    """Run one SELECT over a pinned version of the store.

    Without STATEMENT it is read from standard input. `--json` is the same as `--format json`.
    """
    sql = _statement(statement, given["file"])
    form = "json" if invocation.output.as_json else _form(given["format_"], given["target"])
    async with invocation.clients() as clients:
        stream = await clients.query.run(invocation.context(), _request(sql, form, given))
        if stream.header.served_from:
            # Not among the rows: those may go to a pipe.
            places = ", ".join(stream.header.served_from)
            sys.stderr.write(f"note: a bucket did not answer; served from {places}\n")
        if form == "table":
            await show_table(invocation, stream, given["rows_shown"])
        else:
            await _copy(stream, form, given["target"])


def _statement(given: str | None, file: Path | None) -> str:
    if given and given != "-":
        return given
    try:
        return file.read_text() if file else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the statement cannot be read",
            path=str(file or "-"),
            reason=getattr(error, "strerror", None) or "it is not UTF-8",
        ) from error


def _form(given: str, target: Path | None) -> str:
    """The format of the result, which for a file its ending may say."""
    if target is None:
        return given or "table"
    ending = target.suffix.lower().removeprefix(".")
    form = given or _BY_ENDING.get(ending, ending)
    if form not in _FILE_FORMATS:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the format of the output file is not known",
            path=str(target),
            hint=f"end its name in, or give with --format, one of {', '.join(_FILE_FORMATS)}",
        )
    return form


def _request(sql: str, form: str, given: dict[str, Any]) -> QueryRequest:
    from lakehouse.contracts.query import Engine, QueryLimits, QueryRequest, ResultFormat

    as_of, pins = _past(given["as_of"])
    params = [_param(text) for text in given["params"]]
    return QueryRequest(
        sql=sql,
        params_json=json.dumps(params) if params else "",
        engine=Engine(given["engine"]),
        as_of=as_of,
        pins=pins,
        limits=QueryLimits(timeout_seconds=given["timeout"]),
        format=ResultFormat.NDJSON if form == "table" else ResultFormat(form),
    )


def _param(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _past(given: tuple[str, ...]) -> tuple[AsOf, tuple[Pin, ...]]:
    from lakehouse.contracts.catalog import AsOf, Pin

    whole, pins = AsOf(), []
    for text in given:
        name, equals, at = text.rpartition("=")
        if equals:
            pins.append(Pin(name, point(at)))
        else:
            whole = point(at)
    return whole, tuple(pins)


async def show_table(invocation: Invocation, stream: QueryStream, rows_max: int) -> None:
    """The first ``rows_max`` rows of an NDJSON result as a table, then what was read."""
    names = [column.name for column in stream.header.columns]
    rows: list[list[object]] = []
    more = False
    async for line in _lines(stream.chunks):
        row = json.loads(line)
        _raise_if_error(row, stream.header)
        if len(rows) == rows_max:
            more = True
            break
        rows.append([row.get(name) for name in names])
    if more:
        await stream.chunks.aclose()  # type: ignore[attr-defined]
    invocation.output.table(names, rows)
    shown = ("the first " if more else "") + counted(len(rows), "row")
    versions = ", ".join(f"{pin.dataset}@{pin.version}" for pin in stream.header.versions)
    invocation.output.say(
        f"{shown}, {stream.header.engine.value}, version {stream.header.version}"
        + (f" ({versions})" if versions else ""),
        "dim",
    )


def _raise_if_error(row: Any, header: QueryHeader) -> None:
    """NDJSON that fails midway ends with a line ``{"error": {...}}``."""
    is_column = any(column.name == "error" for column in header.columns)
    if not is_column and isinstance(row, dict) and set(row) == {"error"}:
        problem = dict(row["error"])
        kind = ErrorKind(problem.pop("kind", ErrorKind.INTERNAL.value))
        message = problem.pop("detail", None) or problem.pop("message", "the query failed")
        raise LakehouseError(kind, str(message))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
    if rest:
        yield rest


async def _copy(stream: QueryStream, form: str, target: Path | None) -> None:
    if target is None and form in ("parquet", "arrow") and sys.stdout.isatty():
        raise LakehouseError(
            ErrorKind.INVALID, f"{form} is not for a terminal", hint="name a file with --output"
        )
    try:
        with target.open("wb") if target else nullcontext(sys.stdout.buffer) as sink:
            async for chunk in stream.chunks:
                sink.write(chunk)
            sink.flush()
    except OSError as error:
        if target is None:
            raise
        raise LakehouseError(
            ErrorKind.INVALID,
            "the output file cannot be written",
            path=str(target),
            reason=(error.strerror or "").lower(),
        ) from error
    if target is None and form == "json" and sys.stdout.isatty():
        sys.stdout.write("\n")
