"""Tables as they can be seen: whole rows by key, or all of them, batch by batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.contracts.catalog import AsOf, CatalogService, DatasetSnapshot, SnapshotRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.beside import Beside
from lakehouse.ingestd.rows.finding import Finder, Found, place
from lakehouse.ingestd.rows.groups import Groups, decoding
from lakehouse.ingestd.rows.lookup import under_schema
from lakehouse.ingestd.rows.recent import Place, Recent, is_small
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import CONTENTS, KEYS, ROWS, DataFile, Dataset
from lakehouse.model.identity import Context
from lakehouse.model.schema import Schema
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.objectstore.rescue import KnownReads
from lakehouse.table.keys import key_columns
from lakehouse.table.merge import Layer, tombstones, visible
from lakehouse.table.types import arrow_schema

__all__ = ["TableReader", "under_schema"]

R = TypeVar("R")
_FETCHES_MAX: Final = 16
_NOW: Final = AsOf()
_READ_BYTES_MAX: Final = 1 << 30
_TOMBS_MAX: Final = 20_000_000
_TOGETHER: Final = 64
_TOGETHER_BYTES: Final = 512 << 20


@dataclass(slots=True)
class _Open:
    """``folders`` have to be made before the first use."""

    cache: ReadCache
    finder: Finder
    recent: Recent
    folders: tuple[Path, ...]


class TableReader:
    """Reads the rows of datasets at a snapshot. Belongs to one event loop; what takes longer than
    a moment is done by ``jobs``."""

    def __init__(
        self,
        settings: IngestSettings,
        catalog: CatalogService,
        buckets: Buckets,
        known: KnownReads,
        jobs: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._buckets = buckets
        self._known = known
        self._jobs = jobs
        self._beside = Beside(jobs)
        self._parts: _Open | None = None

    def start(self, folder: Path) -> None:
        """``folder``: local scratch that is this process's own; filled when it is needed."""
        settings = self._settings
        objects, decoded = folder / "objects", folder / "decoded"
        cache = ReadCache(
            objects,
            settings.cache_bytes_max,
            self._buckets,
            _FETCHES_MAX,
            self._known,
            "ingest.cache_bytes_max",
        )
        recent = Recent(settings.changes_memory_bytes_max)
        groups = Groups(decoded, settings.decoded_cache_bytes_max)
        finder = Finder(groups, recent, settings.changes_memory_bytes_max)
        self._parts = _Open(cache, finder, recent, (objects, decoded))

    def close(self) -> None:
        """Let what is held locally go; idempotent."""
        if self._parts is not None:
            self._parts.cache.close()
            self._parts.finder.close()
        self._parts = None

    async def snapshot(
        self, ctx: Context, name: str, as_of: AsOf = _NOW
    ) -> tuple[DatasetSnapshot, int]:
        """A dataset's files at a version, and that version of the store.

        Raises ``not_found`` (dataset, or a version that is not retained); ``conflict`` for files
        that this version of the program does not know how to read.
        """
        result = await self._catalog.snapshot(ctx, SnapshotRequest((name,), as_of))
        snapshot = result.datasets[0]
        for file in snapshot.files:
            if file.content not in CONTENTS or file.encryption:
                raise _unreadable(snapshot.dataset, file)
        await self._buckets.find(ctx, tuple({file.bucket for file in snapshot.files}))
        return snapshot, result.version

    async def find(self, snapshot: DatasetSnapshot, keys: pa.Table) -> pa.Table:
        """The visible whole rows of ``keys``, in any order; of keys that are not there none.

        Args:
            keys: the columns of the primary key as the schema has them, unique, without nulls.
        """
        return await self.found(snapshot, keys, lambda rows: rows)

    async def found(
        self, snapshot: DatasetSnapshot, keys: pa.Table, then: Callable[[pa.Table], R]
    ) -> R:
        """What ``then`` makes of what ``find`` finds, in the thread that found it."""
        parts = self._opened()
        keys = keys.select(list(snapshot.dataset.primary_key))
        snapshot = await self._beside.filled(snapshot, parts.cache)
        paths: dict[Place, str] = {}

        def work() -> tuple[Found, list[R]]:
            found = parts.finder.find(snapshot, keys, paths)
            return found, [] if found.missing else [then(found.rows)]

        with ExitStack() as stack:
            while True:
                found, made = await run_in(self._jobs, work)
                if not found.missing:
                    return made[0]
                stack.enter_context(parts.cache.held(found.missing))
                near = await self._near(parts, found.missing)
                if near.keys() <= paths.keys():
                    raise LakehouseError(ErrorKind.INTERNAL, "a file that is near was missed")
                paths |= near

    async def remember(
        self, dataset: Dataset, files: Sequence[DataFile], tables: Sequence[pa.Table]
    ) -> None:
        """Spare the next reader of ``files``, just committed, to fetch and to decode them: their
        rows and keys are ``tables``, as they were written."""
        small = [
            (file, table)
            for file, table in zip(files, tables, strict=True)
            if is_small(file) and file.content in (ROWS, KEYS)
        ]
        if small and dataset.primary_key:
            places = [place(file) for file, _ in small]
            decoded = [_as_kept(dataset, file, table) for file, table in small]
            await run_in(self._jobs, self._opened().recent.add, dataset, places, decoded)

    async def read(
        self, snapshot: DatasetSnapshot, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """All visible rows. Raises ``exhausted`` beyond a gigabyte."""
        schema = _projected(snapshot.dataset.schema, columns)
        tables = [arrow_schema(schema).empty_table()]
        size = 0
        async for table in self.iterate(snapshot, columns):
            size += table.nbytes
            if size > _READ_BYTES_MAX:
                raise LakehouseError(
                    ErrorKind.EXHAUSTED,
                    "the dataset is too large to be held in memory",
                    dataset=snapshot.dataset.name,
                    bytes_max=_READ_BYTES_MAX,
                )
            tables.append(table)
        return pa.concat_tables(tables)

    async def iterate(
        self, snapshot: DatasetSnapshot, columns: Sequence[str] | None = None
    ) -> AsyncIterator[pa.Table]:
        """All visible rows, ``columns`` of them, at most a row group of a file at a time."""
        dataset = snapshot.dataset
        wanted = _projected(dataset.schema, columns)
        names = list(wanted.names())
        tombs = await self._tombs(snapshot)
        if tombs is not None:
            missing = [name for name in dataset.primary_key if name not in names]
            wanted = _projected(dataset.schema, [*names, *missing])
        files = [file for file in snapshot.files if file.content == ROWS]
        async for file, table in self._groups_of(snapshot, files, wanted):
            seen = table
            if tombs is not None:
                layer = Layer(file.seq, table)
                seen = await run_in(self._jobs, visible, layer, tombs, dataset.primary_key)
            if seen.num_rows:
                yield seen.select(names)

    async def keys(
        self, snapshot: DatasetSnapshot, files: Sequence[DataFile]
    ) -> AsyncIterator[pa.Table]:
        """The key columns of ``files`` (rows or keys) of ``snapshot``, whether visible or not."""
        dataset = snapshot.dataset
        keyed = Schema(dataset.schema.id, key_columns(dataset.schema, dataset.primary_key))
        async for _, table in self._groups_of(snapshot, files, keyed):
            yield table

    async def _groups_of(
        self, snapshot: DatasetSnapshot, files: Sequence[DataFile], wanted: Schema
    ) -> AsyncIterator[tuple[DataFile, pa.Table]]:
        """The columns ``wanted`` of ``files``, a row group at a time."""
        now = snapshot.dataset.schema
        schemas = {schema.id: schema for schema in snapshot.schemas}
        for some in _stretches(files):
            async with self.holding(some) as paths:
                for file, path in zip(some, paths, strict=True):
                    written = now if file.content == KEYS else schemas.get(file.schema_id, now)
                    group = 0
                    while group >= 0:
                        at = (file, path, group)
                        table, group = await run_in(self._jobs, _group, at, written, wanted)
                        yield file, table

    async def _tombs(self, snapshot: DatasetSnapshot) -> pa.Table | None:
        """``table.merge.tombstones`` of all keys files; None if there are none."""
        files = [file for file in snapshot.files if file.content == KEYS]
        if not files:
            return None
        if sum(file.rows for file in files) > _TOMBS_MAX:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "the dataset has too many row changes to be read at once",
                dataset=snapshot.dataset.name,
                maximum=_TOMBS_MAX,
                hint="compact it first",
            )
        dataset = snapshot.dataset
        keyed = Schema(dataset.schema.id, key_columns(dataset.schema, dataset.primary_key))
        async with self.holding(files) as paths:

            def work() -> pa.Table:
                layers = [
                    Layer(file.seq, _all(file, path, keyed))
                    for file, path in zip(files, paths, strict=True)
                ]
                return tombstones(layers, dataset.primary_key)

            return await run_in(self._jobs, work)

    async def local(self, files: Sequence[DataFile]) -> list[str]:
        """Local paths of verified copies of ``files``, in order. They may go as soon as there is no
        room for all: who needs them longer uses ``holding``."""
        async with self.holding(files) as paths:
            return paths

    @asynccontextmanager
    async def holding(self, files: Sequence[DataFile]) -> AsyncIterator[list[str]]:
        """As ``local``; the copies stay as long as the block lasts."""
        parts = self._opened()
        with parts.cache.held(files):
            near = await self._near(parts, files)
            yield [near[place(file)] for file in files]

    @staticmethod
    async def _near(parts: _Open, files: Sequence[DataFile]) -> Mapping[Place, str]:
        paths = (await parts.cache.paths(files)).paths
        return {place(file): path for file, path in zip(files, paths, strict=True)}

    def _opened(self) -> _Open:
        if self._parts is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "ingest has not been started")
        for folder in self._parts.folders:
            folder.mkdir(exist_ok=True)
        self._parts.folders = ()
        return self._parts


