"""Row changes in a worker: their files read once, and what they leave to be seen as one table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.queryd.plan import LayerGroup, Merge, ScanColumn
from lakehouse.table.keys import match
from lakehouse.table.merge import SEQ, Layer, tombstones
from lakehouse.table.types import to_arrow
from lakehouse.table.widening import widened

__all__ = ["AFTER", "Deltas", "Resolved", "key_names", "schema_of", "written_as"]

BYTES_MAX: Final = 128 << 20
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


def written_as(values: pa.Array, type_text: str) -> pa.Array:
    """Values of a file as the wider type that their column has by now, as every other reader has
    them. Raises ``corrupt``."""
    return widened(values, type_text)


class Deltas:
    """Reads files of row changes, and keeps those that were read last, up to a bound of bytes:
    the next version of a dataset has most of them too."""

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
        table = _read(path, columns)
        self._files[(path, columns)] = table
        self._bytes += table.nbytes
        while self._bytes > self._bytes_max and len(self._files) > 1:
            self._bytes -= self._files.popitem(last=False)[1].nbytes
        return table


def _read(path: str, columns: Sequence[ScanColumn]) -> pa.Table:
    """The columns of a file under their names in the scan."""
    sources = [column.source for column in columns if column.source is not None]
    # A dot in a name would be taken for the path to a field.
    wanted = sources if sources and not any("." in name for name in sources) else None
    with pq.ParquetFile(path) as file:
        table = file.read(wanted, use_threads=False)
    arrays = []
    for column, field in zip(columns, schema_of(tuple(columns)), strict=True):
        if column.source is None:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
            continue
        values = table.column(column.source)
        if values.type != field.type:
            chunks = [written_as(one, column.type) for one in values.chunks]
            values = pa.chunked_array(chunks, field.type)
        arrays.append(values)
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


@lru_cache(maxsize=64)
def schema_of(columns: tuple[ScanColumn, ...]) -> pa.Schema:
    """The columns of a scan as Arrow has them."""
    return pa.schema([(column.name, to_arrow(column.type)) for column in columns])
