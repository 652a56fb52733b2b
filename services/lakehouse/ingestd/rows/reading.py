"""Tables as they can be seen: whole rows by key, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.contracts.catalog import AsOf, CatalogService, DatasetSnapshot, SnapshotRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import KEYS, ROWS, DataFile
from lakehouse.model.identity import Context
from lakehouse.model.schema import Schema
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.objectstore.rescue import KnownReads
from lakehouse.table.codec import fit
from lakehouse.table.types import arrow_schema

__all__ = ["TableReader", "under_schema"]

_FETCHES_MAX: Final = 16
_NOW: Final = AsOf()


class TableReader:
    """Reads the rows of datasets at a snapshot. Belongs to one event loop."""

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
        self._cache: ReadCache | None = None
        self._objects = Path()

    def start(self, folder: Path) -> None:
        """``folder``: local scratch that is this process's own."""
        self._objects = folder / "objects"
        self._cache = ReadCache(
            self._objects,
            self._settings.cache_bytes_max,
            self._buckets,
            _FETCHES_MAX,
            self._known,
            "ingest.cache_bytes_max",
        )

    def close(self) -> None:
        """Let what is held locally go; idempotent."""
        if self._cache is not None:
            self._cache.close()
        self._cache = None

    async def snapshot(
        self, ctx: Context, name: str, as_of: AsOf = _NOW
    ) -> tuple[DatasetSnapshot, int]:
        """A dataset's files at a version, and that version of the store."""
        result = await self._catalog.snapshot(ctx, SnapshotRequest((name,), as_of))
        return result.datasets[0], result.version

    async def find(self, snapshot: DatasetSnapshot, keys: pa.Table) -> pa.Table:
        """The visible whole rows of ``keys`` (a table of the key columns, unique), in any order."""
        from lakehouse.table.keys import match

        key = snapshot.dataset.primary_key
        table = await self.read(snapshot)
        return await run_in(self._jobs, lambda: table.filter(match(table, keys, key).is_valid()))

    async def read(
        self, snapshot: DatasetSnapshot, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """All visible rows."""
        from lakehouse.table.merge import Layer, tombstones, visible

        dataset = snapshot.dataset
        key = dataset.primary_key
        files = [file for file in snapshot.files if file.content in (ROWS, KEYS)]
        paths = await self.local(files)
        schemas = {schema.id: schema for schema in snapshot.schemas}

        def work() -> pa.Table:
            rows, keys = [], []
            for file, path in zip(files, paths, strict=True):
                table = pq.read_table(path)
                if file.content == KEYS:
                    keys.append(Layer(file.seq, table))
                else:
                    written = schemas.get(file.schema_id, dataset.schema)
                    rows.append(Layer(file.seq, under_schema(table, written, dataset.schema)))
            if keys:
                tombs = tombstones(keys, key)
                seen = [visible(layer, tombs, key) for layer in rows]
            else:
                seen = [layer.table for layer in rows]
            whole = pa.concat_tables([arrow_schema(dataset.schema).empty_table(), *seen])
            return whole.select(list(columns)) if columns is not None else whole

        return await run_in(self._jobs, work)

    async def local(self, files: Sequence[DataFile]) -> list[str]:
        """Local paths of verified copies of ``files``, in order."""
        if self._cache is None:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "ingest has not been started")
        self._objects.mkdir(exist_ok=True)
        with self._cache.held(files):
            return (await self._cache.paths(files)).paths


def under_schema(table: pa.Table, written: Schema, wanted: Schema) -> pa.Table:
    """``table`` of a file that was written with ``written``, under ``wanted``: columns by field id,
    null where the file lacks one, cast where a type was widened."""
    there = {column.id: column.name for column in written.columns}
    target = arrow_schema(wanted)
    columns: list[pa.ChunkedArray] = []
    for column, field in zip(wanted.columns, target, strict=True):
        name = there.get(column.id)
        if name is None or table.schema.get_field_index(name) < 0:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
            continue
        values = table.column(name)
        if values.type != field.type:
            chunks = [fit(chunk, column.type) for chunk in values.chunks]
            if any(chunk is None for chunk in chunks):
                raise LakehouseError(
                    ErrorKind.CORRUPT,
                    "a file has values that are not of the column's type",
                    column=column.name,
                    type_text=column.type,
                )
            values = pa.chunked_array(chunks, field.type)
        columns.append(values)
    return pa.Table.from_arrays(columns, schema=target)
