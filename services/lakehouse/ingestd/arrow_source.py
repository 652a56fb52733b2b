"""Parquet and Arrow IPC: typed already, read in small batches, checked before they are believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from lakehouse.contracts.ingest import IngestWarning
from lakehouse.ingestd.convert import Work
from lakehouse.ingestd.decoded import Body, Decoded, read_all
from lakehouse.ingestd.dialect import unique_names
from lakehouse.ingestd.limits import beyond, unreadable
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.sources import Parsed

_COPY_BYTES: Final = 1 << 20
_BATCH_BYTES: Final = 16 << 20
_FIRST_ROWS: Final = 64
_BATCH_ROWS_MAX: Final = 65_536
_ARROW_FILE: Final = b"ARROW1"


class _TypedSource:
    """What both have in common: names, types, and a budget on what a small file may unfold to."""

    format = ""
    texts = False
    texts_are_dates = False
    null_texts: tuple[str, ...] = ()
    first_line = 1

    def __init__(self, body: Body, compression: str, work: Work) -> None:
        self._settings = work.settings
        self._body = body if compression == "none" else _unpack(body, compression, work)
        plain = self._body
        self._size = len(plain) if isinstance(plain, bytes) else plain.stat().st_size
        self.warnings: tuple[IngestWarning, ...] = ()
        self.columns: pa.Schema | None = None

    def _take_names(self, schema: pa.Schema) -> None:
        if len(schema) > self._settings.columns_max:
            raise beyond(
                "ingest.columns_max",
                self._settings.columns_max,
                "the file has too many columns",
                "send it as several datasets",
                columns=len(schema),
            )
        if not len(schema):
            raise unreadable("the file has no columns", "send a table with columns")
        names, warnings = unique_names(schema.names)
        self.warnings = tuple(warnings)
        self.columns = pa.schema(
            [(name, field.type) for name, field in zip(names, schema, strict=True)]
        )

    def parse(self, block: pa.RecordBatch, as_text: frozenset[str] = frozenset()) -> Parsed:
        batch = pa.RecordBatch.from_arrays(block.columns, schema=self.columns)
        return Parsed(batch, lines=batch.num_rows)

    def _checked(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        decoded = 0
        for batch in batches:
            for part in _in_parts(batch):
                # A row counts even where it holds nothing: a column of nulls has no bytes.
                decoded += _weight(part) + part.num_rows
                _check_unfolding(decoded, self._size, self._settings)
                yield part


def _in_parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices that stay small when they are unfolded."""
    for start in range(0, batch.num_rows, _BATCH_ROWS_MAX):
        waiting = [batch.slice(start, _BATCH_ROWS_MAX)]
        while waiting:
            part = waiting.pop()
            if part.num_rows > 1 and _weight(part) > 2 * _BATCH_BYTES:
                half = part.num_rows // 2
                waiting += [part.slice(half), part.slice(0, half)]
            else:
                yield part


