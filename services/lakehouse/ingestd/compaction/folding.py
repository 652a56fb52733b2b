"""Minor compaction: a stretch of row changes in memory into one of rows and one of keys."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.compaction.balance import Balance, check_same, of_keys, of_rows
from lakehouse.ingestd.compaction.inputs import Input, stacks
from lakehouse.model.dataset import KEYS, Dataset
from lakehouse.table.merge import Layer, fold

__all__ = ["fold_stretch", "sorted_by"]


def fold_stretch(dataset: Dataset, inputs: Sequence[Input]) -> tuple[pa.Table, pa.Table]:
    """The rows that can be seen of ``inputs`` and the keys of what they hide outside, by key.

    Raises ``corrupt`` if an object is not what the catalog says, or if the rows do not balance.
    """
    rows: list[Layer] = []
    keys: list[Layer] = []
    before = Balance()
    # Rows, then keys: in the order of commits they alternate, and none would stand by its like.
    for stack in stacks(sorted(inputs, key=lambda one: one.file.content != KEYS)):
        if stack.content == KEYS:
            keys += stack.layers()
            before -= stack.balance
        else:
            rows += stack.layers()
            before += stack.balance
    key = dataset.primary_key
    folded = fold(rows, keys, key, dataset.schema)
    after = of_rows(folded.rows, dataset.schema) - of_keys(folded.keys)
    if not all(one.exact for one in inputs):
        # Keys tell the hash that a row had before its columns were widened.
        before, after = Balance(before.rows), Balance(after.rows)
    check_same(dataset.name, "row changes do not balance with their fold", before, after)
    return sorted_by(folded.rows, key), sorted_by(folded.keys, key)


def sorted_by(
    table: pa.Table, key: Sequence[str], hidden: pa.ChunkedArray | None = None
) -> pa.Table:
    """By ``key``, ascending, without the rows that are ``hidden``; refuses a key that is there
    twice with ``corrupt``."""
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in key])
    if hidden is not None:
        order = order.filter(pc.invert(hidden.take(order)).combine_chunks())
    ordered = table.take(order)
    check_unique(ordered, key)
    return ordered


def check_unique(table: pa.Table, key: Sequence[str]) -> None:
    """Raise ``corrupt`` if two neighbours of a table sorted by ``key`` have the same one."""
    if table.num_rows < 2:
        return
    same = pa.scalar(True)
    for name in key:
        values = table.column(name)
        pair = pc.equal(values.slice(1), values.slice(0, table.num_rows - 1))
        same = pc.and_(same, pair)
    if pc.any(same).as_py():
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "two rows that can be seen have one key; nothing was compacted",
            columns=list(key),
            hint="replace the dataset's rows; reads show both",
        )
