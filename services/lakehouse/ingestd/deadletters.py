"""Rows that could not be read, as rows of a dataset of their own; and what was noted on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.contracts.ingest import IngestWarning
from lakehouse.errors import LakehouseError
from lakehouse.ingestd.limits import unreadable
from lakehouse.ingestd.parquet_out import LocalParquet, ParquetOut
from lakehouse.ingestd.sources import Reject
from lakehouse.model.schema import Column, Schema
from lakehouse.table.rowhash import hash_each
from lakehouse.table.types import arrow_schema

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


def bury(
    dead: ParquetOut, rejects: Sequence[Reject], line: int, source_name: str, now_us: int
) -> None:
    """Add the rejects of a block that starts at ``line``."""
    if not rejects:
        return
    count = len(rejects)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([reject.line + line - 1 for reject in rejects], pa.int64()),
            pa.array([reject.reason for reject in rejects], pa.string()),
            pa.array([reject.raw for reject in rejects], pa.string()),
            pa.array([source_name] * count, pa.string()),
            pa.array([now_us] * count, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        ],
        names=list(DEAD_LETTER_SCHEMA.names()),
    )
    each = hash_each(batch, DEAD_LETTER_SCHEMA)

    dead.write(
        pa.RecordBatch.from_arrays(batch.columns, schema=arrow_schema(DEAD_LETTER_SCHEMA)),
        pc.sum(each).as_py(),
        frozenset(),
    )


def all_dead(source_format: str, files: Sequence[LocalParquet], count: int) -> LakehouseError:
    """``invalid``: nothing could be read; shows the first rows and their reasons."""
    first = pq.read_table(str(files[0].path)).slice(0, 3).to_pylist()
    return unreadable(
        "no row of the file could be read",
        "check the delimiter, the quotes and the format; state them if they were guessed wrong",
        format=source_format,
        rows=count,
        first=[
            {"line": row["line"], "reason": row["reason"], "raw": row["raw"][:200]} for row in first
        ],
    )


class Notes:
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
