"""Small files of datasets, decoded in memory and found by key: what row changes mostly are.

The files of a dataset have one index together, in levels of rising size as they came, so that a
thousand changes cost a search of a few arrays and not of a thousand files.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.ingestd.rows.lookup import Hits, Index, index_of, join_indexes, search
from lakehouse.model.dataset import DataFile, Dataset
from lakehouse.model.schema import Column
from lakehouse.table.keys import key_columns, key_hashes

__all__ = ["SMALL_BYTES", "SMALL_ROWS", "Recent", "Shelf", "is_small"]

SMALL_BYTES: Final = 2 << 20
SMALL_ROWS: Final = 65_536
_STALE_MIN: Final = 64
_TABLES_MANY: Final = 20_000
Place = tuple[str, str]


def is_small(file: DataFile) -> bool:
    """Whether ``file`` is kept whole in memory once it was read."""
    return file.size_bytes <= SMALL_BYTES and file.rows <= SMALL_ROWS


@dataclass(slots=True)
class Shelf:
    """Small files of one dataset by a key. ``tables`` by piece number; ``numbers`` by place."""

    key: tuple[str, ...]
    numbers: dict[Place, int] = field(default_factory=dict)
    tables: list[pa.Table] = field(default_factory=list)
    levels: tuple[Index, ...] = ()
    size_bytes: int = 0

    def add(self, dataset: Dataset, places: Sequence[Place], tables: Sequence[pa.Table]) -> None:
        """Take in decoded files; their key columns are called as the dataset's are."""
        taken: list[pa.Table] = []
        numbers: list[int] = []
        for place, table in zip(places, tables, strict=True):
            if place in self.numbers:
                continue
            number = len(self.tables)
            taken.append(table.select(self.key))
            numbers.append(number)
            self.tables.append(table)
            self.numbers[place] = number
            self.size_bytes += table.nbytes
        levels = list(self.levels)
        if taken:
            # Hashed together: the cost of a kernel is by call here, not by row.
            hashes = key_hashes(pa.concat_tables(taken), dataset.schema, self.key)
            levels.append(index_of(hashes, [table.num_rows for table in taken], numbers))
            self.size_bytes += levels[-1].nbytes
        while len(levels) > 1 and len(levels[-2].hashes) < 2 * len(levels[-1].hashes):
            last = levels.pop()
            levels[-1] = join_indexes([levels[-1], last])
        self.levels = tuple(levels)

    def find(self, needles: pa.Array, live: pa.Array) -> Hits:
        """Places in pieces whose number is in ``live`` (int32) that may have a needle's key."""
        found = [search(level, needles) for level in self.levels]
        hits = Hits(
            pa.concat_arrays([one.needles for one in found] or [pa.array([], pa.int64())]),
            pa.concat_arrays([one.pieces for one in found] or [pa.array([], pa.int32())]),
            pa.concat_arrays([one.rows for one in found] or [pa.array([], pa.int32())]),
        )
        return hits.filter(pc.is_in(hits.pieces, value_set=live)) if len(hits) else hits

    def is_stale(self, live: int, bytes_max: int) -> bool:
        """Whether there is much here that belongs to no file that was asked for now."""
        many = self.size_bytes > bytes_max // 2 or len(self.tables) > _TABLES_MANY
        return many and len(self.tables) > _STALE_MIN + 4 * live


_Name = tuple[str, tuple[Column, ...]]


def _name(dataset: Dataset) -> _Name:
    return dataset.id, key_columns(dataset.schema, dataset.primary_key)


class Recent:
    """Shelves of the datasets that were used last, up to a bound of bytes. For many threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._shelves: OrderedDict[_Name, Shelf] = OrderedDict()
        self._lock = threading.Lock()

    def shelf(self, dataset: Dataset) -> Shelf:
        """The shelf of ``dataset`` by its present key, empty at first."""
        name = _name(dataset)
        with self._lock:
            shelf = self._shelves.get(name)
            if shelf is None:
                shelf = self._shelves[name] = Shelf(dataset.primary_key)
            self._shelves.move_to_end(name)
            return shelf

    def add(self, dataset: Dataset, places: Sequence[Place], tables: Sequence[pa.Table]) -> None:
        """Put decoded files on the dataset's shelf; the shelves used longest ago make room."""
        shelf = self.shelf(dataset)
        with self._lock:
            shelf.add(dataset, places, tables)
            total = sum(one.size_bytes for one in self._shelves.values())
            while total > self._bytes_max and len(self._shelves) > 1:
                total -= self._shelves.popitem(last=False)[1].size_bytes

    def drop(self, dataset: Dataset) -> None:
        """Begin the dataset's shelf anew."""
        with self._lock:
            self._shelves.pop(_name(dataset), None)
