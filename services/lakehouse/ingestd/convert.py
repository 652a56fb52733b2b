"""From the blocks of a source to typed Parquet: types over the whole file, memory flat.

Types are guessed from the first block and then held against every block while it is written. The
rare file whose later rows say otherwise is read once more to learn its types from all of it, and
written again. Against an existing schema nothing is guessed: what does not fit is drift.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from lakehouse.contracts.ingest import IngestWarning
from lakehouse.ingestd.deadletters import DEAD_LETTER_SCHEMA, Notes, all_dead, bury
from lakehouse.ingestd.deciding import resolve_key
from lakehouse.ingestd.limits import beyond, unreadable
from lakehouse.ingestd.misfits import Misfit, NotFitting
from lakehouse.ingestd.parquet_out import LocalParquet, ParquetOut
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.sources import Parsed, Source
from lakehouse.ingestd.typing_blocks import Surprise, Target, Typed, guess_column, type_block
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.table.infer import Guess, has_null, join
from lakehouse.table.types import arrow_schema, from_arrow, stored

R = TypeVar("R")
SAMPLE_ROWS: Final = 10_000
_WINDOW: Final = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What one conversion may use. ``check`` raises when it should stop (deadline, caller gone)."""

    folder: Path
    settings: IngestSettings
    pool: Executor
    check: Callable[[], None]
    source_name: str
    now_us: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Files in the spool, to be uploaded and committed together."""

    schema: Schema
    rows: int
    files: tuple[LocalParquet, ...]
    dead_letters: int
    dead_letter_files: tuple[LocalParquet, ...]
    warnings: tuple[IngestWarning, ...]
    sample: pa.Table  # the first rows, at most SAMPLE_ROWS
    key: tuple[str, ...]
    key_hashes: pa.ChunkedArray | None


def convert(source: Source, target: Target, work: Work) -> Outcome:
    """Read all of ``source`` into Parquet files. Blocking; spreads the parsing over ``work.pool``.

    Raises ``invalid`` if it cannot be read, has no columns, has nothing but dead letters, or does
    not fit a stated type; ``NotFitting`` where it does not fit ``target.schema``.
    """
    if target.schema is not None:
        return _write(source, target.schema, target, work)
    try:
        schema, unsettled = _infer(source, target, work, first_only=True)
        return _write(source, schema, replace(target, unsettled=unsettled), work)
    except Surprise:
        schema, _ = _infer(source, target, work, first_only=False)
    try:
        return _write(source, schema, target, work)
    except Surprise as error:
        raise unreadable(
            "a column has values that no type holds, and that have no text",
            "cast the column to another type, or to text, before ingesting it",
            format=source.format,
        ) from error


def _infer(
    source: Source, target: Target, work: Work, first_only: bool
) -> tuple[Schema, dict[str, pa.DataType]]:
    guesses: dict[str, Guess] = {}
    names: dict[str, str] = {}
    if source.columns is not None:
        names = {name_key(column.name): column.name for column in source.columns}
        guesses = dict.fromkeys(names, Guess())
    if first_only:
        blocks: Iterable[dict[str, Guess]] = _first_guesses(source, work)
    else:
        blocks = _in_order(work, lambda block: _guesses(source, source.parse(block)), source)
    for found in blocks:
        for name, guess in found.items():
            key = name_key(name)
            names.setdefault(key, name)
            guesses[key] = join(guesses.get(key, Guess()), guess)
    if source.columns is not None and not source.texts:
        # No row says otherwise: a column is what the file calls it.
        for field in source.columns:
            if has_null(guesses[name_key(field.name)].type):
                guesses[name_key(field.name)] = Guess(stored(field.type))
    columns = tuple(
        Column(index, names[key], target.stated.get(key) or from_arrow(stored(guess.type)))
        for index, (key, guess) in enumerate(guesses.items(), start=1)
    )
    unsettled = {
        key: guess.type
        for key, guess in guesses.items()
        if key not in target.stated and has_null(guess.type)
    }
    return Schema(1, columns), unsettled


def _first_guesses(source: Source, work: Work) -> Iterator[dict[str, Guess]]:
    blocks = source.blocks()
    line = source.first_line
    try:
        for block in blocks:
            work.check()
            parsed = source.parse(block)
            _fail(parsed, line)
            line += parsed.lines
            if parsed.batch.num_rows:
                yield _guesses(source, parsed)
                return
    finally:
        _close(blocks)


def _guesses(source: Source, parsed: Parsed) -> dict[str, Guess]:
    batch = parsed.batch
    return {
        name: guess_column(source, batch.column(at)) for at, name in enumerate(batch.schema.names)
    }


def _in_order(work: Work, function: Callable[[Any], R], source: Source) -> Iterator[R]:
    """``function`` of each block, in order, a few ahead in the pool."""
    waiting: deque[Future[R]] = deque()
    blocks = source.blocks()
    try:
        for block in blocks:
            work.check()
            waiting.append(work.pool.submit(function, block))
            if len(waiting) >= _WINDOW:
                yield waiting.popleft().result()
        while waiting:
            work.check()
            yield waiting.popleft().result()
    finally:
        _close(blocks)
        for future in waiting:
            future.cancel()
        for future in waiting:
            if not future.cancelled():
                future.exception()


def _fail(parsed: Parsed, line: int) -> None:
    if parsed.failure is not None:
        parsed.failure.fields["line"] = line
        raise parsed.failure


def _close(blocks: Iterator[Any]) -> None:
    close = getattr(blocks, "close", None)
    if close is not None:
        close()


def _write(source: Source, schema: Schema, target: Target, work: Work) -> Outcome:
    target = replace(target, key=resolve_key(target.key, schema.names()))
    out = ParquetOut(work.folder, "rows", schema, work.settings)
    dead = ParquetOut(work.folder, "dead", DEAD_LETTER_SCHEMA, work.settings)
    notes = Notes()
    line = source.first_line
    sample: list[pa.RecordBatch] = []
    hashes: list[pa.Array] = []
    if target.schema is not None:
        _check_columns(source, schema)

    as_text = frozenset(
        name_key(column.name) for column in schema.columns if column.type == "string"
    ) - frozenset(target.unsettled)

    def read_block(block: Any) -> Typed:
        return type_block(source, source.parse(block, as_text), schema, target)

    try:
        for typed in _in_order(work, read_block, source):
            _fail(typed.parsed, line)
            if typed.misfits:
                raise NotFitting(tuple(replace(m, line=m.line + line - 1) for m in typed.misfits))
            out.write(typed.batch, typed.rows_hash, typed.with_nan)
            bury(dead, typed.parsed.rejects, line, work.source_name, work.now_us)
            notes.add(typed.parsed.notes, line)
            line += typed.parsed.lines
            if sum(batch.num_rows for batch in sample) < SAMPLE_ROWS:
                sample.append(typed.batch.slice(0, SAMPLE_ROWS))
            if typed.key_hashes is not None:
                hashes.append(typed.key_hashes)
            _check_rows(out.rows, work.settings)
        files, dead_files = out.finish(), dead.finish()
    except BaseException:
        out.abandon()
        dead.abandon()
        raise
    if out.rows == 0 and dead.rows:
        raise all_dead(source.format, dead_files, dead.rows)
    if not schema.columns:
        raise unreadable("the file has no columns", "send objects with fields, or a header line")
    arrow = pa.Table.from_batches(sample) if sample else _no_rows(schema)
    return Outcome(
        schema=schema,
        rows=out.rows,
        files=tuple(files),
        dead_letters=dead.rows,
        dead_letter_files=tuple(dead_files),
        warnings=source.warnings + notes.all(),
        sample=arrow.slice(0, SAMPLE_ROWS),
        key=target.key,
        key_hashes=pa.chunked_array(hashes, pa.uint64()) if target.key else None,
    )


def _no_rows(schema: Schema) -> pa.Table:
    return arrow_schema(schema).empty_table()


def _check_rows(rows: int, settings: IngestSettings) -> None:
    if rows > settings.rows_max:
        raise beyond(
            "ingest.rows_max", settings.rows_max, "the file has too many rows", "split the file"
        )


def _check_columns(source: Source, schema: Schema) -> None:
    if source.columns is None:
        return
    known = {name_key(name) for name in schema.names()}
    extra = [field for field in source.columns if name_key(field.name) not in known]
    if extra:
        kind = "string" if source.texts else None
        raise NotFitting(
            tuple(Misfit(field.name, None, kind or from_arrow(field.type)) for field in extra)
        )
