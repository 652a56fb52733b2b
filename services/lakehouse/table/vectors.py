"""Columns of vectors: N float32 a row, side by side (``vector(N)``). Pure, vectorised."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.table.contents import read_texts

__all__ = ["as_lists", "bits", "numbers", "read_vectors", "to_floats", "to_vectors", "whole"]

_FLOAT_BYTES: Final = 4


def numbers(values: pa.FixedSizeListArray) -> pa.Array:
    """The numbers of all rows, one after the other; those of a null row too, whatever they are."""
    size = values.type.list_size
    return values.values.slice(values.offset * size, len(values) * size)


def whole(values: pa.FixedSizeListArray) -> bool:
    """Whether no number of a vector is null."""
    found = values.values
    return bool(found.null_count == 0 or values.flatten().null_count == 0)


def as_lists(values: pa.FixedSizeListArray) -> pa.ListArray:
    """The same values as lists of any length."""
    return values.cast(pa.list_(values.type.value_type))


def bits(values: pa.FixedSizeListArray) -> pa.Array:
    """The numbers as they lie in memory: N / 2 uint64 a row, or N where N is odd. A number that is
    null, or in a row that is null, is zero."""
    found = numbers(values)
    if found.null_count:
        found = pc.fill_null(found, 0.0)
    _, data = found.buffers()
    if values.type.list_size % 2:
        return found.view(pa.uint32()).cast(pa.uint64())
    start = found.offset * _FLOAT_BYTES
    if data is not None:
        data = data.slice(start, len(found) * _FLOAT_BYTES)
    return pa.Array.from_buffers(pa.uint64(), len(found) // 2, [None, data])


def to_vectors(values: pa.Array, target: pa.FixedSizeListType) -> pa.Array | None:
    """Lists of numbers as vectors: each number the float32 next to it. None where a list has
    another length or a null within, or a number is too large for a float32."""
    arrow = values.type
    if arrow == target:
        return values if whole(values) else None
    if not (pat.is_nested(arrow) and hasattr(arrow, "value_type")) or pat.is_map(arrow):
        return None
    items = values.flatten()  # leaves out what stands below nulls
    there = pc.is_valid(values)
    rows = len(values) - values.null_count
    lengths = pc.min_max(pc.list_value_length(values)) if rows else None
    size = target.list_size
    if lengths is not None and {lengths["min"].as_py(), lengths["max"].as_py()} != {size}:
        return None
    floats = to_floats(items)
    if floats is None or floats.null_count:
        return None
    if values.null_count:
        each = pc.subtract(pc.cumulative_sum(there.cast(pa.int64())), 1)
        dense = pa.FixedSizeListArray.from_arrays(floats, type=target)
        return dense.take(pc.if_else(there, each, pa.scalar(None, pa.int64())))
    return pa.FixedSizeListArray.from_arrays(floats, type=target)


def read_vectors(texts: pa.Array, target: pa.FixedSizeListType) -> pa.Array | None:
    """JSON arrays of numbers as vectors; None where one is none, as in ``to_vectors``."""
    try:
        return read_texts(texts, target)
    except (pa.ArrowException, ValueError, TypeError, RecursionError):
        return None


def to_floats(items: pa.Array) -> pa.Array | None:
    """Numbers as float32; None for what is no number, or finite and beyond float32."""
    arrow = items.type
    if not (pat.is_floating(arrow) or pat.is_integer(arrow) or pat.is_decimal(arrow)):
        return None
    floats = items.cast(pa.float64()) if pat.is_decimal(arrow) else items
    floats = floats.cast(pa.float32(), safe=False)
    lost = pc.and_not(_finite(items), pc.is_finite(floats))
    return None if pc.any(lost, min_count=0).as_py() else floats


def _finite(items: pa.Array) -> pa.Array:
    return pc.is_finite(items) if pat.is_floating(items.type) else pc.is_valid(items)
