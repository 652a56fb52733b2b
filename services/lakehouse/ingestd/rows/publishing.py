"""The objects of a row change, and the one commit that makes them live.

The order is the law: objects first, all at once, then the commit. What was put and not committed
belongs to the session, and is collected when that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import CommitRequest, CommitResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.uniqueness import check_key_holds
from lakehouse.ingestd.rows.writing import Piece
from lakehouse.model.changes import AddFiles, Change, Requirement, RowsAt, SchemaIs
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile, Dataset
from lakehouse.model.identity import Context
from lakehouse.table.changes import RowChanges
from lakehouse.table.events import EVENT_COLUMNS, Why, events_of

__all__ = ["Put", "Told", "committed", "event_table", "publish", "put_changes", "row_change"]


_NOTHING: Final = CommitRequest(())


@dataclass(frozen=True, slots=True)
class Put:
    """Objects that are not live yet, and the tables that were written into them: all or none."""

    files: tuple[DataFile, ...] = ()
    tables: tuple[pa.Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What the version entry and the events of a change say beside the rows.

    Attributes:
        sha256: digest of what was sent; "" for what came from no outside.
        content_digest: as ``AddFiles`` has it: of a file, that is not ingested twice.
        first_ordinal: of its events, where others of the same commit come before.
    """

    operation: str
    source: str = ""
    reason: str = ""
    sha256: str = ""
    content_digest: str = ""
    first_ordinal: int = 0


async def publish(
    parts: RowParts,
    ctx: Context,
    dataset: Dataset,
    changes: RowChanges,
    told: Told,
    commit: CommitRequest = _NOTHING,
) -> CommitResult:
    """Put what ``changes`` has, which is not empty, and commit it on the rows of ``dataset`` as
    they were read; ``commit`` is added to.

    Raises ``conflict`` if the rows or the schema changed meanwhile, or the session has ended: read
    again, and decide anew.
    """
    await check_key_holds(parts, ctx, dataset)
    async with parts.sessions.writing(ctx.deadline) as session_id:
        put = await put_changes(parts, ctx, dataset, session_id, changes, told)
        more, needs = row_change(ctx, dataset, put.files, told)
        commit = replace(
            commit,
            changes=(*commit.changes, *more),
            requirements=(*commit.requirements, *needs),
        )
        # Beside the commit: objects that do not become live are never asked for.
        remembering = asyncio.ensure_future(_remember(parts, dataset, put))
        try:
            result = await parts.catalog.commit(ctx, commit)
        except LakehouseError as error:
            # The catalog names objects only where their session has ended or they were condemned:
            # either way they are written again, under another session.
            if error.kind is ErrorKind.CONFLICT and "keys" in error.fields:
                parts.sessions.lost(session_id)
            raise
        finally:
            (failure,) = await asyncio.gather(remembering, return_exceptions=True)
    if failure is not None:
        raise failure
    _tidy(parts, dataset, put)
    return result


async def put_changes(
    parts: RowParts,
    ctx: Context,
    dataset: Dataset,
    session_id: str,
    changes: RowChanges,
    told: Told,
) -> Put:
    """Put rows, keys and events, those of the three that have any, at once."""
    writer, schema = parts.writer, dataset.schema
    rows_key = writer.new_key(dataset, session_id) if changes.rows.num_rows else ""
    at_us = parts.clock.now_us()

    def pieces() -> Sequence[Piece]:
        events = event_table(ctx, dataset, changes, told, (rows_key, at_us))
        all_ = (
            Piece(ROWS, changes.rows, schema, rows_key),
            Piece(KEYS, changes.keys, schema),
            Piece(EVENTS, events, EVENT_COLUMNS),
        )
        return [piece for piece in all_ if piece.table.num_rows]

    made, files = await writer.put_made(ctx, dataset, session_id, pieces)
    return Put(files, tuple(piece.table for piece in made))


def event_table(
    ctx: Context, dataset: Dataset, changes: RowChanges, told: Told, made: tuple[str, int]
) -> pa.Table:
    """The events of a change. ``made``: the key of the object with its rows ("" for none), and the
    time, microseconds since 1970."""
    object_key, at_us = made
    why = Why(
        dataset_id=dataset.id,
        base_version=dataset.rows_version,
        operation=told.operation,
        actor=ctx.principal.id,
        at_us=at_us,
        source=told.source,
        workspace=ctx.workspace or "",
        reason=told.reason,
        request_id=ctx.request_id,
    )
    key = dataset.primary_key
    events = events_of(changes, why, dataset.schema, key, object_key, told.sha256)
    if not told.first_ordinal:
        return events
    at = events.schema.get_field_index("ordinal")
    moved = pc.add(events.column(at), told.first_ordinal)
    return events.set_column(at, events.field(at), moved)


def row_change(
    ctx: Context,
    dataset: Dataset,
    files: Sequence[DataFile],
    told: Told,
) -> tuple[tuple[Change, ...], tuple[Requirement, ...]]:
    """What a commit says of ``files``, which are added to the rows as they were read."""
    add = AddFiles(
        dataset.id,
        tuple(files),
        content_digest=told.content_digest,
        operation=told.operation,
        source=told.source,
        workspace=ctx.workspace or "",
        reason=told.reason,
    )
    needs = SchemaIs(dataset.id, dataset.fingerprint), RowsAt(dataset.id, dataset.rows_version)
    return (add,), needs


async def committed(parts: RowParts, dataset: Dataset, put: Put) -> None:
    """What was put is live now: have it at hand for who comes next, and say so once a dataset has
    many row changes that reads have to merge."""
    await _remember(parts, dataset, put)
    _tidy(parts, dataset, put)


async def _remember(parts: RowParts, dataset: Dataset, put: Put) -> None:
    if put.tables:
        await parts.reader.remember(dataset, put.files, put.tables)


def _tidy(parts: RowParts, dataset: Dataset, put: Put) -> None:
    contents = [file.content for file in put.files]
    most = max(
        dataset.key_files + contents.count(KEYS), dataset.event_files + contents.count(EVENTS)
    )
    if most >= parts.settings.compaction_files:
        parts.compaction_wanted(dataset.name)
