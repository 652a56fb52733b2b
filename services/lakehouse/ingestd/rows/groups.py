"""Row groups of large files, decoded once into a bounded local folder and mapped from there.

Of each group there may be an index of its keys and, where a row of it was wanted, its rows. What is
here was made of verified bytes of immutable objects; it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.lookup import Index, index_of, under_schema
from lakehouse.model.dataset import DataFile
from lakehouse.model.schema import Schema
from lakehouse.table.keys import key_hashes
from lakehouse.table.types import to_arrow

__all__ = ["Footer", "Groups", "Source", "decoding"]

_STRIPES: Final = 32
_FOOTERS_MAX: Final = 4_096
_HELPERS_MAX: Final = 4
_TOGETHER: Final = 2
Bounds = tuple[pa.Array, pa.Array]


@dataclass(frozen=True, slots=True)
class Source:
    """A file, the schema that its rows are read with, the dataset's key, and where its bytes are
    now ("" for nowhere near)."""

    file: DataFile
    schema: Schema
    key: tuple[str, ...]
    path: str

    @property
    def name(self) -> str:
        types = [column.type for column in self.schema.columns if column.name in self.key]
        file = self.file
        return "-".join((file.sha256, file.content, str(file.schema_id), *types))


@dataclass(frozen=True, slots=True)
class Footer:
    """``bounds``: for each key column the least and greatest value of each row group; None where
    nothing is known."""

    metadata: pq.FileMetaData
    bounds: tuple[Bounds | None, ...]


@dataclass(slots=True)
class _Entry:
    path: Path
    size_bytes: int
    table: pa.Table


@contextmanager
def decoding(file: DataFile) -> Iterator[None]:
    """Raise ``corrupt`` where a verified object cannot be read as Parquet."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "an object cannot be read as Parquet",
            bucket=file.bucket,
            key=file.key,
            cause=str(error)[:200],
        ) from error


class Groups:
    """Used by many threads; each thing is made once. None is returned for what would have to be
    read from an object whose bytes are not near."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._numbers = itertools.count()
        self._helpers = ThreadPoolExecutor(min(os.cpu_count() or 1, _HELPERS_MAX), "row-groups")
        self.size_bytes = 0

    def footer(self, source: Source) -> Footer | None:
        """The footer of a file, and what it says of the key."""
        name = "-".join((source.name, *source.key))
        with self._lock:
            known = self._footers.get(name)
            if known is not None:
                self._footers.move_to_end(name)
                return known
        if not source.path:
            return None
        with decoding(source.file):
            metadata = pq.read_metadata(source.path)
        footer = Footer(metadata, tuple(_bounds(metadata, source.schema, n) for n in source.key))
        with self._lock:
            self._footers[name] = footer
            while len(self._footers) > _FOOTERS_MAX:
                self._footers.popitem(last=False)
        return footer

    def index(self, source: Source, groups: Sequence[int], whole: bool) -> Index | None:
        """The keys of ``groups`` by hash, pieces being groups. ``whole``: the groups are all there
        are, and are kept as one index; else there is one group."""
        name = "-".join((source.name, *source.key, "all" if whole else str(groups[0])))

        def make() -> pa.Table:
            hashes = list(self._helpers.map(partial(_hashes, source), groups))
            rows = [len(one) for one in hashes]
            index = index_of(pa.concat_arrays(hashes), rows, groups)
            return pa.table([index.hashes, index.pieces, index.rows], ["hash", "piece", "row"])

        table = self._mapped(name, make if source.path else None)
        if table is None:
            return None
        return Index(*(column.chunk(0) for column in table.columns))

    def rows(self, source: Source, groups: Sequence[int]) -> list[pa.Table | None]:
        """All columns of each of ``groups``, as the source's schema has them."""
        near = [self._known(_rows_name(source, group)) for group in groups]
        lacking = [at for at, table in enumerate(near) if table is None]
        if len(lacking) < _TOGETHER:
            made = [self._rows(source, groups[at]) for at in lacking]
        else:
            made = list(
                self._helpers.map(partial(self._rows, source), [groups[at] for at in lacking])
            )
        for at, table in zip(lacking, made, strict=True):
            near[at] = table
        return near

    def close(self) -> None:
        """Let the threads go."""
        self._helpers.shutdown(wait=True, cancel_futures=True)

    def _rows(self, source: Source, group: int) -> pa.Table | None:
        name = _rows_name(source, group)
        return self._mapped(name, (lambda: _rows(source, group)) if source.path else None)

    def _mapped(self, name: str, make: Callable[[], pa.Table] | None) -> pa.Table | None:
        known = self._known(name)
        if known is not None or make is None:
            return known
        with self._stripes[hash(name) % _STRIPES]:
            known = self._known(name)
            if known is not None:
                return known
            made = make().combine_chunks()
            try:
                return self._keep(name, made)
            except OSError:
                # A full disk costs time, not the answer.
                return made

    def _known(self, name: str) -> pa.Table | None:
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return None
            self._entries.move_to_end(name)
            return entry.table

    def _keep(self, name: str, table: pa.Table) -> pa.Table:
        # Never a name of before: what was mapped from there may still be read.
        path = self._folder / f"{next(self._numbers)}.arrow"
        try:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        # The mapping lives on in the table's buffers; the file may be closed, and even removed.
        with pa.memory_map(str(path)) as mapped:
            kept = pa.ipc.open_file(mapped).read_all()
            entry = _Entry(path, mapped.size(), kept)
        with self._lock:
            self._entries[name] = entry
            self.size_bytes += entry.size_bytes
            while self.size_bytes > self._bytes_max and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self.size_bytes -= oldest.size_bytes
                with contextlib.suppress(OSError):
                    oldest.path.unlink()
        return kept


def _rows_name(source: Source, group: int) -> str:
    return f"{source.name}-{group}-rows"


def _bounds(metadata: pq.FileMetaData, schema: Schema, name: str) -> Bounds | None:
    """Of a column in each group, where its type has an order that both sides agree on."""
    types = {column.name: column.type for column in schema.columns}
    leaves = [metadata.schema.column(at).path for at in range(metadata.num_columns)]
    if leaves.count(name) != 1 or types[name].startswith("decimal("):
        return None
    at = leaves.index(name)
    kind = pa.int8() if types[name] == "bool" else to_arrow(types[name])
    try:
        ends = [_ends(metadata.row_group(g).column(at)) for g in range(metadata.num_row_groups)]
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        return pa.array(lows, kind), pa.array(highs, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def _ends(column: pq.ColumnChunkMetaData) -> tuple[object, object]:
    stats = column.statistics if column.is_stats_set else None
    return (None, None) if stats is None or not stats.has_min_max else (stats.min, stats.max)


def _hashes(source: Source, group: int) -> pa.Array:
    by_name = {column.name: column for column in source.schema.columns}
    keyed = Schema(source.schema.id, tuple(by_name[name] for name in source.key))
    with decoding(source.file), pq.ParquetFile(source.path) as parquet:
        table = parquet.read_row_group(group, columns=list(source.key))
    return key_hashes(under_schema(table, keyed, keyed), keyed, source.key)


def _rows(source: Source, group: int) -> pa.Table:
    with decoding(source.file), pq.ParquetFile(source.path) as parquet:
        return under_schema(parquet.read_row_group(group), source.schema, source.schema)
