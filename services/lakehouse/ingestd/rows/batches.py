"""A batch of whole rows, or of keys, as a table under a dataset's schema: all of it, or an error.

Read as an append reads a file: columns by name, what fits without loss. What JSON has no values for
is read as the rows API writes it: binary as base64, a map as an array of pairs.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.contracts.ingest import IngestOptions
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.convert import Work
from lakehouse.ingestd.limits import unreadable
from lakehouse.ingestd.misfits import Misfit, NotFitting, drift
from lakehouse.ingestd.reading import charset_in, open_source, sniff
from lakehouse.ingestd.rows.refusals import NAMED_MAX, BadRow, key_problems, refuse
from lakehouse.ingestd.sources import NotUtf8, Parsed, Source
from lakehouse.model.dataset import Dataset
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.table.codec import fit, misfit_values, plain
from lakehouse.table.infer import read_text
from lakehouse.table.types import arrow_schema, from_arrow, to_arrow
from lakehouse.table.values import from_json_texts, json_texts

__all__ = ["read_keys", "read_rows"]

_JSON: Final = ("json", "ndjson")
_FORMS: Final = re.compile(r"\b(?:binary|map|time)\b")


def read_rows(body: bytes, options: IngestOptions, dataset: Dataset, work: Work) -> pa.Table:
    """Whole rows, in their order, each key once. Blocking.

    Raises ``invalid`` naming each bad row (a value of the wrong type, a null key, a key that stands
    twice, a row that cannot be read) and for a key column that is missing; ``conflict`` with the
    diff for columns that the dataset does not have.
    """
    return _read(body, options, dataset, dataset.schema, work)


def read_keys(body: bytes, options: IngestOptions, dataset: Dataset, work: Work) -> pa.Table:
    """The key columns of a table that has no others. Blocking; raises as ``read_rows``."""
    by_name = {column.name: column for column in dataset.schema.columns}
    columns = tuple(by_name[name] for name in dataset.primary_key)
    return _read(body, options, dataset, Schema(dataset.schema.id, columns), work)


def _read(
    body: bytes, options: IngestOptions, dataset: Dataset, schema: Schema, work: Work
) -> pa.Table:
    if not body.strip():
        raise unreadable("the body is empty", "send rows, or an empty array for none")
    sniffed = sniff(body, options, work.settings)
    try:
        try:
            return _Batch(dataset, schema).read(open_source(sniffed, options, work), work)
        except NotUtf8:
            charset = charset_in(sniffed, work.settings)
            source = open_source(sniffed, options, work, charset)
            return _Batch(dataset, schema).read(source, work)
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        # What a reader could not foresee of the input; a mistake of ours has other types.
        raise unreadable(
            f"the values of the {sniffed.format.value} body cannot be converted",
            "cast what the reason names to another type, or send it as CSV",
            format=sniffed.format.value,
            reason=str(error).partition("\n")[0][:300] or type(error).__name__,
        ) from error


@dataclass(slots=True)
class _Batch:
    """A batch on its way: typed blocks so far, and what is wrong with them."""

    dataset: Dataset
    schema: Schema
    blocks: list[pa.RecordBatch] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    unknown: dict[str, Misfit] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    rows: int = 0

    def read(self, source: Source, work: Work) -> pa.Table:
        if source.columns is not None:
            kind = "string" if source.texts else None
            for known in source.columns:
                self._meet(known.name, kind or from_arrow(known.type))
            self._refuse_columns()
        as_text = frozenset(
            name_key(column.name)
            for column in self.schema.columns
            if _as_text(column, source.format)
        )
        line = source.first_line
        for block in source.blocks():
            work.check()
            parsed = source.parse(block, as_text)
            if parsed.failure is not None:
                parsed.failure.fields["line"] = line
                raise parsed.failure
            line += parsed.lines
            self._add(parsed, source)
        return self._finish()

    def _meet(self, name: str, found: str) -> None:
        self.named.add(name_key(name))
        if name_key(name) not in {name_key(one) for one in self.schema.names()}:
            self.unknown.setdefault(name, Misfit(name, None, found))

    def _refuse_columns(self) -> None:
        dataset = self.dataset
        if self.unknown:
            names = {name_key(one) for one in dataset.schema.names()}
            if all(name_key(one) in names for one in self.unknown):
                raise LakehouseError(
                    ErrorKind.INVALID,
                    "the keys have columns that are not in the key",
                    dataset=dataset.name,
                    columns=[*self.unknown],
                    primary_key=list(dataset.primary_key),
                    hint="send the key columns alone",
                )
            raise drift(dataset.name, dataset.schema, NotFitting(tuple(self.unknown.values())))
        missing = [one for one in dataset.primary_key if name_key(one) not in self.named]
        if missing:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the rows lack a key column",
                dataset=dataset.name,
                missing=[*missing],
                primary_key=list(dataset.primary_key),
                hint="every row of a batch has its whole key",
            )

    def _add(self, parsed: Parsed, source: Source) -> None:
        batch = parsed.batch
        numbers = _Numbers(parsed, self.rows)
        self.rows += batch.num_rows + len(parsed.rejects)
        for at, reject in enumerate(parsed.rejects[:NAMED_MAX]):
            self.bad.append(BadRow(numbers.of_reject(at), "", reject.raw, reject.reason))
        for name, kind in zip(batch.schema.names, batch.schema.types, strict=True):
            self._meet(name, "string" if source.texts else from_arrow(kind))
        if not batch.num_rows:
            return
        places = {name_key(name): index for index, name in enumerate(batch.schema.names)}
        arrays: list[pa.Array] = []
        for column in self.schema.columns:
            index = places.get(name_key(column.name))
            if index is None:
                arrays.append(pa.nulls(batch.num_rows, to_arrow(column.type)))
                continue
            typed, wrong = _typed(batch.column(index), column, source)
            self.bad += [
                BadRow(numbers.of_row(row), column.name, text, f"is no {column.type}")
                for row, text in wrong
            ]
            arrays.append(typed)
        self.blocks.append(pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(self.schema)))

    def _finish(self) -> pa.Table:
        if self.rows:
            self._refuse_columns()
        elif self.unknown:
            raise drift(
                self.dataset.name, self.dataset.schema, NotFitting(tuple(self.unknown.values()))
            )
        table = pa.Table.from_batches(self.blocks, schema=arrow_schema(self.schema))
        if not self.bad:
            # A value that is wrong stands as null here, and would be called a null key as well.
            self.bad += key_problems(table, self.dataset.schema, self.dataset.primary_key)
        if self.bad:
            raise refuse(self.dataset.name, self.bad)
        return table.combine_chunks()


class _Numbers:
    """Which row of the batch, from 1, something of a block is; one that is unreadable counts."""

    def __init__(self, parsed: Parsed, before: int) -> None:
        self._parsed = parsed
        self._before = before
        self._lost = [reject.line for reject in parsed.rejects]

    def of_row(self, row: int) -> int:
        lost = bisect_left(self._lost, self._parsed.line_of(row)) if self._lost else 0
        return self._before + row + 1 + lost

    def of_reject(self, at: int) -> int:
        rows = range(self._parsed.batch.num_rows)
        ahead = bisect_left(rows, self._lost[at], key=self._parsed.line_of)
        return self._before + ahead + at + 1


def _as_text(column: Column, source_format: str) -> bool:
    """Whether the text of a value says more than the value that JSON makes of it."""
    if column.type == "string":
        return True
    return source_format in _JSON and (column.type.startswith("decimal") or _has_form(column.type))


def _has_form(type_text: str) -> bool:
    """Whether JSON has no values of the type, so that the rows API has a form of its own."""
    return _FORMS.search(type_text) is not None


def _typed(
    values: pa.Array, column: Column, source: Source
) -> tuple[pa.Array, list[tuple[int, str]]]:
    """``values`` as the column wants them, and which do not fit, with their texts."""
    null_texts = source.null_texts if source.texts else None
    if source.format in _JSON and _has_form(column.type):
        typed, wrong = _from_json(values, column)
    else:
        typed, wrong = fit(values, column.type, null_texts), []
        if typed is None:
            wrong = misfit_values(values, column.type, null_texts, NAMED_MAX)
    if typed is not None:
        return typed, []
    texts = [(row, _shown(values[row])) for row in wrong]
    return pa.nulls(len(values), to_arrow(column.type)), texts


def _from_json(values: pa.Array, column: Column) -> tuple[pa.Array | None, list[int]]:
    """Values of types that JSON does not have: as the rows API writes them, or typed already."""
    values = plain(values)
    if not pat.is_string(values.type):
        typed = fit(values, column.type)
        return typed, [] if typed is not None else misfit_values(
            values, column.type, None, NAMED_MAX
        )
    # A nested value came as its JSON text, another as the contents of a string.
    texts = values
    if not pat.is_nested(to_arrow(column.type)):
        texts = json_texts(values, "string")
    try:
        return typed_texts(texts, column.type), []
    except LakehouseError:
        return None, wrong_texts(texts, column.type)


def typed_texts(texts: pa.Array, type_text: str) -> pa.Array:
    """JSON texts as values: ``from_json_texts``, but a number that no double is, is no double."""
    typed = from_json_texts(texts, type_text)
    if type_text == "float64":
        numbers = texts.filter(pc.invert(pc.starts_with(texts, '"')))
        if read_text(numbers.filter(pc.not_equal(numbers, "null")), "float64", ()) is None:
            raise unreadable("a number has more digits than a double", "send fewer digits")
    return typed


def wrong_texts(texts: pa.Array, type_text: str, limit: int = NAMED_MAX) -> list[int]:
    """Positions of the first ``limit`` JSON texts that are no ``type_text``, rising."""
    found: list[int] = []
    spans = [(0, len(texts))]
    while spans and len(found) < limit:
        start, end = spans.pop()
        try:
            typed_texts(texts.slice(start, end - start), type_text)
        except LakehouseError:
            if end - start == 1:
                found.append(start)
                continue
            middle = (start + end) // 2
            spans += [(middle, end), (start, middle)]
    return found


def _shown(value: Any) -> str:
    return str(value.as_py())


def column_named(schema: Schema, name: str) -> Column | None:
    """The column of that name, compared as names are."""
    wanted = name_key(name)
    return next((one for one in schema.columns if name_key(one.name) == wanted), None)


def key_schema(schema: Schema, key: Sequence[str]) -> Schema:
    """The columns of ``key``, in its order, as a schema."""
    by_name = {column.name: column for column in schema.columns}
    return Schema(schema.id, tuple(by_name[name] for name in key))
