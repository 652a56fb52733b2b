"""Cells side by side: which are the same, bit for bit, null with null. Vectorised, nested or not.

Two cells are the same only if their rows hash alike (``table.rowhash``): NaN is the same as that
NaN, and 0.0 is not the same as -0.0.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Schema
from lakehouse.table.types import arrow_schema
from lakehouse.table.vectors import bits

__all__ = ["cast", "conform", "flat", "same"]


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The same values in one array."""
    if isinstance(values, pa.ChunkedArray):
        return values.chunk(0) if values.num_chunks == 1 else pa.concat_arrays(_chunks(values))
    return values


def _chunks(values: pa.ChunkedArray) -> list[pa.Array]:
    return values.chunks or [pa.array([], values.type)]


def conform(table: pa.Table, schema: Schema) -> pa.Table:
    """``table`` with exactly the columns of ``schema``, by name: what it lacks is null, what it has
    beyond is left out. Raises ``invalid`` where a column is not of its type."""
    target = arrow_schema(schema)
    if table.schema.equals(target, check_metadata=True):
        return table
    arrays: list[pa.Array | pa.ChunkedArray] = []
    for field in target:
        at = table.schema.get_field_index(field.name)
        values = pa.nulls(table.num_rows, field.type) if at < 0 else table.column(at)
        arrays.append(values if values.type == field.type else cast(values, field))
    return pa.Table.from_arrays(arrays, schema=target)


def cast(values: pa.Array | pa.ChunkedArray, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    """``values`` as the type of ``field``. Raises ``invalid`` where one does not fit."""
    try:
        return values.cast(field.type)
    except pa.ArrowException as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a column is not of its type",
            column=field.name,
            column_type=str(field.type),
            given=str(values.type),
            cause=str(error)[:200],
        ) from error


def same(left: pa.Array, right: pa.Array) -> pa.Array:
    """For each position whether both cells are the same; never null.

    Args:
        left, right: of one type and one length.
    """
    if left.null_count == 0 and right.null_count == 0:
        return _same_values(left, right)
    if len(left) in (left.null_count, right.null_count):
        return pc.and_(pc.is_null(left), pc.is_null(right))
    both = pc.and_(pc.is_valid(left), pc.is_valid(right))
    neither = pc.and_(pc.is_null(left), pc.is_null(right))
    alike = pc.and_(both, pc.fill_null(_same_values(left, right), False))
    return pc.or_(neither, alike)


def _same_values(left: pa.Array, right: pa.Array) -> pa.Array:
    """As ``same``; at a null of either side the result is null or means nothing."""
    arrow = left.type
    if pat.is_floating(arrow):
        bits = pa.uint64() if arrow.bit_width == 64 else pa.uint32()
        return pc.equal(left.view(bits), right.view(bits))
    if pat.is_struct(arrow):
        result = pa.repeat(pa.scalar(True), len(left))
        for one, other in zip(left.flatten(), right.flatten(), strict=True):
            result = pc.and_(result, same(one, other))
        return result
    if pat.is_map(arrow) or pat.is_list(arrow):
        return _same_lists(left, right)
    if pat.is_fixed_size_list(arrow):
        return _same_vectors(left, right)
    return pc.equal(left, right)


def _same_lists(left: pa.Array, right: pa.Array) -> pa.Array:
    """Lists of the same length are laid side by side, item by item; the items that differ are
    counted, and a list is the same where the count does not rise."""
    lengths = pc.fill_null(pc.list_value_length(_as_list(left)), -1)
    alike = pc.equal(lengths, pc.fill_null(pc.list_value_length(_as_list(right)), -1))
    rows = pc.indices_nonzero(alike)
    one, other = _as_list(left).take(rows), _as_list(right).take(rows)
    differs = pc.invert(same(one.flatten(), other.flatten())).cast(pa.int64())
    counted = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(differs)])
    sizes = pc.fill_null(pc.list_value_length(one), 0).cast(pa.int64())
    ends = pc.cumulative_sum(sizes)
    starts = pc.subtract(ends, sizes)
    equal = pc.equal(counted.take(starts), counted.take(ends))
    return pc.replace_with_mask(alike, alike, equal)


def _same_vectors(left: pa.Array, right: pa.Array) -> pa.Array:
    """Bit for bit, as ``_same_lists``; there are as many in each row."""
    differs = pc.not_equal(bits(left), bits(right)).cast(pa.int64())
    if not len(left):
        return differs.cast(pa.bool_())
    each = len(differs) // len(left)
    counted = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(differs)])
    counted = counted.take(pa.arange(0, len(differs) + each, each))
    return pc.equal(counted.slice(1), counted.slice(0, len(left)))


def _as_list(values: pa.Array) -> pa.Array:
    """A map as the list of its entries, which is what it is."""
    if not pat.is_map(values.type):
        return values
    fields = [("key", values.type.key_type), ("value", values.type.item_type)]
    return values.cast(pa.list_(pa.struct(fields)))
