"""What does not fit a schema, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.model.schema import Schema


@dataclass(frozen=True, slots=True)
class Misfit:
    """One value that does not fit its column's type, or (``wanted`` None) an unknown column."""

    column: str
    wanted: str | None
    found: str
    value: str = ""
    line: int = 0


class NotFitting(Exception):
    """The rows do not fit the types they are held against; the caller knows whose types."""

    def __init__(self, misfits: tuple[Misfit, ...]) -> None:
        super().__init__("rows do not fit")
        self.misfits = misfits


def drift(dataset: str, schema: Schema, error: NotFitting) -> LakehouseError:
    """``conflict``: the file drifted from the dataset's schema; a diff and samples with lines."""
    known = {column.name: column.type for column in schema.columns}
    seen: dict[str, dict[str, FieldValue]] = {}
    for misfit in error.misfits:
        seen.setdefault(
            misfit.column,
            {
                "name": misfit.column,
                "old_type": known.get(misfit.column),
                "new_type": misfit.found,
            },
        )
    return LakehouseError(
        ErrorKind.CONFLICT,
        "the file does not fit the schema of the dataset",
        dataset=dataset,
        diff=list(seen.values()),
        samples=_samples(error),
        hint="correct the file, ingest it under another name, or drop the dataset first",
    )


def stated_wrong(error: NotFitting) -> LakehouseError:
    """``invalid``: a type that the caller stated does not fit the column."""
    first = error.misfits[0]
    return LakehouseError(
        ErrorKind.INVALID,
        "a column does not fit the type stated for it",
        column=first.column,
        type_text=first.wanted,
        samples=_samples(error),
        hint="state another type, or leave it to be inferred",
    )


def _samples(error: NotFitting) -> list[FieldValue]:
    return [
        {"column": misfit.column, "value": misfit.value, "line": misfit.line}
        for misfit in error.misfits[:20]
        if misfit.line
    ]
