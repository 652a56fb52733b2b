"""Row changes in a worker: their files read once, and what they leave to be seen as one table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.plan import LayerGroup, Merge, ScanColumn
from lakehouse.table.keys import match
from lakehouse.table.merge import SEQ, Layer, tombstones
from lakehouse.table.types import to_arrow
from lakehouse.table.widening import widened

__all__ = [
    "AFTER",
    "Deltas",
    "Resolved",
    "WidenedFiles",
    "key_names",
    "read_file",
    "schema_of",
    "warm",
]

BYTES_MAX: Final = 64 << 20
FILES_MAX: Final = 4096
BATCH_ROWS: Final = 8192
AFTER: Final = "s"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Of one scan: ``rows`` that can be seen, of the files that were read here, under the names of
    the scan; ``tombs``, the tombstones: each hidden key once, in columns ``key_names``, and in
    ``AFTER`` the seq below which its rows are hidden; no columns if there are none."""

    rows: pa.Table
    tombs: pa.Table

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes + self.tombs.nbytes)


def key_names(merge: Merge) -> list[str]:
    """Names for the columns of a key that are no user's, in its order."""
    return [f"k{at}" for at in range(len(merge.key))]


def warm() -> None:
    """Load what reads files, before the first query on row changes has to."""
    import pyarrow.parquet  # noqa: F401


class Deltas:
    """Reads files of row changes, and keeps those that were read last, up to bounds: the
    next version of a dataset has most of them too."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._files: OrderedDict[tuple[str, tuple[ScanColumn, ...]], pa.Table] = OrderedDict()

    def resolved(self, merge: Merge, columns: Sequence[ScanColumn]) -> Resolved:
        """What can be seen of a scan with ``columns``. Raises ``corrupt``."""
        names = key_names(merge)
        entries = [
            Layer(layer.seq, layer.table.select(merge.key).rename_columns(names))
            for layer in self._layers(merge.keys)
        ]
        tombs = tombstones(entries, names) if entries else pa.table({})
        layers = self._layers(merge.rows)
        empty = schema_of(tuple(columns)).empty_table()
        rows = pa.concat_tables([empty, *(layer.table for layer in layers)])
        if entries and layers:
            seqs = [
                pa.repeat(pa.scalar(layer.seq, pa.int64()), layer.table.num_rows)
                for layer in layers
            ]
            at = match(rows.select(merge.key).rename_columns(names), tombs, names)
            hidden = pc.greater(tombs.column(SEQ).take(at), pa.chunked_array(seqs))
            rows = rows.filter(pc.invert(pc.fill_null(hidden, False)))
        return Resolved(
            rows.combine_chunks(), tombs.rename_columns([*names, AFTER][: tombs.num_columns])
        )

    def _layers(self, groups: Sequence[LayerGroup]) -> list[Layer]:
        return [
            Layer(seq, self._table(path, group.columns))
            for group in groups
            for path, seq in zip(group.paths, group.seqs, strict=True)
        ]

    def _table(self, path: str, columns: tuple[ScanColumn, ...]) -> pa.Table:
        known = self._files.get((path, columns))
        if known is not None:
            self._files.move_to_end((path, columns))
            return known
        table = read_file(path, columns)
        self._files[(path, columns)] = table
        self._bytes += table.get_total_buffer_size()
        while len(self._files) > 1 and (
            self._bytes > self._bytes_max or len(self._files) > FILES_MAX
        ):
            self._bytes -= self._files.popitem(last=False)[1].get_total_buffer_size()
        return table


class WidenedFiles:
    """Files as they would be if they were written with the types of now, read anew each time that
    an engine asks, a batch at a time."""

    def __init__(self, paths: Sequence[str], columns: Sequence[ScanColumn]) -> None:
        self._paths = tuple(paths)
        self._columns = tuple(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        schema = schema_of(self._columns)
        reader = pa.RecordBatchReader.from_batches(schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for path in self._paths:
            with _opened(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=_wanted(self._columns)):
                    yield from _now(pa.Table.from_batches([batch]), self._columns).to_batches()


def read_file(path: str, columns: Sequence[ScanColumn]) -> pa.Table:
    """The columns of a file under their names in the scan."""
    try:
        # Small as it is, in one piece, without a file system and threads that wait for columns.
        with open(path, "rb", buffering=0) as raw, _opened(pa.BufferReader(raw.read())) as file:
            return _now(file.read(_wanted(columns), use_threads=False), columns)
    except MemoryError as error:
        raise LakehouseError(
            ErrorKind.EXHAUSTED,
            "the query needs more memory than its limit",
            http_status=422,
            hint="compact the dataset: its row changes are held in memory",
        ) from error
    except (OSError, pa.ArrowException, KeyError) as error:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "a data file could not be read",
            reason=type(error).__name__,
        ) from error


def _opened(source: str | pa.NativeFile) -> Any:
    import pyarrow.parquet as pq  # late: a worker is ready for a first query sooner (``warm``)

    return pq.ParquetFile(source, pre_buffer=False)


def _wanted(columns: Sequence[ScanColumn]) -> list[str] | None:
    """The columns to read; None for all: a dot in a name would be taken for a path to a field."""
    names = [column.source for column in columns if column.source is not None]
    return names if names and not any("." in name for name in names) else None


def _now(table: pa.Table, columns: Sequence[ScanColumn]) -> pa.Table:
    """Rows of a file under the names and types of the scan."""
    arrays = []
    for column, field in zip(columns, schema_of(tuple(columns)), strict=True):
        if column.source is None:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
            continue
        values = table.column(column.source)
        if values.type != field.type:
            chunks = [widened(one, column.type) for one in values.chunks]
            values = pa.chunked_array(chunks, field.type)
        arrays.append(values)
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


@lru_cache(maxsize=64)
def schema_of(columns: tuple[ScanColumn, ...]) -> pa.Schema:
    """The columns of a scan as Arrow has them."""
    return pa.schema([(column.name, to_arrow(column.type)) for column in columns])