def _stretches(files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """Files to be fetched together: many small ones, few large ones."""
    some: list[DataFile] = []
    size = 0
    for file in files:
        if some and (len(some) == _TOGETHER or size + file.size_bytes > _TOGETHER_BYTES):
            yield some
            some, size = [], 0
        some.append(file)
        size += file.size_bytes
    if some:
        yield some


def _unreadable(dataset: Dataset, file: DataFile) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CONFLICT,
        "the dataset has files that this version cannot read",
        dataset=dataset.name,
        content=file.content[:80],
        encryption=file.encryption[:80],
        hint="a newer version of the program wrote them: read them with it",
    )


def _projected(schema: Schema, columns: Sequence[str] | None) -> Schema:
    if columns is None:
        return schema
    by_name = {column.name: column for column in schema.columns}
    return Schema(schema.id, tuple(by_name[name] for name in columns))


def _as_kept(dataset: Dataset, file: DataFile, table: pa.Table) -> pa.Table:
    if file.content == KEYS:
        return table.select(list(dataset.primary_key)).combine_chunks()
    return table.combine_chunks()


def _group(at: tuple[DataFile, str, int], written: Schema, wanted: Schema) -> tuple[pa.Table, int]:
    """A row group under ``wanted``, and the number of the next one; -1 if it was the last."""
    file, path, group = at
    there = {column.id: column.name for column in written.columns}
    names = [there[column.id] for column in wanted.columns if column.id in there]
    with decoding(file), pq.ParquetFile(path) as parquet:
        count = parquet.num_row_groups
        if count == 0:
            return arrow_schema(wanted).empty_table(), -1
        table = parquet.read_row_group(group, columns=names)
    table = under_schema(table, written, wanted)
    return table, group + 1 if group + 1 < count else -1


def _all(file: DataFile, path: str, schema: Schema) -> pa.Table:
    with decoding(file), pq.ParquetFile(path) as parquet:
        return under_schema(parquet.read(columns=list(schema.names())), schema, schema)
