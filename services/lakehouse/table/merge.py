"""Merge-on-read and its inverse: which rows can be seen, and a run of deltas as one (ADR-009).

A row of a rows file with seq s can be seen iff no keys file with a seq greater than s has its key.
Each entry of a keys file hides exactly one row that could be seen before, so that the rows that
can be seen number all rows less all entries, and their hashes add up likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.model.schema import Schema
from lakehouse.table.cells import conform, flat
from lakehouse.table.keys import KEY_META, OP, ORDINAL, distinct, keys_schema, match
from lakehouse.table.types import arrow_schema

__all__ = ["SEQ", "Folded", "Layer", "fold", "tombstones", "visible"]

SEQ: Final = "__seq"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one object holds, ``rows`` or ``keys``, and the commit it stands for."""

    seq: int
    table: pa.Table


@dataclass(frozen=True, slots=True)
class Folded:
    """A run of row changes as one: rows that can be seen (in the order of the run), and the keys of
    the rows older than the run that it hides."""

    rows: pa.Table
    keys: pa.Table


def tombstones(keys: Sequence[Layer], key: Sequence[str]) -> pa.Table:
    """The key columns and ``__seq``: each key once, with the highest seq that has an entry for it.

    Args:
        keys: at least one keys layer, in any order.
    """
    newest = sorted(keys, key=lambda layer: -layer.seq)
    stacked = _stack(newest, key)
    return stacked.filter(distinct(stacked, key))


def visible(layer: Layer, tombs: pa.Table, key: Sequence[str]) -> pa.Table:
    """The rows of a rows layer that can be seen, in their order. ``tombs`` of ``tombstones``."""
    if tombs.num_rows == 0 or layer.table.num_rows == 0:
        return layer.table
    hidden = pc.greater(_seq_of(layer.table, tombs, key), layer.seq)
    if not pc.any(hidden).as_py():
        return layer.table
    return layer.table.filter(pc.invert(pc.fill_null(hidden, False)))


def fold(
    rows: Sequence[Layer], keys: Sequence[Layer], key: Sequence[str], schema: Schema
) -> Folded:
    """A contiguous run of commits (by seq) as one, which stands for the highest seq of the run.

    A key has an entry in the result iff its first entry in the run hides a row older than the run,
    which is so unless the run itself had brought a row with that key before; the hash is that of
    the first entry. ``__op`` is ``update`` where the result has a row with that key.
    """
    if not keys:
        return Folded(_all_rows(_by_seq(rows), schema), keys_schema(schema, key).empty_table())
    tombs = tombstones(keys, key)
    kept = _all_visible(_by_seq(rows), tombs, key, schema)
    entries = _stack(_by_seq(keys), (*key, *KEY_META))
    firsts = entries.filter(distinct(entries, key))
    if rows:
        brought = _stack(_by_seq(rows), key)
        brought = brought.filter(distinct(brought, key))
        born = pc.less(_seq_of(firsts, brought, key), firsts.column(SEQ))
        firsts = firsts.filter(pc.invert(pc.fill_null(born, False)))
    return Folded(kept, _renumbered(firsts, kept, key, keys_schema(schema, key)))


def _all_visible(
    layers: Sequence[Layer], tombs: pa.Table, key: Sequence[str], schema: Schema
) -> pa.Table:
    """What can be seen of all of ``layers``, in their order, under ``schema``."""
    first = layers[0].table.schema if layers else None
    if any(layer.table.schema != first for layer in layers):
        seen = [Layer(layer.seq, visible(layer, tombs, key)) for layer in layers]
        return _all_rows(seen, schema)
    whole = _all_rows(layers, schema)
    if not layers or tombs.num_rows == 0:
        return whole
    # Written alike, they are asked together: a lookup costs by call here, not by row.
    stacked = _stack(layers, key)
    hidden = pc.greater(_seq_of(stacked, tombs, key), flat(stacked.column(SEQ)))
    return whole.filter(pc.invert(pc.fill_null(hidden, False)))


def _renumbered(
    entries: pa.Table, seen: pa.Table, key: Sequence[str], columns: pa.Schema
) -> pa.Table:
    alive = pc.is_valid(match(entries, seen, key))
    ordinals = pa.array(range(entries.num_rows), pa.int64())
    replaced = {OP: pc.if_else(alive, "update", "delete"), ORDINAL: ordinals}
    arrays = [replaced.get(name, entries.column(name)) for name in columns.names]
    return pa.Table.from_arrays([flat(each) for each in arrays], schema=columns)


def _by_seq(layers: Sequence[Layer]) -> list[Layer]:
    return sorted(layers, key=lambda layer: layer.seq)


def _seq_of(table: pa.Table, tombs: pa.Table, key: Sequence[str]) -> pa.Array:
    """For each row the ``__seq`` of its key in ``tombs``, or null."""
    return flat(tombs.column(SEQ)).take(match(table, tombs, key))


def _stack(layers: Sequence[Layer], names: Sequence[str]) -> pa.Table:
    """Columns of layers one after the other, and ``__seq``."""
    arrays: list[pa.Array] = []
    for name in names:
        chunks = [chunk for layer in layers for chunk in layer.table.column(name).chunks]
        kind = layers[0].table.schema.field(name).type
        arrays.append(pa.concat_arrays(chunks) if chunks else pa.array([], kind))
    seqs = [pa.repeat(pa.scalar(layer.seq, pa.int64()), layer.table.num_rows) for layer in layers]
    return pa.Table.from_arrays([*arrays, pa.concat_arrays(seqs)], names=[*names, SEQ])


def _all_rows(layers: Sequence[Layer], schema: Schema) -> pa.Table:
    """The rows of layers under ``schema``, whichever of its versions each was written under."""
    tables = [conform(layer.table, schema) for layer in layers]
    return pa.concat_tables([arrow_schema(schema).empty_table(), *tables])
