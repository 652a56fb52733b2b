"""Objects under compaction as batches of rows under the dataset's schema, checked as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction.balance import (
    MASK,
    Balance,
    check_told,
    of_keys,
    of_rows,
    same_values,
)
from lakehouse.ingestd.rows.reading import under_schema
from lakehouse.model.dataset import KEYS, DataFile
from lakehouse.model.schema import Schema
from lakehouse.table.keys import ROW_HASH
from lakehouse.table.merge import Layer
from lakehouse.table.rowhash import hash_each

__all__ = ["Input", "Stack", "opened", "rows_a_batch", "stacks"]

_BATCH_ROWS = 65_536
_BATCH_ROWS_MIN = 256
_BUFFER_BYTES = 65_536


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

    def batches(self, bytes_max: int) -> Iterator[tuple[pa.Table, Balance]]:
        """Rows, or keys as they are, in pieces of about ``bytes_max``, each with its balance under
        the dataset's schema; raises ``corrupt`` at the end if it was not what the catalog says."""
        total = Balance()
        with opened(self.path) as file:
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
        with opened(self.path) as file:
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


@dataclass(frozen=True, slots=True)
class Stack:
    """Whole files one after the other, under the dataset's schema (keys as they are), and their
    balance together; checked."""

    inputs: tuple[Input, ...]
    table: pa.Table
    balance: Balance

    @property
    def content(self) -> str:
        return self.inputs[0].file.content

    def seqs(self) -> pa.Array:
        """The seq of each row's file."""
        files = [one.file for one in self.inputs]
        return pa.concat_arrays([pa.repeat(pa.scalar(f.seq, pa.int64()), f.rows) for f in files])

    def layers(self) -> Iterator[Layer]:
        """File by file."""
        start = 0
        for one in self.inputs:
            yield Layer(one.file.seq, self.table.slice(start, one.file.rows))
            start += one.file.rows


def stacks(inputs: Sequence[Input]) -> Iterator[Stack]:
    """Small files, read and checked together where they follow one another and were written alike:
    what a file costs counts here, not what its rows cost. Raises ``corrupt`` as ``batches``."""
    for _, group in groupby(inputs, key=lambda one: (one.file.content, one.file.schema_id)):
        alike = tuple(group)
        tables = [_whole(one.path) for one in alike]
        for one, table in zip(alike, tables, strict=True):
            check_told(replace(one.file, rows_hash=""), Balance(table.num_rows))
        whole = pa.concat_tables(tables, promote_options="default").combine_chunks()
        first = alike[0]
        if first.file.content == KEYS:
            hashes = whole.column(ROW_HASH)
        else:
            hashes = _hashes(whole, first.written)
        total = Balance()
        start = 0
        for one in alike:
            sums = pc.sum(hashes.slice(start, one.file.rows), min_count=0).as_py()
            balance = Balance(one.file.rows, sums & MASK)
            check_told(one.file, balance)
            total += balance
            start += one.file.rows
        if first.file.content != KEYS:
            whole = under_schema(whole, first.written, first.schema)
            total = total if first.exact else of_rows(whole, first.schema)
        yield Stack(alike, whole, total)


def _hashes(table: pa.Table, schema: Schema) -> pa.ChunkedArray:
    chunks = [hash_each(batch, schema) for batch in table.to_batches()]
    return pa.chunked_array(chunks, pa.uint64())


def rows_a_batch(file: pq.ParquetFile, bytes_max: int) -> int:
    """Rows that take about ``bytes_max`` in memory, a power of two in [256, 65536]."""
    meta = file.metadata
    each = max(1, sum(meta.row_group(at).total_byte_size for at in range(meta.num_row_groups)))
    rows = bytes_max * max(1, meta.num_rows) // each
    bits: int = max(_BATCH_ROWS_MIN, min(_BATCH_ROWS, rows)).bit_length()
    return 1 << (bits - 1)


def opened(path: str, *, checked: bool = False) -> pq.ParquetFile:
    """A file to be read in batches; ``checked``: by the checksums of its pages, too. Raises
    ``corrupt`` for one that is no Parquet."""

    # Without a buffer a row group's columns are all there at once, as they are in the file.
    def open_() -> pq.ParquetFile:
        return pq.ParquetFile(
            path,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=checked,
        )

    return _read(path, open_)


def _whole(path: str) -> pa.Table:
    def read() -> pa.Table:
        # Threads for the columns of a small file cost more than they spare.
        with pq.ParquetFile(path, pre_buffer=False) as parquet:
            return parquet.read(use_threads=False)

    return _read(path, read)


def _read(path: str, read: Callable[[], pa.Table]) -> pa.Table:
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT, "an object cannot be read as Parquet", path=path, reason=str(error)
        ) from error
