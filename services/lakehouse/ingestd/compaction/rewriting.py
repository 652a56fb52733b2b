"""Major compaction: all rows that can be seen, sorted by key, in bounded memory.

Rows and keys are put apart by ranges of the key into local files, each of which fits into memory
(one that does not is put apart again); then range by range the hidden rows go, the rest is sorted
and written. What is written is read again and counted. Linear in the data: each row is read, put
apart, written and read once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.ingestd.compaction.balance import Balance, check_same, of_rows
from lakehouse.ingestd.compaction.folding import sorted_by
from lakehouse.ingestd.compaction.inputs import Input, opened, rows_a_batch, stacks
from lakehouse.ingestd.compaction.settings import CompactionSettings
from lakehouse.ingestd.compaction.spilling import (
    PARTS_MAX,
    Budget,
    Ranges,
    Spill,
    bounds_of,
)
from lakehouse.ingestd.parquet_out import LocalParquet, ParquetOut
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.model.dataset import KEYS, DataFile, Dataset
from lakehouse.table.keys import ROW_HASH, distinct, match
from lakehouse.table.merge import SEQ
from lakehouse.table.rowhash import rows_hash
from lakehouse.table.types import arrow_schema

__all__ = ["Concatenation", "Rewrite", "Scratch"]

_SAMPLE_ROWS: Final = 65_536
_DEPTH_MAX: Final = 4
_WRITE_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where a compaction works, and with what."""

    folder: Path
    settings: CompactionSettings
    parquet: IngestSettings
    budget: Budget

    def out(self, dataset: Dataset) -> ParquetOut:
        """Files of about ``file_bytes_target``, row groups within the memory that there is."""
        settings = replace(
            self.parquet,
            file_bytes_target=self.settings.file_bytes_target,
            row_group_bytes=min(self.parquet.row_group_bytes, self.settings.memory_bytes // 8),
        )
        return ParquetOut(self.folder, "out", dataset.schema, settings)


class _Writing:
    """Rows on their way into files, which are read again at the end."""

    def __init__(self, scratch: Scratch, dataset: Dataset) -> None:
        self._scratch = scratch
        self._dataset = dataset
        self._out = scratch.out(dataset)
        self._floats = [c for c in dataset.schema.columns if c.type == "float64"]

    def write(self, table: pa.Table) -> None:
        for batch in table.to_batches(max_chunksize=_WRITE_ROWS):
            self._scratch.budget.check()
            values = {c.id: batch.column(c.name) for c in self._floats}
            with_nan = frozenset(at for at, v in values.items() if pc.any(pc.is_nan(v)).as_py())
            # The hash is that of what is read again.
            self._out.write(batch, 0, with_nan)

    def finish(self) -> tuple[list[LocalParquet], Balance]:
        """The files, with the hash of what is in them, and what they hold together."""
        files = []
        total = Balance()
        for local in self._out.finish():
            self._scratch.budget.take(local.size_bytes)
            read = self._read(local)
            total += read
            files.append(replace(local, rows_hash=read.hash_text))
        return files, total

    def abandon(self) -> None:
        self._out.abandon()

    def _read(self, local: LocalParquet) -> Balance:
        schema = self._dataset.schema
        total = Balance()
        with opened(str(local.path), checked=True) as file:
            rows = rows_a_batch(file, self._scratch.settings.memory_bytes // 8)
            for batch in file.iter_batches(batch_size=rows):
                self._scratch.budget.check()
                total += Balance(batch.num_rows, rows_hash(batch, schema))
        return total


class Concatenation:
    """Small files of a dataset without keys of hidden rows, one after the other."""

    def __init__(self, scratch: Scratch, dataset: Dataset) -> None:
        self._scratch = scratch
        self._dataset = dataset
        self._writing = _Writing(scratch, dataset)
        self._read = Balance()

    def take(self, inputs: Sequence[Input]) -> None:
        """Add all rows of files. Raises ``corrupt`` if they are not what the catalog says."""
        if len(inputs) > 1:
            for stack in stacks(inputs):
                self._add(stack.table, stack.balance)
            return
        for table, balance in inputs[0].batches(self._scratch.settings.memory_bytes // 8):
            self._add(table, balance)

    def _add(self, table: pa.Table, balance: Balance) -> None:
        self._read += balance
        self._writing.write(table)

    def finish(self) -> list[LocalParquet]:
        """The files. Raises ``corrupt`` if they hold other rows than were read."""
        files, written = self._writing.finish()
        check_same(self._dataset.name, "the rows written are others", self._read, written)
        return files

    def abandon(self) -> None:
        self._writing.abandon()


class Rewrite:
    """``sample`` each file with rows, ``begin``, ``take`` each file, ``finish``. In one thread at a
    time."""

    def __init__(self, scratch: Scratch, dataset: Dataset, inputs: Sequence[DataFile]) -> None:
        self._scratch = scratch
        self._dataset = dataset
        self._key = list(dataset.primary_key)
        rows = sum(file.rows for file in inputs if file.content != KEYS)
        self._stride = max(1, rows // _SAMPLE_ROWS)
        self._sample: list[pa.Table] = []
        self._decoded_bytes = 0
        self._writing = _Writing(scratch, dataset)
        self._rows: Spill | None = None
        self._keys: Spill | None = None
        self._read = Balance()
        self._told = Balance()
        self._hidden = Balance()
        self._exact = True

    @property
    def _part_bytes(self) -> int:
        # A part is there as read and as sorted, and the ones before it wait for their row group;
        # and half as much again may be in it.
        return max(1, self._scratch.settings.memory_bytes // 8)

    def sample(self, one: Input) -> None:
        """Look at every so-manieth key of a file with rows."""
        with opened(one.path) as file:
            meta = file.metadata
            groups = [meta.row_group(at).total_byte_size for at in range(meta.num_row_groups)]
            # Values that repeat are stored once and are many in memory.
            fixed = meta.num_rows * 8 * len(one.schema.columns)
            self._decoded_bytes += max(sum(groups), fixed)
        skip = 0
        for table in one.key_batches(self._key):
            self._scratch.budget.check()
            at = range(skip, table.num_rows, self._stride)
            self._sample.append(table.take(pa.array(at, pa.int64())))
            skip = (skip - table.num_rows) % self._stride
        if len(self._sample) > PARTS_MAX:
            self._sample = [pa.concat_tables(self._sample).combine_chunks()]

    def begin(self) -> None:
        """Settle the ranges."""
        columns = arrow_schema(self._dataset.schema)
        none = pa.schema([columns.field(name) for name in self._key]).empty_table()
        sample = pa.concat_tables([none, *self._sample]).combine_chunks()
        self._sample = []
        parts = min(PARTS_MAX, 1 + 2 * self._decoded_bytes // self._part_bytes)
        ranges = Ranges(bounds_of(sample, self._key, parts), self._key)
        self._rows, self._keys = self._spills("0", ranges)

    def take(self, inputs: Sequence[Input]) -> None:
        """Put rows or keys apart: of one file, or of small ones together. Raises ``corrupt`` as
        ``Input``."""
        self._exact = self._exact and all(one.exact for one in inputs)
        if len(inputs) > 1:
            for stack in stacks(inputs):
                self._put(stack.content, stack.table, stack.seqs(), stack.balance)
            return
        chunk = self._scratch.settings.memory_bytes // 8
        file = inputs[0].file
        pending: list[pa.Table] = []
        total = Balance()
        size = 0
        for table, balance in inputs[0].batches(chunk // 4):
            pending.append(table)
            total += balance
            size += table.nbytes
            if size >= chunk:
                self._put_seq(file, pending, total)
                pending, total, size = [], Balance(), 0
        if pending:
            self._put_seq(file, pending, total)

    def _put_seq(self, file: DataFile, pending: list[pa.Table], balance: Balance) -> None:
        table = pa.concat_tables(pending).combine_chunks()
        seqs = pa.repeat(pa.scalar(file.seq, pa.int64()), table.num_rows)
        self._put(file.content, table, seqs, balance)

    def _put(self, content: str, table: pa.Table, seqs: pa.Array, balance: Balance) -> None:
        assert self._rows is not None
        assert self._keys is not None
        seq = pa.field(SEQ, pa.int64())
        if content == KEYS:
            self._told += balance
            keys = table.select([*self._key, ROW_HASH])
            self._keys.add(keys.append_column(seq, seqs))
        else:
            self._read += balance
            self._rows.add(table.append_column(seq, seqs))

    def finish(self) -> list[LocalParquet]:
        """The files, sorted by key. Raises ``corrupt`` if they do not balance with what was read:
        all rows, less one for each entry of the keys."""
        assert self._rows is not None
        assert self._keys is not None
        for rows, keys in self._parts(self._rows, self._keys, 1):
            self._write(rows, keys)
        files, written = self._writing.finish()
        name = self._dataset.name
        hidden, told = self._hidden, self._told
        if not self._exact:
            # Keys tell the hash that a row had before its columns were widened.
            hidden, told = Balance(hidden.rows), Balance(told.rows)
        check_same(name, "the keys hide other rows than they say", told, hidden)
        check_same(name, "the rows written are others", self._read - self._hidden, written)
        return files

    def abandon(self) -> None:
        self._writing.abandon()

    def _spills(self, name: str, ranges: Ranges) -> tuple[Spill, Spill]:
        columns = arrow_schema(self._dataset.schema)
        seq = pa.field(SEQ, pa.int64())
        of_keys = [columns.field(name) for name in self._key]
        folder, budget = self._scratch.folder, self._scratch.budget
        rows = Spill(folder, f"rows-{name}", ranges, columns.append(seq), budget)
        hides = pa.schema([*of_keys, pa.field(ROW_HASH, pa.uint64()), seq])
        return rows, Spill(folder, f"keys-{name}", ranges, hides, budget)

    def _parts(self, rows: Spill, keys: Spill, depth: int) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Rows and keys range by range, rising; what is too large for memory is put apart again."""
        rows.sealed()
        keys.sealed()
        for part, size in enumerate(rows.sizes):
            whole = size + keys.sizes[part]
            if whole <= 2 * self._part_bytes or depth == _DEPTH_MAX:
                yield rows.read(part), keys.read(part)
                continue
            yield from self._apart(rows, keys, part, depth)

    def _apart(
        self, rows: Spill, keys: Spill, part: int, depth: int
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        count = min(PARTS_MAX, 1 + 2 * (rows.sizes[part] + keys.sizes[part]) // self._part_bytes)
        sample = pa.concat_tables(
            piece.select(self._key).take(
                pa.array(range(0, piece.num_rows, 1 + piece.num_rows // 256), pa.int64())
            )
            for piece in rows.peek(part)
        )
        ranges = Ranges(bounds_of(sample, self._key, count), self._key)
        finer_rows, finer_keys = self._spills(f"{depth}-{part}", ranges)
        for piece in rows.pieces(part):
            finer_rows.add(piece)
        for piece in keys.pieces(part):
            finer_keys.add(piece)
        yield from self._parts(finer_rows, finer_keys, depth + 1)

    def _write(self, rows: pa.Table, keys: pa.Table) -> None:
        hidden: pa.ChunkedArray | None = None
        last = rows.num_columns - 1  # the seq: a column of the dataset may be called as it is
        if keys.num_rows:
            newest = keys.take(pc.sort_indices(keys, sort_keys=[(SEQ, "descending")]))
            newest = newest.filter(distinct(newest, self._key)).combine_chunks()
            hiding = newest.column(SEQ).take(match(rows, newest, self._key))
            hidden = pc.fill_null(pc.greater(hiding, rows.column(last)), False)
            gone = rows.filter(hidden).remove_column(last).combine_chunks()
            self._hidden += of_rows(gone, self._dataset.schema)
        self._writing.write(sorted_by(rows.remove_column(last), self._key, hidden))
