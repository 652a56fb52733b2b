"""A commutative 64-bit hash of rows: the same rows in any order and split give the same sum.

It balances row sets across compaction and moves (law 8 of the ledger): the hashes of the files
written add up, modulo 2^64, to the hash of the files read. It finds accidents, not forgers.

A cell hashes by its column's id, so that the order of columns does not matter; a row is the mix of
its cells' sum; rows are summed. Texts, bytes and lists hash by a polynomial over their items, from
prefix sums, so that no loop runs over rows. Arithmetic is NumPy's, modulo 2^64: of few rows a call
of it costs a fifth of one of Arrow's kernels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.model.schema import Schema
from lakehouse.table.vectors import bits

__all__ = ["add_hashes", "format_hash", "hash_each", "rows_hash"]

_Numbers = npt.NDArray[np.uint64]
_Items = npt.NDArray[np.uint8] | _Numbers
_MASK: Final = 2**64 - 1
_SHIFT: Final = np.uint64(33)
_MIX_A: Final = np.uint64(0xFF51AFD7ED558CCD)
_MIX_B: Final = np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN: Final = 0x9E3779B97F4A7C15
_NULL: Final = 0x6A09E667F3BCC909
_BASE: Final = 0xD6E8FEB86659FD93
_BASE_INVERSE: Final = pow(_BASE, -1, 2**64)
_ITEMS_MAX: Final = 1 << 18
_MANY: Final = 1024
_FEW: Final = 1024


def rows_hash(rows: pa.Table | pa.RecordBatch, schema: Schema) -> int:
    """The hash of ``rows``, in [0, 2^64). Columns are matched to ``schema`` by name; a column that
    the rows lack counts as null, so that adding a column of nulls changes nothing."""
    total = 0
    batches = rows.to_batches() if isinstance(rows, pa.Table) else [rows]
    for batch in batches:
        if batch.num_rows:
            total = add_hashes(total, pc.sum(hash_each(batch, schema)).as_py())
    return total


def hash_each(batch: pa.RecordBatch, schema: Schema) -> pa.Array:
    """One hash a row (uint64), over the columns of ``schema`` that the batch has."""
    rows = batch.num_rows
    cells = np.full(rows, _GOLDEN, np.uint64)
    for ids, values in _together(batch, schema):
        salts = [_uint(each * _GOLDEN) for each in ids]
        salt = salts[0] if len(ids) == 1 else pa.concat_arrays([pa.repeat(s, rows) for s in salts])
        cells += _cells(values, salt).to_numpy().reshape(len(ids), rows).sum(axis=0)
    return _mix(pa.array(cells))


def _together(batch: pa.RecordBatch, schema: Schema) -> list[tuple[list[int], pa.Array]]:
    """Columns by id, those without a value left out. Of a few rows the columns of one type stand
    one after the other in one array: the cost of a kernel is by call then, not by value."""
    columns = [
        (column.id, batch.column(at))
        for column in schema.columns
        if (at := batch.schema.get_field_index(column.name)) >= 0
        and batch.column(at).null_count < batch.num_rows
    ]
    if batch.num_rows > _FEW:
        return [([each], values) for each, values in columns]
    kinds: dict[pa.DataType, list[tuple[int, pa.Array]]] = {}
    for each, values in columns:
        kinds.setdefault(values.type, []).append((each, values))
    return [
        ([each for each, _ in group], _stacked([values for _, values in group]))
        for group in kinds.values()
    ]


def _stacked(arrays: list[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def add_hashes(left: int, right: int) -> int:
    """The hash of the union (with repetition) of two row sets."""
    return (left + right) & _MASK


def format_hash(value: int) -> str:
    """As ``DataFile.rows_hash`` holds it: the algorithm's tag and 16 hex digits. Hashes of another
    tag are of another algorithm and must not be added or compared."""
    return f"rh1:{value:016x}"


@lru_cache(maxsize=1024)
def _uint(value: int) -> pa.Scalar:
    return pa.scalar(value & _MASK, pa.uint64())


def _repeat(value: int, length: int) -> pa.Array:
    return pa.repeat(_uint(value), length)


def _mix(values: pa.Array) -> pa.Array:
    """The finalizer of MurmurHash3: every input bit reaches every output bit."""
    given = values.to_numpy()
    mixed = given >> _SHIFT
    mixed ^= given
    for factor in (_MIX_A, _MIX_B):
        mixed *= factor
        mixed ^= mixed >> _SHIFT
    return pa.array(mixed)


def _cells(values: pa.Array, salt: pa.Scalar | pa.Array) -> pa.Array:
    """One hash a cell; a null adds 0, as a column that is not there does."""
    hashed = _mix(pc.add(_raw(values), salt))
    return pc.if_else(pc.is_valid(values), hashed, _uint(0)) if values.null_count else hashed


def _raw(values: pa.Array) -> pa.Array:
    """64 bits a value, before mixing; what stands at a null does not matter."""
    arrow = values.type
    if pat.is_string(arrow) or pat.is_binary(arrow):
        return _raw_texts(values)
    if pat.is_boolean(arrow):
        return pc.fill_null(values.cast(pa.uint8()), 0).cast(pa.uint64())
    if pat.is_date32(arrow):
        return pc.fill_null(values.cast(pa.int32()).cast(pa.int64()), 0).view(pa.uint64())
    if pat.is_map(arrow) or pat.is_list(arrow):
        return _raw_list(values)
    if pat.is_fixed_size_list(arrow):
        return _raw_vectors(values)
    if pat.is_struct(arrow):
        total = _repeat(_NULL, len(values))
        for index, field in enumerate(values.flatten()):
            total = pc.add(total, _cells(field, _uint((index + 1) * _GOLDEN)))
        return total
    if arrow.bit_width == 64:
        return pc.fill_null(values.view(pa.uint64()), 0)
    return _raw_bytes(values.cast(pa.string()))


def _raw_texts(values: pa.Array) -> pa.Array:
    """As ``_raw_bytes``; of texts that repeat, each is hashed once."""
    if len(values) < _MANY or pc.count_distinct(values.slice(0, _MANY)).as_py() > _MANY // 8:
        return _raw_bytes(values)
    encoded = values.dictionary_encode()
    return _raw_bytes(encoded.dictionary).take(pc.fill_null(encoded.indices, 0))


def _raw_bytes(values: pa.Array) -> pa.Array:
    values = pc.fill_null(values, b"" if pat.is_binary(values.type) else "")
    if len(values) == 0:
        return pa.array([], pa.uint64())
    if values.offset:
        values = pa.concat_arrays([values, values.slice(0, 0)])
    _, offsets_buffer, data = values.buffers()
    starts = pa.Array.from_buffers(
        pa.int32(), len(values) + 1, [None, offsets_buffer], offset=values.offset
    )
    first, last = starts[0].as_py(), starts[-1].as_py()
    items = pa.Array.from_buffers(pa.uint8(), last - first, [None, data], offset=first)
    return _windows(items, pc.subtract(starts, first))


def _raw_list(values: pa.Array) -> pa.Array:
    items = values.values if not pat.is_map(values.type) else _map_items(values)
    offsets = values.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    hashed = _mix(pc.add(_cells(items.slice(first, last - first), _uint(_GOLDEN)), _uint(_NULL)))
    return _windows(hashed, pc.subtract(offsets, first))


def _raw_vectors(values: pa.Array) -> pa.Array:
    """Over all bits of the numbers, two of them an item where their count is even."""
    items = bits(values)
    each = len(items) // max(len(values), 1)
    return _windows(_mix(items), pa.arange(0, len(items) + each, each) if each else items)


def _map_items(values: pa.MapArray) -> pa.StructArray:
    return pa.StructArray.from_arrays([values.keys, values.items], ["key", "value"])


@lru_cache(maxsize=2)
def _powers(base: int) -> _Numbers:
    factors = np.full(_ITEMS_MAX + 1, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _windows(items: pa.Array, offsets: pa.Array) -> pa.Array:
    """For each window ``[offsets[i], offsets[i+1])``: sum of (item + 1) * BASE^k, k from 0.

    With C the prefix sums of (item + 1) * BASE^position, a window's sum is
    (C[end] - C[start]) * BASE^-start. Positions count within runs of rows that hold at most
    ``_ITEMS_MAX`` items, so the powers are one small table; a longer row is folded by pieces.
    """
    numbers = items.to_numpy()
    ends = offsets.to_numpy().astype(np.int64)
    found = np.empty(len(ends) - 1, np.uint64)
    row = 0
    while row < len(found):
        start = int(ends[row])
        fits = int(np.searchsorted(ends, start + _ITEMS_MAX, side="right")) - 1
        if fits == row:
            found[row] = _long_window(numbers[start : ends[row + 1]])
            row += 1
            continue
        local = ends[row : fits + 1] - start
        sums = _sums_before(numbers[start : ends[fits]], local)
        found[row:fits] = (sums[1:] - sums[:-1]) * _powers(_BASE_INVERSE)[local[:-1]]
        row = fits
    return pa.array(found)


@lru_cache(maxsize=1)
def _powers_before() -> _Numbers:
    """For each position up to ``_ITEMS_MAX``, the sum of the powers before it."""
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(_powers(_BASE), dtype=np.uint64)])


def _sums_before(items: _Items, positions: npt.NDArray[np.int64]) -> _Numbers:
    """For each of ``positions``, the sum of (item + 1) * BASE^k over the items k before it."""
    sums = np.empty(len(items) + 1, np.uint64)
    sums[0] = 0
    np.multiply(items, _powers(_BASE)[: len(items)], out=sums[1:])
    np.cumsum(sums, out=sums)
    before: _Numbers = _powers_before()[positions] + sums[positions]
    return before


def _long_window(items: _Items) -> int:
    total = 0
    for start in range(0, len(items), _ITEMS_MAX):
        piece = items[start : start + _ITEMS_MAX]
        part = int(_sums_before(piece, np.array([len(piece)]))[0])
        total = (total + part * pow(_BASE, start, 2**64)) & _MASK
    return total
