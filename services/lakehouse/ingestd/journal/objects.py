"""Event objects as tables: verified by the read cache, decoded once, kept within a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.reading import TableReader
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import DataFile
from lakehouse.model.events import EventKind
from lakehouse.model.identity import Context
from lakehouse.objectstore.buckets import Buckets
from lakehouse.table.events import EVENT_COLUMNS, EVENT_SCHEMA

__all__ = ["EventObjects", "Sift", "Span"]

KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
WHOLE_BYTES_MAX: Final = 16 * 1024 * 1024
WHOLE_ROWS_MAX: Final = 50_000
"""A larger object is read a row group at a time, first what decides, and not kept."""
_SPANS_MAX: Final = 100_000
_OPENINGS_MAX: Final = 4
_NAMES: Final = "entities"
_VERSION_ID: Final = next(c.id for c in EVENT_COLUMNS.columns if c.name == "version")
_INSERT: Final = EventKind.INSERT.value
_GROUP: Final = "__group"
_ROW: Final = "__row"


class Sift(Protocol):
    """Takes what is wanted out of events, far less than it is given: of parts of them, and again of
    what it made of parts. It may be given ``columns`` alone, and others beside them."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __call__(self, events: pa.Table, /) -> pa.Table: ...


@dataclass(frozen=True, slots=True)
class Span:
    """The versions that an object may have events of, both included."""

    low: int
    high: int


class EventObjects:
    """Belongs to one event loop."""

    def __init__(self, buckets: Buckets, reader: TableReader, jobs: ThreadPoolExecutor) -> None:
        self._buckets = buckets
        self._reader = reader
        self._jobs = jobs
        self._kept: OrderedDict[tuple[str, bool], pa.Table] = OrderedDict()
        self._kept_bytes = 0
        self._spans: dict[str, Span] = {}

    def span(self, file: DataFile) -> Span:
        """By its statistics, or as it was seen; ``low`` is 0 where neither says."""
        stats = next((one for one in file.stats if one.column_id == _VERSION_ID), None)
        if stats is not None and stats.null_count == file.rows:
            return Span(file.seq, file.seq)  # written with the change, before it had a version
        if stats is not None and stats.null_count == 0 and stats.minimum and stats.maximum:
            return Span(int(stats.minimum), int(stats.maximum))
        return self._spans.get(file.sha256, Span(0, file.seq))

    async def read(
        self, ctx: Context, files: Sequence[DataFile], entity: str, sift: Sift
    ) -> pa.Table:
        """What ``sift`` takes of the events of ``files``.

        With ``entity`` the lists of entities are read too (else they are null), and what cannot be
        of it may be left out. Raises ``corrupt`` (named), ``unavailable``.
        """
        names = bool(entity)
        tables = [self._kept.get((file.sha256, names)) for file in files]
        missing = [file for file, table in zip(files, tables, strict=True) if table is None]
        if missing:
            await self._buckets.find(ctx, {file.bucket for file in missing})
        opened = await self._open(missing) if missing else []
        try:
            known = [table for table in tables if table is not None]
            made = await run_in(self._jobs, _sifted, known, opened, entity, sift)
        finally:
            for one in opened:
                one.parquet.close()
        for whole in made.whole:
            self._keep((whole.file.sha256, names), whole.events)
        self._spans.update(made.spans)
        while len(self._spans) > _SPANS_MAX:
            del self._spans[next(iter(self._spans))]
        return made.events

    async def _open(self, files: Sequence[DataFile]) -> list[_Opened]:
        """Verified copies, open: one that is dropped from the cache now can still be read."""
        for attempt in range(_OPENINGS_MAX):
            try:
                paths = await self._reader.local(files)
                return await run_in(self._jobs, _opened, files, paths)
            except FileNotFoundError:
                if attempt == _OPENINGS_MAX - 1:
                    break
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
                # The dataset is there; where its objects are is what this process does not know.
                message = "the bucket of a dataset is not known here"
                raise LakehouseError(ErrorKind.UNAVAILABLE, message, **error.fields) from error
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the read cache is too small for what is read at once",
            hint="raise ingest.cache_bytes_max",
        )

    def _keep(self, key: tuple[str, bool], events: pa.Table) -> None:
        if key in self._kept:
            return
        self._kept[key] = events
        self._kept_bytes += events.nbytes
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.nbytes


@dataclass(frozen=True, slots=True)
class _Opened:
    file: DataFile
    parquet: pq.ParquetFile

    def small(self) -> bool:
        footer = self.parquet.metadata
        size = sum(footer.row_group(at).total_byte_size for at in range(footer.num_row_groups))
        return bool(size <= WHOLE_BYTES_MAX and footer.num_rows <= WHOLE_ROWS_MAX)


