"""Objects under compaction as batches of rows under the dataset's schema, checked as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction.balance import (
    Balance,
    check_told,
    of_keys,
    of_rows,
    same_values,
)
from lakehouse.ingestd.rows.reading import under_schema
from lakehouse.model.dataset import KEYS, DataFile
from lakehouse.model.schema import Schema

__all__ = ["Input", "rows_a_batch"]

_BATCH_ROWS = 65_536
_BATCH_ROWS_MIN = 256


@dataclass(frozen=True, slots=True)
class Input:
    """A verified local copy of a file. ``written``: the schema that it was written with; ``schema``
    the dataset's, which its rows are given under."""

    file: DataFile
    path: str
    written: Schema
    schema: Schema

    @property
    def exact(self) -> bool:
        """Whether rows hash alike under both schemas."""
        return same_values(self.written, self.schema)

    def table(self) -> tuple[pa.Table, Balance]:
        """All of it at once, as ``batches``."""
        table = _whole(self.path)
        if self.file.content == KEYS:
            written = balance = of_keys(table)
        else:
            table, written, balance = self._measured(table)
        check_told(self.file, written)
        return table, balance

    def batches(self, bytes_max: int) -> Iterator[tuple[pa.Table, Balance]]:
        """Rows, or keys as they are, in pieces of about ``bytes_max``, each with its balance under
        the dataset's schema; raises ``corrupt`` at the end if it was not what the catalog says."""
        total = Balance()
        with _opened(self.path) as file:
            for batch in file.iter_batches(batch_size=rows_a_batch(file, bytes_max)):
                piece = pa.Table.from_batches([batch])
                if self.file.content == KEYS:
                    table, written = piece, of_keys(piece)
                    balance = written
                else:
                    table, written, balance = self._measured(piece)
                total += written
                yield table, balance
        check_told(self.file, total)

    def key_batches(self, columns: list[str]) -> Iterator[pa.Table]:
        """The key columns alone, for a sample; nothing is checked."""
        names = {column.id: column.name for column in self.written.columns}
        wanted = [column for column in self.schema.columns if column.name in columns]
        there = [names[column.id] for column in wanted]
        with _opened(self.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=there):
                table = under_schema(pa.Table.from_batches([batch]), self.written, self.schema)
                yield table.select(columns)

    def _measured(self, piece: pa.Table) -> tuple[pa.Table, Balance, Balance]:
        """Rows under the dataset's schema; their balance as written, and under that schema."""
        rows = under_schema(piece, self.written, self.schema)
        if self.exact:
            balance = of_rows(piece, self.written)
            return rows, balance, balance
        written = of_rows(piece, self.written) if self.file.rows_hash else Balance(piece.num_rows)
        return rows, written, of_rows(rows, self.schema)


def rows_a_batch(file: pq.ParquetFile, bytes_max: int) -> int:
    """Rows that take about ``bytes_max`` in memory, a power of two in [256, 65536]."""
    meta = file.metadata
    each = max(1, sum(meta.row_group(at).total_byte_size for at in range(meta.num_row_groups)))
    rows = bytes_max * max(1, meta.num_rows) // each
    bits: int = max(_BATCH_ROWS_MIN, min(_BATCH_ROWS, rows)).bit_length()
    return 1 << (bits - 1)


def _opened(path: str) -> pq.ParquetFile:
    return _read(path, lambda: pq.ParquetFile(path))


def _whole(path: str) -> pa.Table:
    return _read(path, lambda: pq.ParquetFile(path).read())


def _read(path: str, read: Callable[[], pa.Table]) -> pa.Table:
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT, "an object cannot be read as Parquet", path=path, reason=str(error)
        ) from error