def _weight(values: pa.RecordBatch | pa.Array) -> int:
    """Bytes of the values without dictionaries: a value counts wherever it is named."""
    if isinstance(values, pa.RecordBatch):
        return sum(_weight(column) for column in values.columns)
    arrow = values.type
    if pat.is_dictionary(arrow):
        entries = max(len(values.dictionary), 1)
        if pat.is_fixed_size_binary(arrow.value_type) or pat.is_primitive(arrow.value_type):
            return len(values) * (_weight(values.dictionary) // entries + 1)
        if not pat.is_nested(arrow.value_type):
            sizes = pc.binary_length(values.dictionary)
            return pc.sum(sizes.take(values.indices), min_count=0).as_py() or 0
        return len(values) * _weight(values.dictionary)
    if pat.is_struct(arrow):
        return sum(_weight(column) for column in values.flatten())
    if pat.is_list(arrow) or pat.is_large_list(arrow):
        return _weight(values.flatten()) + len(values) * 4
    return int(values.nbytes)


class ParquetSource(_TypedSource):
    """A Parquet file. Row numbers stand for lines in messages."""

    format = "parquet"

    def __init__(self, body: Body, compression: str, work: Work) -> None:
        super().__init__(body, compression, work)
        try:
            with self._open() as file:
                schema = file.schema_arrow
                self._groups = file.num_row_groups
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged("parquet", error) from error
        self._take_names(schema)

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(
            pa.BufferReader(self._body) if isinstance(self._body, bytes) else str(self._body),
            page_checksum_verification=True,
            thrift_string_size_limit=100 << 20,
            thrift_container_size_limit=10_000_000,
        )

    def blocks(self) -> Iterator[pa.RecordBatch]:
        try:
            with self._open() as file:
                yield from self._checked(self._batches(file))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged("parquet", error) from error

    def _batches(self, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        # A value of megabytes in a dictionary unfolds with every row that names it: each row
        # group is begun with few rows, and read on in batches that its rows' size allows.
        for group in range(self._groups):
            rows = min(_FIRST_ROWS, _BATCH_ROWS_MAX)
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                per_row = max(_weight(batch) // max(batch.num_rows, 1), 1)
                rows = max(1, min(_BATCH_ROWS_MAX, _BATCH_BYTES // per_row))
                break
            yield from file.iter_batches(rows, row_groups=[group], use_threads=False)


class ArrowSource(_TypedSource):
    """An Arrow IPC stream or file (Feather). Every batch is validated: offsets are not trusted."""

    format = "arrow"

    def __init__(self, body: Body, compression: str, head: bytes, work: Work) -> None:
        super().__init__(body, compression, work)
        self._is_file = head.startswith(_ARROW_FILE)
        try:
            with _mapped(self._body) as file:
                opened = pa.ipc.open_file(file) if self._is_file else pa.ipc.open_stream(file)
                schema = opened.schema
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged("arrow", error) from error
        self._take_names(schema)

    def blocks(self) -> Iterator[pa.RecordBatch]:
        try:
            with _mapped(self._body) as file:
                yield from self._checked(self._batches(file))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged("arrow", error) from error

    def _batches(self, file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
        if self._is_file:
            reader = pa.ipc.open_file(file)
            batches: Iterator[pa.RecordBatch] = (
                reader.get_batch(index) for index in range(reader.num_record_batches)
            )
        else:
            batches = iter(pa.ipc.open_stream(file))
        for batch in batches:
            batch.validate(full=True)
            yield batch


def _check_unfolding(decoded: int, size: int, settings: IngestSettings) -> None:
    if decoded > settings.decoded_bytes_max:
        raise beyond(
            "ingest.decoded_bytes_max",
            settings.decoded_bytes_max,
            "the file unfolds to more than an ingest may be",
            "split the file, or raise the limit",
        )
    if decoded > settings.ratio_free_bytes and decoded > settings.ratio_max * max(size, 1):
        raise beyond(
            "ingest.ratio_max",
            settings.ratio_max,
            "the file unfolds to implausibly much",
            "raise the limit if the file is meant to be so",
            decoded_bytes=decoded,
            size_bytes=size,
        )


def _damaged(what: str, error: BaseException) -> Exception:
    return unreadable(
        f"the body is not a readable {what} file",
        "send the file again, whole",
        reason=str(error).splitlines()[0][:300] if str(error) else type(error).__name__,
    )


def _mapped(body: Body) -> pa.NativeFile:
    return pa.BufferReader(body) if isinstance(body, bytes) else pa.memory_map(str(body))


def _unpack(body: Body, compression: str, work: Work) -> Body:
    """Random access needs the plain bytes: decompress beside the body, within the budgets."""
    decoded = Decoded(body, compression, work.settings)
    try:
        if isinstance(body, bytes):
            return read_all(decoded)
        unpacked = work.folder / "unpacked"
        with unpacked.open("wb") as file:
            while chunk := decoded.read(_COPY_BYTES):
                work.check()
                file.write(chunk)
        return unpacked
    finally:
        decoded.close()
