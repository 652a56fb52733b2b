"""The rows of an image without their vectors: append-only, each with a number that it keeps.

The first rows are sorted by key, so one is found by halving; those that came later are found by
name. Whoever holds a book and a count of rows sees just these rows, also while more are appended.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.vectord.ports import Labels

__all__ = ["KEY", "ROW_SCHEMA", "Book", "sorted_rows"]

Flags = npt.NDArray[np.bool_]

KEY: Final = ("entity", "chunk")
ROW_SCHEMA: Final = pa.schema(
    [
        ("entity", pa.string()),
        ("chunk", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.large_string()),
        ("digest", pa.string()),
        ("version", pa.int64()),
    ]
)
_PAGES_MAX: Final = 64
_FEW: Final = 64


def sorted_rows(table: pa.Table) -> pa.Table:
    """Rows by key, in one piece, with nothing but the columns of ``ROW_SCHEMA``."""
    rows = fitted(table)
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in KEY])
    return rows.take(order).combine_chunks()


def fitted(table: pa.Table) -> pa.Table:
    """The columns of ``ROW_SCHEMA`` in one piece; null texts are empty ones."""
    columns = [table.column(field.name).cast(field.type) for field in ROW_SCHEMA]
    texts = ROW_SCHEMA.get_field_index("text")
    columns[texts] = pc.fill_null(columns[texts], "")
    return pa.Table.from_arrays(columns, schema=ROW_SCHEMA).combine_chunks()


class Texts:
    """A column of texts without nulls, read where it lies, without an Arrow scalar for each.

    Args:
        column: of strings, or of large ones.
    """

    __slots__ = ("_bytes", "_ends")

    def __init__(self, column: pa.Array) -> None:
        _, ends, data = column.buffers()
        width = np.int64 if pa.types.is_large_string(column.type) else np.int32
        first, count = column.offset, len(column)
        whole = np.frombuffer(ends, width) if ends is not None else np.zeros(1, width)
        self._ends = whole[first : first + count + 1]
        self._bytes = memoryview(data) if data is not None else memoryview(b"")

    def __getitem__(self, at: int) -> str:
        ends = self._ends
        return str(self._bytes[ends.item(at) : ends.item(at + 1)], "utf-8")


class Page:
    """Rows in one piece, with their columns as they are read fastest."""

    __slots__ = ("chunk", "end", "entities", "entity", "start", "table", "text", "texts", "version")

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.entity: pa.Array = _whole(table.column("entity"))
        self.text: pa.Array = _whole(table.column("text"))
        self.entities, self.texts = Texts(self.entity), Texts(self.text)
        self.chunk, self.start, self.end, self.version = (
            _whole(table.column(name)).to_numpy(zero_copy_only=False)
            for name in ("chunk", "start", "end", "version")
        )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class Book:
    """Rows by number, from 0 up.

    Args:
        table: of ``ROW_SCHEMA``, sorted by key, each key once.
    """

    def __init__(self, table: pa.Table) -> None:
        self.count: int = table.num_rows
        self.size_bytes: int = table.nbytes
        self._sorted: int = table.num_rows
        self._recent: dict[str, list[int]] = {}
        # One value that is replaced as a whole: readers are in other threads.
        self._pages: tuple[tuple[int, ...], tuple[Page, ...]] = ((0,), (Page(table),))

    @property
    def appended(self) -> int:
        return self.count - self._sorted

    def append(self, table: pa.Table) -> None:
        """More rows, of ``ROW_SCHEMA``; their numbers go on from ``count``."""
        starts, pages = self._pages
        if len(pages) > _PAGES_MAX:
            later = pa.concat_tables([page.table for page in pages[1:]]).combine_chunks()
            starts, pages = starts[:2], (pages[0], Page(later))
        for row, entity in enumerate(table.column("entity").to_pylist(), self.count):
            self._recent.setdefault(entity, []).append(row)
        self._pages = (*starts, self.count), (*pages, Page(table))
        self.size_bytes += table.nbytes
        self.count += table.num_rows

    def fork(self) -> Book:
        """The same rows, to be gone on with on another way."""
        copy = object.__new__(Book)
        copy.count, copy.size_bytes, copy._sorted = self.count, self.size_bytes, self._sorted
        copy._recent = {entity: list(rows) for entity, rows in self._recent.items()}
        copy._pages = self._pages
        return copy

    def cut(self, count: int) -> Book:
        """A fork with the first ``count`` rows alone."""
        return self.fork() if count == self.count else Book(self.table(np.arange(count)))

    def place(self, row: int) -> tuple[Page, int]:
        """The page that a row is on, and its number there."""
        starts, pages = self._pages
        at = bisect_right(starts, row) - 1
        return pages[at], row - starts[at]

    def key(self, row: int) -> tuple[str, int]:
        page, at = self.place(row)
        return page.entities[at], page.chunk.item(at)

    def rows_of(self, entity: str) -> list[int]:
        """All rows of ``entity``, those that are no longer there too."""
        entities = self._pages[1][0].entities
        first = bisect_left(range(self._sorted), entity, key=entities.__getitem__)
        last = first
        while last < self._sorted and entities[last] == entity:
            last += 1
        return [*range(first, last), *self._recent.get(entity, ())]

    def find(self, entities: Sequence[str]) -> Labels:
        """The rows of all of ``entities``."""
        if len(entities) <= _FEW:
            found = [row for entity in entities for row in self.rows_of(entity)]
            return np.array(found, np.int64)
        return np.flatnonzero(self.flags(pa.array(entities, pa.string()), self.count))

    def flags(self, entities: pa.Array, count: int) -> Flags:
        """For each of the first ``count`` rows whether its entity is one of ``entities``."""
        found = np.zeros(count, np.bool_)
        for start, page in zip(*self._pages, strict=True):
            if start >= count:
                break
            inside = pc.is_in(page.entity, value_set=entities).to_numpy(zero_copy_only=False)
            end = min(count, start + len(inside))
            found[start:end] = inside[: end - start]
        return found

    def table(self, rows: Labels) -> pa.Table:
        """``rows`` in their order."""
        whole = pa.concat_tables([page.table for page in self._pages[1]])
        return whole.take(pa.array(rows)).combine_chunks()

    def versions(self, rows: Labels) -> Labels:
        found = np.concatenate([page.version for page in self._pages[1]])
        picked: Labels = found[rows]
        return picked

    def in_order(self, rows: Labels) -> Labels:
        """``rows`` by key."""
        table = self.table(rows).select(KEY)
        order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in KEY])
        sorted_: Labels = rows[order.to_numpy()]
        return sorted_
