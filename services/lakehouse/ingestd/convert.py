"""From the blocks of a source to typed Parquet: types over the whole file, memory flat.

Types are guessed from the first block and then held against every block while it is written. The
rare file whose later rows say otherwise is read once more to learn its types from all of it, and
written again. Against an existing schema nothing is guessed: what does not fit is drift.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.ingest import IngestWarning
from lakehouse.ingestd.deciding import resolve_key
from lakehouse.ingestd.limits import beyond, unreadable
from lakehouse.ingestd.misfits import Misfit, NotFitting
from lakehouse.ingestd.parquet_out import LocalParquet, ParquetOut
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.sources import Parsed, Reject, Source
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.table.codec import fit, guess_values, misfit_values
from lakehouse.table.infer import Guess, guess_text, has_null, join
from lakehouse.table.rowhash import hash_each
from lakehouse.table.types import arrow_schema, from_arrow, to_arrow

R = TypeVar("R")
SAMPLE_ROWS: Final = 10_000
_WINDOW: Final = 3
DEAD_LETTER_SCHEMA: Final = Schema(
    1,
    (
        Column(1, "line", "int64"),
        Column(2, "reason", "string"),
        Column(3, "raw", "string"),
        Column(4, "source", "string"),
        Column(5, "ingested_at", "timestamptz"),
    ),
)


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
class Target:
    """What to make of the source.

    Attributes:
        schema: of the dataset that takes the rows; None to infer.
        stated: type texts by ``name_key``, over what is inferred.
        key: column names of the primary key, in any case.
        unsettled: by ``name_key``, types of columns of which the first block showed too little
            (only nulls, an empty list); a block that shows more is a surprise.
    """

    schema: Schema | None = None
    stated: dict[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    unsettled: dict[str, pa.DataType] = field(default_factory=dict)


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


class _Surprise(Exception):
    """A block does not fit the types guessed from the first one."""


@dataclass(frozen=True, slots=True)
class _Typed:
    batch: pa.RecordBatch
    rows_hash: int
    with_nan: frozenset[int]
    parsed: Parsed
    misfits: tuple[Misfit, ...]
    key_hashes: pa.Array | None


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
    except _Surprise:
        schema, _ = _infer(source, target, work, first_only=False)
        return _write(source, schema, target, work)


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
    columns = tuple(
        Column(index, names[key], target.stated.get(key) or from_arrow(guess.type))
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
    return {name: _guess(source, batch.column(at)) for at, name in enumerate(batch.schema.names)}


def _guess(source: Source, values: pa.Array) -> Guess:
    if source.texts:
        return guess_text(values, source.null_texts)
    return guess_values(values, source.texts_are_dates)


def _shows_more(source: Source, values: pa.Array, known: pa.DataType) -> bool:
    return bool(join(Guess(known), _guess(source, values)).type != known)


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
    notes = _Notes()
    line = source.first_line
    sample: list[pa.RecordBatch] = []
    hashes: list[pa.Array] = []
    if target.schema is not None:
        _check_columns(source, schema)

    def type_block(block: Any) -> _Typed:
        return _typed(source, source.parse(block), schema, target)

    try:
        for typed in _in_order(work, type_block, source):
            _fail(typed.parsed, line)
            if typed.misfits:
                raise NotFitting(tuple(replace(m, line=m.line + line - 1) for m in typed.misfits))
            out.write(typed.batch, typed.rows_hash, typed.with_nan)
            _bury(dead, typed.parsed.rejects, line, work)
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
        raise _all_dead(source, dead_files, dead.rows)
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


def _typed(source: Source, parsed: Parsed, schema: Schema, target: Target) -> _Typed:
    batch = parsed.batch
    null_texts = source.null_texts if source.texts else None
    at = {name_key(name): index for index, name in enumerate(batch.schema.names)}
    arrays: list[pa.Array] = []
    misfits: list[Misfit] = []
    with_nan: set[int] = set()
    inferring = target.schema is None
    for column in schema.columns:
        index = at.pop(name_key(column.name), None)
        values = pa.nulls(batch.num_rows) if index is None else batch.column(index)
        known = target.unsettled.get(name_key(column.name))
        if known is not None and _shows_more(source, values, known):
            raise _Surprise
        typed = fit(values, column.type, null_texts)
        if typed is None:
            if inferring and name_key(column.name) not in target.stated:
                raise _Surprise
            misfits += _describe(values, column, null_texts, parsed)
            typed = pa.nulls(batch.num_rows, to_arrow(column.type))
        elif column.type == "float64" and not source.texts and pc.any(pc.is_nan(typed)).as_py():
            with_nan.add(column.id)
        arrays.append(typed)
    if at and inferring:
        raise _Surprise
    misfits += [_unknown(batch, index) for index in at.values()]

    typed_batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(schema))
    each = hash_each(typed_batch, schema) if typed_batch.num_rows else pa.array([], pa.uint64())
    return _Typed(
        typed_batch,
        pc.sum(each, min_count=0).as_py() or 0,
        frozenset(with_nan),
        parsed,
        tuple(misfits),
        _key_hashes(typed_batch, schema, target.key) if target.key else None,
    )


def _key_hashes(batch: pa.RecordBatch, schema: Schema, key: tuple[str, ...]) -> pa.Array:
    """One hash a row over the key; null where a key column is null."""
    columns = tuple(column for column in schema.columns if column.name in key)
    hashed = hash_each(batch, Schema(1, columns))
    for column in columns:
        hashed = pc.if_else(
            pc.is_null(batch.column(column.name)), pa.scalar(None, pa.uint64()), hashed
        )
    return hashed


def _describe(
    values: pa.Array, column: Column, null_texts: tuple[str, ...] | None, parsed: Parsed
) -> list[Misfit]:
    rows = misfit_values(values, column.type, null_texts)
    return [
        Misfit(
            column.name,
            column.type,
            "string" if null_texts is not None else from_arrow(values.type),
            str(values[row].as_py())[:200],
            parsed.line_of(row),
        )
        for row in rows
    ]


def _unknown(batch: pa.RecordBatch, index: int) -> Misfit:
    column = batch.schema.field(index)
    return Misfit(column.name, None, from_arrow(column.type))


def _bury(dead: ParquetOut, rejects: Sequence[Reject], line: int, work: Work) -> None:
    if not rejects:
        return
    count = len(rejects)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([reject.line + line - 1 for reject in rejects], pa.int64()),
            pa.array([reject.reason for reject in rejects], pa.string()),
            pa.array([reject.raw for reject in rejects], pa.string()),
            pa.array([work.source_name] * count, pa.string()),
            pa.array([work.now_us] * count, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        ],
        names=list(DEAD_LETTER_SCHEMA.names()),
    )
    each = hash_each(batch, DEAD_LETTER_SCHEMA)

    dead.write(
        pa.RecordBatch.from_arrays(batch.columns, schema=arrow_schema(DEAD_LETTER_SCHEMA)),
        pc.sum(each).as_py(),
        frozenset(),
    )


def _all_dead(source: Source, files: Sequence[LocalParquet], count: int) -> Exception:
    import pyarrow.parquet as pq

    first = pq.read_table(str(files[0].path)).slice(0, 3).to_pylist()
    return unreadable(
        "no row of the file could be read",
        "check the delimiter, the quotes and the format; state them if they were guessed wrong",
        format=source.format,
        rows=count,
        first=[
            {"line": row["line"], "reason": row["reason"], "raw": row["raw"][:200]} for row in first
        ],
    )


class _Notes:
    """Warnings summed up by code and column, with the first line."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], IngestWarning] = {}

    def add(self, notes: Iterable[IngestWarning], line: int) -> None:
        for note in notes:
            at = None if note.line is None else note.line + line - 1
            known = self._found.get((note.code, note.column))
            self._found[note.code, note.column] = (
                replace(note, line=at)
                if known is None
                else replace(known, count=known.count + note.count)
            )

    def all(self) -> tuple[IngestWarning, ...]:
        return tuple(self._found.values())
