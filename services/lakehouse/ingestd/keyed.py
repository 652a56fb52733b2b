"""What a file does to a dataset with a primary key: which rows come, change and go, by key.

Decided against the rows that are there while nobody else in this process changes them; that nobody
elsewhere did is what the commit requires. Files of any size: they are taken step by step, and what
a step comes to is put before the next, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
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
from lakehouse.ingestd.rows.uniqueness import check_key_holds
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import EVENTS, ROWS, DataFile, Dataset
from lakehouse.model.identity import Context
from lakehouse.model.schema import Schema
from lakehouse.table.changes import RowChanges, difference, upsert
from lakehouse.table.events import EVENT_COLUMNS
from lakehouse.table.keys import entity_texts, key_columns, key_hashes, keys_schema
from lakehouse.table.types import arrow_schema

__all__ = ["EXISTING_KEYS", "Delta", "Into", "count", "is_keyed", "put_delta", "snapshot_of"]

EXISTING_KEYS: Final = "existing_keys"
"""The field of an error that no other attempt would spare."""
_NAMED_MAX: Final = 10
_STEP_ROWS: Final = 500_000
_SHARE_ROWS: Final = 2_000_000
_STEPS_HELD: Final = 8
_BITS: Final = 64
_BITS_MAX: Final = 12
_ORDINAL: Final = "__ordinal"


@dataclass(frozen=True, slots=True)
class Delta:
    """What goes into the commit beside a file's own rows.

    Attributes:
        dataset: as it was when this was decided; the commit requires its rows to be those.
        put: for an upsert rows, keys and events; else the events alone.
    """

    dataset: Dataset
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    put: Put = Put()

    @property
    def nothing(self) -> bool:
        """True if the rows are so already."""
        return not (self.inserted or self.updated or self.deleted)

    @property
    def files(self) -> tuple[DataFile, ...]:
        return self.put.files

    def counted(self, changes: RowChanges) -> Delta:
        """With what one more step did."""
        return replace(
            self,
            inserted=self.inserted + changes.inserted,
            updated=self.updated + changes.updated,
            deleted=self.deleted + changes.deleted,
            unchanged=self.unchanged + changes.unchanged,
        )

    def told(self, report: IngestReport, action: Action) -> IngestReport:
        """``report`` with what became of rows, by key."""
        if action is Action.APPEND:
            return report
        return replace(
            report,
            inserted=self.inserted,
            updated=self.updated,
            deleted=self.deleted,
            unchanged=self.unchanged,
        )


@dataclass(frozen=True, slots=True)
class Into:
    """Where the objects of a delta go: ``rows`` of the file that were put there as it has them.
    ``check`` raises when the work should stop."""

    session_id: str
    rows: tuple[DataFile, ...]
    check: Callable[[], None]


def is_keyed(action: Action, dataset: Dataset) -> bool:
    """Whether what ``action`` does to ``dataset`` is told row by row."""
    return bool(dataset.primary_key) and action in (Action.APPEND, Action.REPLACE, Action.UPSERT)


async def snapshot_of(
    parts: RowParts, ctx: Context, dataset: Dataset, action: Action
) -> DatasetSnapshot:
    """``dataset`` as it is now, for ``action``. Raises ``conflict`` if it is another by now: decide
    anew; ``invalid`` where rows that stay share a key."""
    snapshot, _ = await parts.reader.snapshot(ctx, dataset.name)
    now = snapshot.dataset
    if (now.id, now.schema, now.primary_key) != (dataset.id, dataset.schema, dataset.primary_key):
        raise LakehouseError(
            ErrorKind.CONFLICT, "the dataset changed meanwhile", dataset=dataset.name
        )
    check_changeable(now)
    if action is not Action.REPLACE:
        await check_key_holds(parts, ctx, now)
    return snapshot


async def count(
    parts: RowParts, action: Action, snapshot: DatasetSnapshot, outcome: Outcome
) -> Delta:
    """What would be done, and nothing put. Raises ``conflict`` naming keys that are there already
    (append), ``exhausted`` where memory does not do."""
    delta = Delta(snapshot.dataset)
    async for changes in _steps(parts, action, snapshot, outcome.files):
        delta = delta.counted(changes)
    return delta


async def put_delta(
    parts: RowParts,
    ctx: Context,
    told: Told,
    snapshot: DatasetSnapshot,
    outcome: Outcome,
    into: Into,
) -> Delta:
    """What ``told.operation`` does with the rows of ``outcome``, its objects put. Raises as
    ``count``."""
    action = Action(told.operation)
    delta = Delta(snapshot.dataset)
    rows = 0
    async for changes in _steps(parts, action, snapshot, outcome.files):
        into.check()
        delta = delta.counted(changes)
        if changes.empty:
            continue
        changes = _from_ordinal(changes, rows)
        rows += changes.rows.num_rows + changes.deleted
        if action is Action.UPSERT:
            put = await put_changes(parts, ctx, delta.dataset, into.session_id, changes, told)
        else:
            put = await _put_events(parts, ctx, delta.dataset, changes, told, into)
        events = put.tables[-1].num_rows
        told = replace(told, first_ordinal=told.first_ordinal + events)
        # Of many steps none is held in memory for who comes next.
        tables = put.tables if not delta.files else ()
        delta = replace(delta, put=Put(delta.files + put.files, tables))
    return delta


async def _put_events(
    parts: RowParts, ctx: Context, dataset: Dataset, changes: RowChanges, told: Told, into: Into
) -> Put:
    made = into.rows[0].key if into.rows else "", parts.clock.now_us()
    events = await run_in(parts.jobs, event_table, ctx, dataset, changes, told, made)
    file = await parts.writer.put(ctx, dataset, into.session_id, events, EVENTS, EVENT_COLUMNS)
    return Put((file,), (events,))


def _from_ordinal(changes: RowChanges, first: int) -> RowChanges:
    """The ordinals of keys go on from those of the steps before."""
    if not first or not changes.keys.num_rows:
        return changes
    at = changes.keys.schema.get_field_index(_ORDINAL)
    moved = pc.add(changes.keys.column(at), first)
    return replace(changes, keys=changes.keys.set_column(at, changes.keys.field(at), moved))


async def _steps(
    parts: RowParts, action: Action, snapshot: DatasetSnapshot, files: Sequence[LocalParquet]
) -> AsyncIterator[RowChanges]:
    """What the file does, a bounded number of rows at a time; no key is in two steps."""
    schema, key = snapshot.dataset.schema, snapshot.dataset.primary_key
    if action is Action.REPLACE:
        async for old, new in _shares(parts, snapshot, files):
            yield await run_in(parts.jobs, difference, old, new, schema, key)
        return
    wanted = schema if action is Action.UPSERT else Schema(schema.id, key_columns(schema, key))
    async for rows in _batches(parts, files, wanted):
        found = await parts.reader.find(snapshot, rows.select(list(key)))
        if action is Action.UPSERT:
            yield await run_in(parts.jobs, upsert, rows, found, schema, key)
            continue
        if found.num_rows:
            raise _are_there(snapshot.dataset, found)
        yield _all_new(rows, snapshot.dataset)


async def _batches(
    parts: RowParts, files: Sequence[LocalParquet], schema: Schema
) -> AsyncIterator[pa.Table]:
    """The columns of ``schema`` of all rows of spooled files, in their order, some at a time."""
    wanted = arrow_schema(schema)
    some: list[pa.Table] = []
    rows = size = 0
    async for table in _groups(parts, files, wanted):
        some.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= _STEP_ROWS or size * _STEPS_HELD >= parts.settings.keyed_bytes_max:
            yield pa.concat_tables(some).combine_chunks()
            some, rows, size = [], 0, 0
    if some:
        yield pa.concat_tables(some).combine_chunks()


async def _groups(
    parts: RowParts, files: Sequence[LocalParquet], wanted: pa.Schema
) -> AsyncIterator[pa.Table]:
    for file in files:
        groups = (await run_in(parts.jobs, pq.read_metadata, str(file.path))).num_row_groups
        for group in range(groups):
            yield await run_in(parts.jobs, _group, file.path, group, wanted)


def _group(path: Path, group: int, wanted: pa.Schema) -> pa.Table:
    with pq.ParquetFile(str(path)) as parquet:
        return parquet.read_row_group(group, columns=wanted.names).cast(wanted)


class _TooMuchError(Exception):
    """A share does not fit into memory: take smaller ones."""


async def _shares(
    parts: RowParts, snapshot: DatasetSnapshot, files: Sequence[LocalParquet]
) -> AsyncIterator[tuple[pa.Table, pa.Table]]:
    """The rows that are there beside those of the file, by share of their keys' hashes."""
    old_rows = sum(file.rows for file in snapshot.files if file.content == ROWS)
    rows = old_rows + sum(file.rows for file in files)
    bits = (max(1, -(-rows // _SHARE_ROWS)) - 1).bit_length()
    share = 0
    while share < 1 << bits:
        try:
            pair = await _share(parts, snapshot, files, (share, bits))
        except _TooMuchError:
            # Hashes are even: if one share fits, all do.
            if share or bits == _BITS_MAX:
                raise _too_large(parts.settings.keyed_bytes_max) from None
            bits += 1
            continue
        yield pair
        share += 1


async def _share(
    parts: RowParts,
    snapshot: DatasetSnapshot,
    files: Sequence[LocalParquet],
    part: tuple[int, int],
) -> tuple[pa.Table, pa.Table]:
    schema, key = snapshot.dataset.schema, snapshot.dataset.primary_key
    wanted = arrow_schema(schema)
    both: list[pa.Table] = []
    size = 0
    for tables in (parts.reader.iterate(snapshot), _groups(parts, files, wanted)):
        some = [wanted.empty_table()]
        async for table in tables:
            some.append(await run_in(parts.jobs, _in_share, table, schema, key, part))
            size += some[-1].nbytes
            if size > parts.settings.keyed_bytes_max:
                raise _TooMuchError
        both.append(pa.concat_tables(some).combine_chunks())
    return both[0], both[1]


def _in_share(
    table: pa.Table, schema: Schema, key: Sequence[str], part: tuple[int, int]
) -> pa.Table:
    """The rows whose key's hash begins with the share: (value, bits)."""
    share, bits = part
    if not bits:
        return table
    head = pc.shift_right(key_hashes(table, schema, key), pa.scalar(_BITS - bits, pa.uint64()))
    return table.filter(pc.equal(head, pa.scalar(share, pa.uint64())))


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


def _are_there(dataset: Dataset, found: pa.Table) -> LakehouseError:
    named = found.slice(0, _NAMED_MAX)
    texts = entity_texts(named, dataset.schema, dataset.primary_key).to_pylist()
    return LakehouseError(
        ErrorKind.CONFLICT,
        "rows with some of the keys are there already, so nothing was appended",
        dataset=dataset.name,
        primary_key=list(dataset.primary_key),
        at_least=found.num_rows,
        hint="say mode=upsert to put these rows in the place of those with their keys",
        **{EXISTING_KEYS: texts},
    )


def _too_large(bytes_max: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.EXHAUSTED,
        "the rows of a dataset with a primary key are compared in memory, and these are too many",
        limit="ingest.keyed_bytes_max",
        maximum=bytes_max,
        hint="split the file, or raise the limit",
    )
