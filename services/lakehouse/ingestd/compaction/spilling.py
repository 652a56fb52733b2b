"""Rows apart by ranges of their key, in local files: what does not fit into memory is sorted so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.spool import disk_error

__all__ = ["PARTS_MAX", "Budget", "Ranges", "Spill", "bounds_of"]

PARTS_MAX: Final = 256
"""Parts are open files: no more of them at once, whatever the size of the data."""

_MARK: Final = "__mark"


class Budget:
    """Bytes on disk that one compaction may take, and whether it is to go on at all."""

    def __init__(self, bytes_max: int, check: Callable[[], None]) -> None:
        self._bytes_max = bytes_max
        self.check = check
        self.used = 0

    def take(self, size_bytes: int) -> None:
        """Raises ``exhausted`` beyond the budget; what ``check`` raises if it is to stop."""
        self.check()
        self.used += size_bytes
        if self.used > self._bytes_max:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "a compaction needs more local disk than it may take; nothing was compacted",
                limit="compaction.spill_bytes_max",
                maximum=self._bytes_max,
                hint="raise the limit, or free space below ingest.spool_dir",
            )

    def give_back(self, size_bytes: int) -> None:
        self.used -= size_bytes


def bounds_of(sample: pa.Table, key: Sequence[str], parts: int) -> pa.Table:
    """At most ``parts - 1`` keys, rising and different, between which the sample is even."""
    keys = [(name, "ascending") for name in key]
    ordered = sample.take(pc.sort_indices(sample, sort_keys=keys))
    at = sorted({ordered.num_rows * part // parts for part in range(1, parts)} - {0})
    bounds = ordered.take(pa.array(at, pa.int64()))
    return bounds.group_by(list(key), use_threads=False).aggregate([]).sort_by(keys)


class Ranges:
    """Ranges of keys between ``bounds`` (rising): one more than there are of them. A key that
    equals a bound is in the range below it."""

    def __init__(self, bounds: pa.Table, key: Sequence[str]) -> None:
        self._bounds = bounds
        self._key = list(key)
        self.count = bounds.num_rows + 1

    def cut(self, table: pa.Table) -> list[pa.Table]:
        """``table``, apart by range; each part is sorted by the key."""
        rows = table.num_rows
        marked = pa.concat_tables(
            [
                table.select(self._key).append_column(_MARK, _repeat(0, rows)),
                self._bounds.select(self._key).append_column(
                    _MARK, _repeat(1, self._bounds.num_rows)
                ),
            ]
        )
        order = pc.sort_indices(
            marked, sort_keys=[(name, "ascending") for name in (*self._key, _MARK)]
        )
        is_bound = pc.greater_equal(order, rows)
        ends = pc.indices_nonzero(is_bound).to_pylist()
        ordered = table.take(order.filter(pc.invert(is_bound)))
        # Each bound before a place took a place itself.
        cuts = [0, *(end - before for before, end in enumerate(ends)), rows]
        return [ordered.slice(low, high - low) for low, high in pairwise(cuts)]


def _repeat(value: int, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.int8()), count)


class Spill:
    """Tables apart by range, a file each; written by one thread, then read part by part."""

    def __init__(
        self, folder: Path, name: str, ranges: Ranges, schema: pa.Schema, budget: Budget
    ) -> None:
        self._paths = [folder / f"{name}-{part}.arrow" for part in range(ranges.count)]
        self._folder = folder
        self._ranges = ranges
        self._schema = schema
        self._budget = budget
        self._files: dict[int, tuple[pa.NativeFile, pa.ipc.RecordBatchStreamWriter]] = {}
        self.sizes = [0] * ranges.count
        """Bytes in memory of each part."""

    def add(self, table: pa.Table) -> None:
        """Raises ``exhausted`` on a full disk or beyond the budget."""
        for part, rows in enumerate(self._ranges.cut(table)):
            if rows.num_rows == 0:
                continue
            self._budget.take(rows.nbytes)
            self.sizes[part] += rows.nbytes
            try:
                if part not in self._files:
                    file = pa.OSFile(str(self._paths[part]), "wb")
                    self._files[part] = (file, pa.ipc.new_stream(file, self._schema))
                self._files[part][1].write_table(rows)
            except OSError as error:
                raise disk_error(error, self._folder) from error

    def sealed(self) -> None:
        """All is added."""
        try:
            for file, writer in self._files.values():
                writer.close()
                file.close()
        except OSError as error:
            raise disk_error(error, self._folder) from error
        self._files = {}

    def read(self, part: int) -> pa.Table:
        """All of a part, which is let go."""
        pieces = list(self.pieces(part))
        if not pieces:
            return self._schema.empty_table()
        return pa.concat_tables(pieces).combine_chunks()

    def peek(self, part: int) -> Iterator[pa.Table]:
        """A part as it was added."""
        if self.sizes[part] == 0:
            return
        with pa.OSFile(str(self._paths[part]), "rb") as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                self._budget.check()
                yield pa.Table.from_batches([batch])

    def pieces(self, part: int) -> Iterator[pa.Table]:
        """As ``peek``; the part is let go at the end."""
        yield from self.peek(part)
        self._paths[part].unlink(missing_ok=True)
        self._budget.give_back(self.sizes[part])
        self.sizes[part] = 0
