"""Rows as Parquet files that every other reader accepts, with all the catalog wants to know.

Field ids, all columns nullable, no view types, microseconds, zstd, page checksums and statistics;
row groups of at most ``row_group_rows``; files of about ``file_bytes_target``.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.spool import disk_error
from lakehouse.model.dataset import ColumnStats
from lakehouse.model.schema import Schema
from lakehouse.table.rowhash import add_hashes, format_hash
from lakehouse.table.stats import file_stats
from lakehouse.table.types import arrow_schema, is_vector

_ZSTD_LEVEL: Final = 1
_SAMPLE_ROWS: Final = 8_192
_REPEATING: Final = 0.4
_HASH_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalParquet:
    """A finished file in the spool, not uploaded yet."""

    path: Path
    size_bytes: int
    rows: int
    sha256: str
    rows_hash: str
    stats: tuple[ColumnStats, ...]


class ParquetOut:
    """Writes batches of one schema into as many files as it takes. Used by one thread."""

    def __init__(self, folder: Path, name: str, schema: Schema, settings: IngestSettings) -> None:
        self._folder = folder
        self._name = name
        self._schema = schema
        self._arrow = arrow_schema(schema)
        self._settings = settings
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._waiting_hash = 0
        self._with_nan: set[int] = set()
        self._writer: pq.ParquetWriter | None = None
        self._file: pa.NativeFile | None = None
        self._path = folder / f"{name}-0.parquet"
        self._file_rows = 0
        self._file_hash = 0
        self.files: list[LocalParquet] = []
        self.rows = 0

    def write(self, batch: pa.RecordBatch, rows_hash: int, with_nan: frozenset[int]) -> None:
        """Add rows. ``with_nan``: ids of columns that hold NaN in this batch."""
        if batch.num_rows == 0:
            return
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        # Hashes are sums: those of waiting rows go to the file that the rows go to.
        self._waiting_hash = add_hashes(self._waiting_hash, rows_hash)
        self._with_nan |= with_nan
        self.rows += batch.num_rows
        settings = self._settings
        if (
            self._waiting_rows >= settings.row_group_rows
            or self._waiting_bytes >= settings.row_group_bytes
        ):
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        try:
            if self._writer is None:
                self._open(self._waiting[0])
            table = pa.Table.from_batches(self._waiting, schema=self._arrow)
            assert self._writer is not None
            self._writer.write_table(table, row_group_size=self._settings.row_group_rows)
        except OSError as error:
            raise disk_error(error, self._folder) from error
        self._file_rows += self._waiting_rows
        self._file_hash = add_hashes(self._file_hash, self._waiting_hash)
        self._waiting, self._waiting_rows = [], 0
        self._waiting_bytes = self._waiting_hash = 0
        assert self._file is not None
        if self._file.tell() >= self._settings.file_bytes_target:
            self._close_file()

    def _open(self, first: pa.RecordBatch) -> None:
        self._path = self._folder / f"{self._name}-{len(self.files)}.parquet"
        self._file = pa.OSFile(str(self._path), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            self._arrow,
            version="2.6",
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=_repeating(first),
            write_statistics=True,
            write_page_checksum=True,
            write_page_index=True,
        )

    def _close_file(self) -> None:
        assert self._writer is not None
        assert self._file is not None
        try:
            self._writer.close()
            self._file.close()
        except OSError as error:
            raise disk_error(error, self._folder) from error
        floats = {column.id for column in self._schema.columns if column.type == "float64"}
        footer = pq.read_metadata(str(self._path))
        self.files.append(
            LocalParquet(
                path=self._path,
                size_bytes=self._path.stat().st_size,
                rows=self._file_rows,
                sha256=_sha256(self._path),
                rows_hash=format_hash(self._file_hash),
                stats=file_stats(footer, self._schema, floats - self._with_nan),
            )
        )
        self._writer = self._file = None
        self._file_rows = self._file_hash = 0
        self._with_nan = set()

    def finish(self) -> list[LocalParquet]:
        """Flush what waits and close; the files in order of their rows."""
        self._flush()
        if self._writer is not None:
            self._close_file()
        return self.files

    def abandon(self) -> None:
        """Stop without a result: close and remove what was written."""
        # A writer that is not closed would write its footer when it is collected, and one whose
        # closing failed (a full disk) would try again.
        if self._writer is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._writer.close()
            self._writer.is_open = False
        if self._file is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._file.close()
        self._writer = self._file = None
        self._waiting = []
        for path in self._folder.glob(f"{self._name}-*.parquet"):
            path.unlink(missing_ok=True)


def _repeating(batch: pa.RecordBatch) -> list[str] | bool:
    """Columns for which a dictionary pays, by the first rows: elsewhere it is built in vain."""
    head = batch.slice(0, _SAMPLE_ROWS)
    vectors = [field.name for field in head.schema if is_vector(field.type)]
    if any(pat.is_nested(field.type) and field.name not in vectors for field in head.schema):
        return True
    if head.num_rows < _SAMPLE_ROWS:
        return [name for name in head.schema.names if name not in vectors] if vectors else True
    return [
        field.name
        for field, values in zip(head.schema, head.columns, strict=True)
        if field.name not in vectors
        and pc.count_distinct(values, mode="all").as_py() <= _SAMPLE_ROWS * _REPEATING
    ]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
