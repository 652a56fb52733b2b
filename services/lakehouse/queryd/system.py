"""``system.*``: the catalog itself as relations, over its contract alone; beside them what the
contracts for storage and for the journal know now (``live``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from sqlglot import exp

from lakehouse.contracts.catalog import (
    AsOf,
    CatalogService,
    DatasetSnapshot,
    GetRequest,
    ListRequest,
    PageRequest,
    SnapshotRequest,
)
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import to_datetime
from lakehouse.model.dataset import Card, DataFile, Dataset, DatasetStatus
from lakehouse.model.identity import Context
from lakehouse.model.schema import Column, Schema
from lakehouse.queryd.live import LIVE_COLUMNS, LiveTables
from lakehouse.queryd.scan import Relation, relation
from lakehouse.table.types import arrow_schema

SYSTEM_BUCKET: Final = "system"
_COLUMNS: Final[dict[str, str]] = {
    "datasets": "id:string name:string status:string owner:string description:string"
    " sensitivity:string tags:list<string> primary_key:list<string> row_count:int64 files:int64"
    " size_bytes:int64 version:int64 created_at:timestamptz updated_at:timestamptz bucket:string"
    " fingerprint:string",
    "columns": "dataset:string position:int64 column_id:int64 name:string type:string",
    "files": "dataset:string ordinal:int64 bucket:string key:string size_bytes:int64 rows:int64"
    " sha256:string schema_id:int64 external:bool content:string seq:int64",
    "versions": "dataset:string version:int64 at:timestamptz operation:string actor:string"
    " request_id:string rows_added:int64 rows_removed:int64 files_added:int64 files_removed:int64"
    " row_count:int64 schema_id:int64 source:string workspace:string reason:string",
}
_ALL: Final = {**_COLUMNS, **LIVE_COLUMNS}
SYSTEM_TABLES: Final = tuple(sorted(_ALL))
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class SystemRelation:
    """A relation whose one file lies in our own scratch folder."""

    relation: Relation
    path: str


def schema_of(table: str) -> Schema:
    """The columns of ``system.<table>``. Raises ``not_found``."""
    if table not in _ALL:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no such system table",
            table=f"system.{table}"[:80],
            hint="there are " + " ".join(f"system.{name}" for name in SYSTEM_TABLES),
        )
    pairs = [item.split(":", 1) for item in _ALL[table].split()]
    columns = tuple(Column(index + 1, name, kind) for index, (name, kind) in enumerate(pairs))
    return Schema(1, columns)


class SystemTables:
    """Reads the catalog page by page; the last few results are kept by version."""

    def __init__(self, catalog: CatalogService, folder: Path, live: LiveTables) -> None:
        self._live = live
        self._catalog = catalog
        self._folder = folder
        self._made = 0
        self._kept: dict[tuple[str, int], SystemRelation] = {}

    async def pin(self, ctx: Context, as_of: AsOf) -> tuple[AsOf, int]:
        """``as_of`` as the version that it means. Raises ``not_found``."""
        if as_of.version is not None:
            return as_of, as_of.version
        if as_of.time is not None or as_of.tag:
            version = (await self._catalog.snapshot(ctx, SnapshotRequest((), as_of))).version
        else:
            version = (await self._catalog.list(ctx, ListRequest(limit=1))).version
        return AsOf(version=version), version

    async def open(
        self, ctx: Context, table: str, as_of: AsOf, version: int, tree: exp.Expr | None = None
    ) -> SystemRelation:
        """``system.<table>`` at ``as_of``, which is ``version`` (0 for what is as of now).

        Live tables are as of now but for the events, which have a version each; they have the rows
        that the statement ``tree`` may need (None: all), and are the caller's to delete.
        """
        schema = schema_of(table)
        if table in LIVE_COLUMNS:
            until = version if table == "events" else 0
            live = await self._live.open(ctx, table, schema, tree, until)
            name = Path(live.path).name
            return SystemRelation(_relation(table, schema, version, live.rows, name), live.path)
        kept = self._kept.get((table, version)) if version else None
        if kept is not None:
            return kept
        rows = await _ROWS[table](self._catalog, ctx, await self._datasets(ctx, as_of), as_of)
        self._made += 1
        name = f"{table}-{version}-{self._made}.parquet"
        path = self._folder / name
        await run_blocking(_write, path, rows, schema)
        made = SystemRelation(_relation(table, schema, version, len(rows), name), str(path))
        if version:
            self._keep((table, version), made)
        return made

    def _keep(self, key: tuple[str, int], made: SystemRelation) -> None:
        self._kept[key] = made
        while len(self._kept) > 4 * len(SYSTEM_TABLES):
            oldest = next(iter(self._kept))
            del self._kept[oldest]  # its file stays until the folder goes: a query may read it

    async def _datasets(self, ctx: Context, as_of: AsOf) -> list[Dataset]:
        """Every dataset as it was, dropped ones too: one pass over the list if nothing has
        changed since, else one by one."""
        found, versions = await self._current(ctx)
        if versions == {as_of.version}:
            return found
        then = []
        for name in sorted({dataset.name for dataset in found}):
            try:
                request = GetRequest(name, as_of, include_dropped=True)
                then.append((await self._catalog.get(ctx, request)).dataset)
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
        return then

    async def _current(self, ctx: Context) -> tuple[list[Dataset], set[int]]:
        """All datasets of now, and the versions that the pages were read at."""
        found: list[Dataset] = []
        versions: set[int] = set()
        cursor = ""
        while True:
            request = ListRequest(include_dropped=True, limit=_PAGE, cursor=cursor)
            page = await self._catalog.list(ctx, request)
            versions.add(page.version)
            found += page.datasets
            cursor = page.cursor
            if not cursor:
                return found, versions


def _write(path: Path, rows: list[dict[str, Any]], schema: Schema) -> None:
    import pyarrow.parquet as pq  # late: queries on datasets alone do not need it here

    pq.write_table(pa.Table.from_pylist(rows, arrow_schema(schema)), path)


def _relation(table: str, schema: Schema, version: int, rows: int, key: str) -> Relation:
    return made_relation(f"system.{table}", schema, version, rows, key)


def made_relation(name: str, schema: Schema, version: int, rows: int, key: str) -> Relation:
    """A relation of one file of ours, ``key``, in the scratch folder."""
    file = DataFile(key, 0, rows, key, bucket=SYSTEM_BUCKET)
    never = to_datetime(0)
    dataset = Dataset(
        id=name,
        name=name,
        fingerprint="",
        schema=schema,
        status=DatasetStatus.LIVE,
        card=Card(),
        created_at=never,
        updated_at=never,
        version=version,
        files=1,
        size_bytes=0,
        row_count=rows,
        bucket=SYSTEM_BUCKET,
    )
    return relation(DatasetSnapshot(dataset, (file,), (schema,)))


Rows = list[dict[str, Any]]


async def _dataset_rows(
    catalog: CatalogService, ctx: Context, datasets: list[Dataset], as_of: AsOf
) -> Rows:
    return [
        {
            "id": one.id,
            "name": one.name,
            "status": one.status.value,
            "owner": one.card.owner,
            "description": one.card.description,
            "sensitivity": one.card.sensitivity.value,
            "tags": list(one.card.tags),
            "primary_key": list(one.primary_key),
            "row_count": one.row_count,
            "files": one.files,
            "size_bytes": one.size_bytes,
            "version": one.version,
            "created_at": one.created_at,
            "updated_at": one.updated_at,
            "bucket": one.bucket,
            "fingerprint": one.fingerprint,
        }
        for one in datasets
    ]


async def _column_rows(
    catalog: CatalogService, ctx: Context, datasets: list[Dataset], as_of: AsOf
) -> Rows:
    return [
        {
            "dataset": one.name,
            "position": position,
            "column_id": column.id,
            "name": column.name,
            "type": column.type,
        }
        for one in datasets
        if one.status is not DatasetStatus.DROPPED
        for position, column in enumerate(one.schema.columns, start=1)
    ]


async def _file_rows(
    catalog: CatalogService, ctx: Context, datasets: list[Dataset], as_of: AsOf
) -> Rows:
    rows: Rows = []
    for one in datasets:
        if one.status is DatasetStatus.DROPPED:
            continue
        async for page in _pages(catalog.files, ctx, PageRequest(one.name, as_of, _PAGE)):
            rows += [
                {
                    "dataset": one.name,
                    "ordinal": file.ordinal,
                    "bucket": file.bucket,
                    "key": file.key,
                    "size_bytes": file.size_bytes,
                    "rows": file.rows,
                    "sha256": file.sha256,
                    "schema_id": file.schema_id,
                    "external": file.external,
                    "content": file.content,
                    "seq": file.seq,
                }
                for file in page.files
            ]
    return rows


async def _version_rows(
    catalog: CatalogService, ctx: Context, datasets: list[Dataset], as_of: AsOf
) -> Rows:
    rows: Rows = []
    for one in datasets:
        if one.status is DatasetStatus.DROPPED:
            continue
        async for page in _pages(catalog.versions, ctx, PageRequest(one.name, as_of, _PAGE)):
            rows += [
                {
                    "dataset": one.name,
                    "version": entry.version,
                    "at": entry.at,
                    "operation": entry.operation,
                    "actor": entry.actor,
                    "request_id": entry.request_id,
                    "rows_added": entry.rows_added,
                    "rows_removed": entry.rows_removed,
                    "files_added": entry.files_added,
                    "files_removed": entry.files_removed,
                    "row_count": entry.row_count,
                    "schema_id": entry.schema_id,
                    "source": entry.source,
                    "workspace": entry.workspace,
                    "reason": entry.reason,
                }
                for entry in page.versions
            ]
    return rows


async def _pages(
    method: Callable[[Context, PageRequest], Awaitable[Any]], ctx: Context, first: PageRequest
) -> AsyncIterator[Any]:
    request = first
    while True:
        page = await method(ctx, request)
        yield page
        if not page.cursor:
            return
        request = replace(request, cursor=page.cursor)


_ROWS: Final[dict[str, Callable[..., Awaitable[Rows]]]] = {
    "datasets": _dataset_rows,
    "columns": _column_rows,
    "files": _file_rows,
    "versions": _version_rows,
}
