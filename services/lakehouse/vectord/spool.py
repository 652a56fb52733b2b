"""Rows on their way, in a file without a name once they are more than memory should hold."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

__all__ = ["Spool"]

_IN_MEMORY: Final = 32 << 20


class Spool:
    """A queue of tables of one schema, written to its end and then read, as often as wanted.

    Blocking: it belongs into a thread. A process that dies leaves nothing behind.
    """

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=folder)  # noqa: SIM115
        # Also where whoever made it was cancelled before it had it.
        self.close = weakref.finalize(self, self._file.close)
        self._writer: pa.RecordBatchStreamWriter | None = None
        self.rows = 0

    def write(self, data: bytes) -> None:
        """Bytes of an Arrow IPC stream, as they come; not together with ``append``."""
        self._file.write(data)

    def append(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), table.schema)
        self._writer.write_table(table)
        self.rows += table.num_rows

    def tables(self, rows: int, bytes_max: int = 1 << 40) -> Iterator[pa.Table]:
        """What was written, in its order, ``rows`` at a time (fewer where they have more than
        ``bytes_max`` bytes, or at the end)."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._file.seek(0)
        if not self._file.read(1):
            return
        self._file.seek(0)
        held: list[pa.RecordBatch] = []
        count = 0
        with pa.ipc.open_stream(pa.PythonFile(self._file, "r")) as reader:
            for batch in reader:
                held.append(batch)
                count += batch.num_rows
                if count >= rows:
                    whole = pa.Table.from_batches(held)
                    full = count - count % rows
                    for at in range(0, full, rows):
                        yield from _by_size(whole.slice(at, rows), bytes_max)
                    held = whole.slice(full).to_batches()
                    count -= full
        if count:
            yield from _by_size(pa.Table.from_batches(held), bytes_max)

    def whole(self) -> pa.Table:
        """All that was written, which is something."""
        self._file.seek(0)
        with pa.ipc.open_stream(pa.PythonFile(self._file, "r")) as reader:
            return reader.read_all()


def _by_size(table: pa.Table, bytes_max: int) -> Iterator[pa.Table]:
    if table.num_rows > 1 and table.nbytes > bytes_max:
        half = table.num_rows // 2
        yield from _by_size(table.slice(0, half), bytes_max)
        yield from _by_size(table.slice(half), bytes_max)
    elif table.num_rows:
        yield table
