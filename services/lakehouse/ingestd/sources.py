"""What every reader of a format offers to the conversion: blocks in order, parsed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from lakehouse.contracts.ingest import IngestWarning
from lakehouse.errors import LakehouseError


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not be read at all. ``line`` counts from 1 at the start of its block."""

    line: int
    reason: str
    raw: str


def _row_is_line(row: int) -> int:
    return row + 1


@dataclass(frozen=True, slots=True)
class Parsed:
    """One block as columns that are not typed yet.

    Attributes:
        lines: line ends in the block, so that the next one knows where it starts.
        line_of: the line, from 1 within the block, of a row (from 0); for messages.
        failure: the block ends the ingest; its ``line`` is filled in by who knows it.
        notes: warnings with lines relative to the block; equal codes and columns are summed up.
    """

    batch: pa.RecordBatch
    lines: int = 0
    rejects: tuple[Reject, ...] = ()
    notes: tuple[IngestWarning, ...] = ()
    line_of: Callable[[int], int] = field(default=_row_is_line)
    failure: LakehouseError | None = None


class NotUtf8(Exception):
    """The text is not UTF-8 though nobody said it was: the encoding is to be decided anew."""


class Source(Protocol):
    """One body in one format. ``blocks`` may be called again: it then reads from the start.

    Attributes:
        format: its name in reports.
        texts: True where values are texts without types (CSV); their nulls are ``null_texts``.
        texts_are_dates: where strings in a stated date form are dates (JSON has none of its own).
        first_line: the line the first block starts at, from 1.
        columns: known before any row is read; None where the rows tell (JSON).
    """

    format: str
    texts: bool
    texts_are_dates: bool
    null_texts: tuple[str, ...]
    first_line: int
    columns: pa.Schema | None
    warnings: tuple[IngestWarning, ...]

    def blocks(self) -> Iterator[Any]:
        """Pieces of the body, in order; called and iterated in one thread."""
        ...

    def parse(self, block: Any, as_text: frozenset[str] = frozenset()) -> Parsed:
        """Thread-safe; may run on several blocks at once.

        ``as_text``: columns (by ``name_key``) that become strings. A format whose values have a
        text of their own gives that; others give the values, which are then written as text.
        """
        ...
