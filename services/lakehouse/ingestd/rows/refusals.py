"""What is wrong with a batch: every bad row is named, and nothing of the batch is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.model.schema import Schema
from lakehouse.table.keys import duplicates, entity_texts

__all__ = ["NAMED_MAX", "BadRow", "key_problems", "no_key", "refuse"]

NAMED_MAX: Final = 20
_VALUE_CHARS: Final = 100


@dataclass(frozen=True, slots=True)
class BadRow:
    """``row`` counts from 1 in the batch; ``column`` "" for a row that is bad as a whole."""

    row: int
    column: str
    value: str
    problem: str

    def told(self) -> dict[str, FieldValue]:
        """As a field of an error, the value shortened."""
        text = self.value
        short = text if len(text) <= _VALUE_CHARS else text[: _VALUE_CHARS - 1] + "…"
        return {"row": self.row, "column": self.column, "value": short, "problem": self.problem}


def refuse(dataset: str, bad: Sequence[BadRow], more: bool = False) -> LakehouseError:
    """``invalid`` with the first ``NAMED_MAX`` of ``bad``, in the order of the rows; ``more``: not
    all that are bad were looked for."""
    ordered = sorted(bad, key=lambda one: one.row)
    # The first as fields of its own, for who looks at one only.
    first = ordered[0]
    return LakehouseError(
        ErrorKind.INVALID,
        "some rows of the batch cannot be applied, so none was",
        dataset=dataset,
        row=first.row,
        column=first.column,
        problem=first.problem,
        rows=[one.told() for one in ordered[:NAMED_MAX]],
        count=len({one.row for one in ordered}),
        more=more or len(ordered) > NAMED_MAX,
        hint="correct the rows named and send the batch again",
    )


def key_problems(table: pa.Table, schema: Schema, key: Sequence[str]) -> list[BadRow]:
    """Rows whose key is null, or stands twice in the batch; at most ``NAMED_MAX`` of each."""
    bad: list[BadRow] = []
    for name in key:
        column = table.column(name)
        if column.null_count:
            rows = pc.indices_nonzero(pc.is_null(column)).slice(0, NAMED_MAX).to_pylist()
            bad += [BadRow(row + 1, name, "null", "the key is null") for row in rows]
    if bad:
        return bad
    groups = duplicates(table, key)[:NAMED_MAX]
    if groups:
        heads = table.take([group[0] for group in groups])
        texts = entity_texts(heads, schema, key).to_pylist()
        for text, group in zip(texts, groups, strict=True):
            others = f"the key is in row {group[0] + 1} too"
            rows = group[1 : NAMED_MAX + 1]
            bad += [BadRow(row + 1, ", ".join(key), text, others) for row in rows]
    return bad


def no_key(dataset: str) -> LakehouseError:
    """``invalid``: rows of a dataset without a primary key cannot be told apart."""
    return LakehouseError(
        ErrorKind.INVALID,
        "the dataset has no primary key, so its rows cannot be changed one by one",
        dataset=dataset,
        hint="declare a key for it, or ingest with mode=append or mode=replace",
    )
