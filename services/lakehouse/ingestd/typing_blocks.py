"""One block under the types of a schema: values that fit, or what does not. Thread-safe, pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.ingestd.misfits import Misfit
from lakehouse.ingestd.sources import Parsed, Source
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.table.codec import fit, guess_values, misfit_values
from lakehouse.table.infer import Guess, guess_text, join
from lakehouse.table.rowhash import hash_each
from lakehouse.table.types import arrow_schema, from_arrow, to_arrow


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


class Surprise(Exception):
    """A block does not fit the types guessed from the first one."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A block as the schema wants it; with ``misfits`` the batch has nulls in their place.

    ``rows_hash`` is its share of the file's, ``with_nan`` the ids of columns that hold NaN.
    """

    batch: pa.RecordBatch
    rows_hash: int
    with_nan: frozenset[int]
    parsed: Parsed
    misfits: tuple[Misfit, ...]
    key_hashes: pa.Array | None


def guess_column(source: Source, values: pa.Array) -> Guess:
    """What a column of one block may be, by the rules of its format."""
    if source.texts:
        return guess_text(values, source.null_texts)
    return guess_values(values, source.texts_are_dates)


def _shows_more(source: Source, values: pa.Array, known: pa.DataType) -> bool:
    return bool(join(Guess(known), guess_column(source, values)).type != known)


def type_block(source: Source, parsed: Parsed, schema: Schema, target: Target) -> Typed:
    """``parsed`` under ``schema``; raises ``Surprise`` where the schema is a guess that fails."""
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
            raise Surprise
        typed = fit(values, column.type, null_texts)
        if typed is None:
            if inferring and name_key(column.name) not in target.stated:
                raise Surprise
            misfits += _describe(values, column, null_texts, parsed)
            typed = pa.nulls(batch.num_rows, to_arrow(column.type))
        elif column.type == "float64" and not source.texts and pc.any(pc.is_nan(typed)).as_py():
            with_nan.add(column.id)
        arrays.append(typed)
    if at and inferring:
        raise Surprise
    misfits += [_unknown(batch, index) for index in at.values()]

    typed_batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(schema))
    each = hash_each(typed_batch, schema) if typed_batch.num_rows else pa.array([], pa.uint64())
    return Typed(
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
