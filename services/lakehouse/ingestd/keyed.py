"""What a file does to a dataset with a primary key: which rows come, change and go, by key.

Decided against the rows that are there while nobody else in this process changes them; that nobody
elsewhere did is what the commit requires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.contracts.ingest import IngestReport
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.convert import Outcome
from lakehouse.ingestd.deciding import Action
from lakehouse.ingestd.parquet_out import LocalParquet
from lakehouse.ingestd.rows.changing import check_changeable
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.publishing import Put, Told, event_table, put_changes
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import EVENTS, DataFile, Dataset
from lakehouse.model.identity import Context
from lakehouse.model.schema import Schema
from lakehouse.table.changes import RowChanges, difference, upsert
from lakehouse.table.events import EVENT_COLUMNS
from lakehouse.table.keys import entity_texts, keys_schema
from lakehouse.table.types import arrow_schema

__all__ = [
    "EXISTING_KEYS",
    "Delta",
    "is_keyed",
    "plan",
    "put_delta",
    "snapshot_of",
    "with_changes",
]

EXISTING_KEYS: Final = "existing_keys"
"""The field of an error that no other attempt would spare."""
_NAMED_MAX: Final = 10
_LOOKED_UP: Final = 100_000


@dataclass(frozen=True, slots=True)
class Delta:
    """What goes into the commit beside a file's own rows.

    Attributes:
        dataset: as it was when this was decided; the commit requires its rows to be those.
        put: for an upsert rows, keys and events; else the events alone. Nothing until it is put.
    """

    dataset: Dataset
    changes: RowChanges
    put: Put = Put()

    @property
    def nothing(self) -> bool:
        """True if the rows are so already."""
        return self.changes.empty

    @property
    def files(self) -> tuple[DataFile, ...]:
        return self.put.files


def is_keyed(action: Action, dataset: Dataset) -> bool:
    """Whether what ``action`` does to ``dataset`` is told row by row."""
    return bool(dataset.primary_key) and action in (Action.APPEND, Action.REPLACE, Action.UPSERT)


def with_changes(report: IngestReport, action: Action, changes: RowChanges) -> IngestReport:
    """``report`` with what became of rows, by key."""
    if action is Action.APPEND:
        return report
    return replace(
        report,
        inserted=changes.inserted,
        updated=changes.updated,
        deleted=changes.deleted,
        unchanged=changes.unchanged,
    )


async def snapshot_of(parts: RowParts, ctx: Context, dataset: Dataset) -> DatasetSnapshot:
    """``dataset`` as it is now. Raises ``conflict`` if it is another by now: decide anew."""
    snapshot, _ = await parts.reader.snapshot(ctx, dataset.name)
    now = snapshot.dataset
    if (now.id, now.schema, now.primary_key) != (dataset.id, dataset.schema, dataset.primary_key):
        raise LakehouseError(
            ErrorKind.CONFLICT, "the dataset changed meanwhile", dataset=dataset.name
        )
    check_changeable(now)
    return snapshot


async def plan(
    parts: RowParts, action: Action, snapshot: DatasetSnapshot, outcome: Outcome
) -> Delta:
    """Raises ``conflict`` naming keys that are there already (append), ``exhausted`` naming the
    limit where the rows do not fit into memory."""
    dataset = snapshot.dataset
    schema, key = dataset.schema, dataset.primary_key
    bound = parts.settings.keyed_bytes_max
    if action is Action.APPEND:
        keys = await run_in(parts.jobs, _rows_of, outcome.files, _keyed(dataset), bound)
        await _check_new(parts, snapshot, keys)
        return Delta(dataset, _all_new(keys, dataset))
    new = await run_in(parts.jobs, _rows_of, outcome.files, schema, bound)
    if action is Action.UPSERT:
        keys = new.select(list(key))
        found = await _found(parts, snapshot, keys)
        return Delta(dataset, await run_in(parts.jobs, upsert, new, found, schema, key))
    old = await _whole(parts, snapshot, bound)
    return Delta(dataset, await run_in(parts.jobs, difference, old, new, schema, key))


async def put_delta(
    parts: RowParts,
    ctx: Context,
    delta: Delta,
    told: Told,
    rows: Sequence[DataFile],
    session_id: str,
) -> Delta:
    """``delta`` with its objects put. ``rows``: those of the file, where they were put as it has
    them."""
    if delta.nothing:
        return delta
    dataset, changes = delta.dataset, delta.changes
    if told.operation == Action.UPSERT.value:
        put = await put_changes(parts, ctx, dataset, session_id, changes, told)
        return replace(delta, put=put)
    made = rows[0].key if rows else "", parts.clock.now_us()
    events = await run_in(parts.jobs, event_table, ctx, dataset, changes, told, made)
    file = await parts.writer.put(ctx, dataset, session_id, events, EVENTS, EVENT_COLUMNS)
    return replace(delta, put=Put((file,), (events,)))


def _keyed(dataset: Dataset) -> Schema:
    by_name = {column.name: column for column in dataset.schema.columns}
    return Schema(dataset.schema.id, tuple(by_name[name] for name in dataset.primary_key))


def _rows_of(files: Sequence[LocalParquet], schema: Schema, bytes_max: int) -> pa.Table:
    """The columns of ``schema`` of all rows of spooled files, in their order."""
    wanted = arrow_schema(schema)
    size = 0
    tables: list[pa.Table] = []
    for table in _groups(files, wanted.names):
        size += table.nbytes
        if size > bytes_max:
            raise _too_large(bytes_max)
        tables.append(table.cast(wanted))
    return pa.concat_tables(tables).combine_chunks() if tables else wanted.empty_table()


def _groups(files: Sequence[LocalParquet], names: Sequence[str]) -> Iterator[pa.Table]:
    for file in files:
        with pq.ParquetFile(str(file.path)) as parquet:
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group, columns=list(names))


async def _found(parts: RowParts, snapshot: DatasetSnapshot, keys: pa.Table) -> pa.Table:
    """The rows that are there with ``keys``, looked up part by part."""
    bound = parts.settings.keyed_bytes_max
    tables = [arrow_schema(snapshot.dataset.schema).empty_table()]
    size = 0
    for start in range(0, keys.num_rows, _LOOKED_UP):
        some = keys.slice(start, _LOOKED_UP).combine_chunks()
        tables.append(await parts.reader.find(snapshot, some))
        size += tables[-1].nbytes
        if size > bound:
            raise _too_large(bound)
    return pa.concat_tables(tables).combine_chunks()


async def _whole(parts: RowParts, snapshot: DatasetSnapshot, bytes_max: int) -> pa.Table:
    tables = [arrow_schema(snapshot.dataset.schema).empty_table()]
    size = 0
    async for table in parts.reader.iterate(snapshot):
        size += table.nbytes
        if size > bytes_max:
            raise _too_large(bytes_max)
        tables.append(table)
    return pa.concat_tables(tables).combine_chunks()


async def _check_new(parts: RowParts, snapshot: DatasetSnapshot, keys: pa.Table) -> None:
    """Raise ``conflict`` naming up to ten of ``keys`` that are there."""
    dataset = snapshot.dataset
    for start in range(0, keys.num_rows, _LOOKED_UP):
        some = keys.slice(start, _LOOKED_UP).combine_chunks()
        found = await parts.reader.find(snapshot, some)
        if not found.num_rows:
            continue
        named = found.slice(0, _NAMED_MAX)
        texts = entity_texts(named, dataset.schema, dataset.primary_key).to_pylist()
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "rows with some of the keys are there already, so nothing was appended",
            dataset=dataset.name,
            primary_key=list(dataset.primary_key),
            at_least=found.num_rows,
            hint="say mode=upsert to put these rows in the place of those with their keys",
            **{EXISTING_KEYS: texts},
        )


def _all_new(keys: pa.Table, dataset: Dataset) -> RowChanges:
    """Rows of which only the keys are told; their values are in the objects of the file."""
    none = arrow_schema(dataset.schema).empty_table()
    return RowChanges(
        rows=none,
        keys=keys_schema(dataset.schema, dataset.primary_key).empty_table(),
        inserted=keys.num_rows,
        updated=0,
        deleted=0,
        unchanged=0,
        missing=0,
        old=none,
        new=none,
        added=keys,
    )


def _too_large(bytes_max: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        "the rows of a dataset with a primary key are compared in memory, and these are too many",
        limit="ingest.keyed_bytes_max",
        maximum=bytes_max,
        hint="split the file, or raise the limit",
    )
