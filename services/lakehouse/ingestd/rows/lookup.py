"""Finding rows by the hash of their key: sorted hashes, and the places they came from. Pure.

Hashes only say where to look: whether a row has a key is decided by the key's own values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.model.schema import Schema
from lakehouse.table.cells import flat
from lakehouse.table.types import arrow_schema
from lakehouse.table.widening import widened

__all__ = ["Hits", "Index", "has_key", "index_of", "join_indexes", "search", "under_schema"]


@dataclass(frozen=True, slots=True)
class Index:
    """``hashes`` (uint64) rise; ``pieces`` (int32) and ``rows`` (int32) say where each is from."""

    hashes: pa.Array
    pieces: pa.Array
    rows: pa.Array

    @property
    def nbytes(self) -> int:
        return int(self.hashes.nbytes + self.pieces.nbytes + self.rows.nbytes)


@dataclass(frozen=True, slots=True)
class Hits:
    """Places that may have a needle's key: ``needles`` (int64) are positions in what was sought."""

    needles: pa.Array
    pieces: pa.Array
    rows: pa.Array

    def __len__(self) -> int:
        return len(self.needles)

    def filter(self, mask: pa.Array) -> Hits:
        return Hits(self.needles.filter(mask), self.pieces.filter(mask), self.rows.filter(mask))


def index_of(hashes: pa.Array, rows: Sequence[int], pieces: Sequence[int]) -> Index:
    """The index of some pieces, one after the other, each of so many ``rows``, by their keys'
    hashes."""
    numbers = pa.array(pieces, pa.int32())
    counts = pa.array(rows, pa.int64())
    order = pc.sort_indices(hashes).cast(pa.int64())
    ends = pc.cumulative_sum(counts)
    if len(numbers) == 1:
        whose = pa.repeat(pa.scalar(0, pa.int64()), len(order))
    else:
        whose = pc.search_sorted(ends, order, side="right").cast(pa.int64())
    places = pc.subtract(order, pc.subtract(ends, counts).take(whose))
    return Index(hashes.take(order), numbers.take(whose), places.cast(pa.int32()))


def join_indexes(indexes: Sequence[Index]) -> Index:
    """Several as one."""
    hashes = pa.concat_arrays([one.hashes for one in indexes])
    order = pc.sort_indices(hashes)
    return Index(
        hashes.take(order),
        pa.concat_arrays([one.pieces for one in indexes]).take(order),
        pa.concat_arrays([one.rows for one in indexes]).take(order),
    )


def search(index: Index, needles: pa.Array) -> Hits:
    """All places with the hashes ``needles``."""
    # Of a hundred needles a call of NumPy costs a fifth of one of Arrow's kernels.
    hashes, sought = index.hashes.to_numpy(), needles.to_numpy()
    first = np.searchsorted(hashes, sought, side="left")
    counts = np.searchsorted(hashes, sought, side="right") - first
    found = np.repeat(np.arange(len(sought)), counts)
    before = np.cumsum(counts) - counts
    places = (first - before)[found] + np.arange(len(found))
    pieces, rows = index.pieces.to_numpy()[places], index.rows.to_numpy()[places]
    return Hits(pa.array(found), pa.array(pieces), pa.array(rows))


def has_key(rows: pa.Table, keys: pa.Table, key: Sequence[str]) -> pa.Array:
    """For each row whether it has the key of the row of ``keys`` beside it."""
    same = pa.repeat(pa.scalar(True), rows.num_rows)
    for name in key:
        equal = pc.equal(flat(rows.column(name)), flat(keys.column(name)))
        same = pc.and_(same, pc.fill_null(equal, False))
    return same


def under_schema(table: pa.Table, written: Schema, wanted: Schema) -> pa.Table:
    """``table`` of a file that was written with ``written``, under ``wanted``: columns by field id,
    null where the file lacks one, cast where a type was widened."""
    there = {column.id: column.name for column in written.columns}
    target = arrow_schema(wanted)
    columns: list[pa.ChunkedArray | pa.Array] = []
    for column, field in zip(wanted.columns, target, strict=True):
        name = there.get(column.id)
        at = -1 if name is None else table.schema.get_field_index(name)
        if at < 0:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        values = table.column(at)
        if values.type != field.type:
            chunks = [widened(chunk, column.type) for chunk in values.chunks]
            values = pa.chunked_array(chunks, field.type)
        columns.append(values)
    return pa.Table.from_arrays(columns, schema=target)