@dataclass(frozen=True, slots=True)
class _Whole:
    file: DataFile
    events: pa.Table


@dataclass(frozen=True, slots=True)
class _Made:
    events: pa.Table
    whole: list[_Whole]
    spans: dict[str, Span]


def _opened(files: Sequence[DataFile], paths: Sequence[str]) -> list[_Opened]:
    found: list[_Opened] = []
    try:
        for file, path in zip(files, paths, strict=True):
            found.append(_Opened(file, pq.ParquetFile(path, page_checksum_verification=True)))
    except BaseException:
        for one in found:
            one.parquet.close()
        raise
    return found


def _sifted(known: list[pa.Table], opened: Sequence[_Opened], entity: str, sift: Sift) -> _Made:
    whole: list[_Whole] = []
    spans: dict[str, Span] = {}
    large: list[pa.Table] = []
    for one in opened:
        try:
            if one.small():
                events = _filled(one, one.parquet.read(_columns(entity), use_threads=False))
                whole.append(_Whole(one.file, events))
                span = pc.min_max(events["version"])
                spans[one.file.sha256] = Span(span["min"].as_py(), span["max"].as_py())
            else:
                large.append(_of_large(one, entity, sift))
        except (pa.ArrowException, OSError) as error:
            raise LakehouseError(
                ErrorKind.CORRUPT,
                "an event object cannot be read",
                bucket=one.file.bucket,
                key=one.file.key,
                hint="run catalog fsck --deep, restore the object from a backup",
            ) from error
    tables = [EVENT_SCHEMA.empty_table(), *known, *(one.events for one in whole), *large]
    return _Made(sift(pa.concat_tables(tables)), whole, spans)


def _of_large(one: _Opened, entity: str, sift: Sift) -> pa.Table:
    """By what decides, group by group; then the other columns of what was taken."""
    found: pa.Table | None = None
    for group, inserts in _groups(one, entity):
        names = [name for name in sift.columns if name != _NAMES or inserts]
        events = _filled(one, one.parquet.read_row_group(group, names)).select(list(sift.columns))
        events = events.append_column(_GROUP, pa.repeat(group, len(events)))
        events = sift(events.append_column(_ROW, pa.arange(0, len(events))))
        found = events if found is None else sift(pa.concat_tables([found, events]))
    tables = [EVENT_SCHEMA.empty_table()]
    for group in pc.unique(found[_GROUP]).to_pylist() if found is not None else ():
        assert found is not None
        rows = found.filter(pc.equal(found[_GROUP], group))[_ROW]
        events = one.parquet.read_row_group(group, _columns(entity))
        tables.append(_filled(one, events.take(rows)))
    return pa.concat_tables(tables)


def _columns(entity: str) -> list[str]:
    return [name for name in EVENT_SCHEMA.names if entity or name != _NAMES]


def _groups(one: _Opened, entity: str) -> Iterator[tuple[int, bool]]:
    """Row groups that may have an event of ``entity``, and whether they may have an insert."""
    footer = one.parquet.metadata
    for at in range(footer.num_row_groups):
        bounds = _bounds(footer.row_group(at)) if entity else {}
        inserts = bool(entity) and _within(bounds.get("kind"), _INSERT)
        if not entity or inserts or _within(bounds.get("entity"), entity):
            yield at, inserts


def _bounds(group: pq.RowGroupMetaData) -> dict[str, pq.Statistics]:
    columns = (group.column(at) for at in range(group.num_columns))
    return {one.path_in_schema: one.statistics for one in columns}


def _within(statistics: pq.Statistics | None, value: str) -> bool:
    if statistics is None:
        return True
    if not statistics.has_min_max:
        return bool(statistics.num_values)
    low, high = statistics.min, statistics.max
    return bool(low <= value <= high) if isinstance(low, str) else True


def _filled(one: _Opened, events: pa.Table) -> pa.Table:
    """``events`` under ``EVENT_SCHEMA`` with their version: that of the commit that brought the
    object, where it was written before it had one."""
    columns = []
    for field in EVENT_SCHEMA:
        if events.schema.get_field_index(field.name) < 0:
            columns.append(pa.chunked_array([pa.nulls(events.num_rows, field.type)]))
            continue
        values = events[field.name]
        if field.name == "version" and values.null_count:
            values = pc.fill_null(values, one.file.seq)
        columns.append(values.cast(field.type))
    return pa.Table.from_arrays(columns, schema=EVENT_SCHEMA)
