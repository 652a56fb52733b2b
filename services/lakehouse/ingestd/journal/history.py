"""The past of one row: what each commit did to it, and how it was at a point in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

import pyarrow as pa

from lakehouse.contracts import journal as c
from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.rows import FieldChange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.cursors import decode_cursor, encode_cursor
from lakehouse.ingestd.journal.events import key_of
from lakehouse.ingestd.journal.objects import EventObjects
from lakehouse.ingestd.journal.paging import Ask, Order, Place, page_of
from lakehouse.ingestd.journal.past import beyond_horizon, row_from_plan
from lakehouse.ingestd.journal.planning import Plan, plan_of
from lakehouse.ingestd.journal.wanted import Wanted
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.model.dataset import DatasetStatus
from lakehouse.model.events import EventKind, JournalEvent
from lakehouse.model.identity import Context, Scope
from lakehouse.table.events import to_journal_events
from lakehouse.table.values import row_json

__all__ = ["history"]

_LIMIT_MAX: Final = 1000
_EVENTS: Final = 2000


async def history(
    parts: RowParts, objects: EventObjects, ctx: Context, request: c.HistoryRequest
) -> c.HistoryResult:
    """Serve ``contracts.journal.JournalService.history``."""
    ctx.require(Scope.READ)
    if not 1 <= request.limit <= _LIMIT_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"limit must be from 1 to {_LIMIT_MAX}",
            limit=request.limit,
            maximum=_LIMIT_MAX,
        )
    before = Place(decode_cursor(request.cursor, (int,))[0], 0) if request.cursor else None
    plan = await plan_of(parts.catalog, ctx, request.dataset)
    keys, entity = key_of(plan.dataset, request.key_json)
    revisions, cursor = await _revisions(ctx, objects, plan, entity, before, request.limit)
    result = c.HistoryResult(
        dataset=plan.dataset.name,
        key_json=entity,
        version=plan.version,
        revisions=tuple(revisions),
        history_since=plan.dataset.history_since,
        cursor=cursor,
    )
    if plan.dataset.status is DatasetStatus.DROPPED and request.as_of == AsOf():
        return result  # it has a past, and no rows
    row, served_from = await _row(parts, objects, ctx, plan, keys, request.as_of)
    return replace(result, row_json=row, served_from=served_from)


async def _revisions(
    ctx: Context,
    objects: EventObjects,
    plan: Plan,
    entity: str,
    before: Place | None,
    limit: int,
) -> tuple[list[c.RowRevision], str]:
    """At most ``limit`` revisions from ``before`` on backwards, each whole, and a cursor."""
    order = Order.backwards(before)
    wanted = Wanted(entity=entity)
    found: list[JournalEvent] = []
    while True:
        page = await page_of(ctx, objects, plan, Ask(wanted, order, _EVENTS))
        found += to_journal_events(page.events, plan.dataset.name)
        if page.ended is not None:
            order = Order.backwards(page.ended)
        elif page.events.num_rows == _EVENTS:
            order = Order.backwards(Place(found[-1].version, found[-1].ordinal))
        else:
            break
        if len({event.version for event in found}) > limit + 1:
            break
    revisions = list(_grouped(found))
    more = len(revisions) > limit
    revisions = revisions[:limit]
    return revisions, encode_cursor(revisions[-1].version) if more else ""


def _grouped(events: Sequence[JournalEvent]) -> Iterator[c.RowRevision]:
    for _, members in groupby(events, key=lambda event: event.version):
        yield _revision(sorted(members, key=lambda event: event.ordinal))


def _revision(events: Sequence[JournalEvent]) -> c.RowRevision:
    """Of the events of one commit that are of one row."""
    first = events[0]
    fields = [event for event in events if event.kind is not EventKind.INSERT]
    kind = fields[0].kind if fields else EventKind.INSERT
    return c.RowRevision(
        version=first.version,
        at=first.at,
        kind=kind.value,
        operation=first.operation,
        actor=first.actor,
        fields=tuple(FieldChange(e.field, e.old_json, e.new_json) for e in fields),
        source=first.source,
        workspace=first.workspace,
        reason=first.reason,
        request_id=first.request_id,
    )


async def _row(
    parts: RowParts,
    objects: EventObjects,
    ctx: Context,
    plan: Plan,
    keys: pa.Table,
    as_of: AsOf,
) -> tuple[str | None, str]:
    """The row at ``as_of`` as JSON, and what it was read from."""
    try:
        snapshot, _ = await parts.reader.snapshot(ctx, plan.dataset.name, as_of)
    except LakehouseError as error:
        if not beyond_horizon(error):
            raise
        row, _ = await row_from_plan(parts, objects, ctx, plan, keys, as_of)
        return (None if row is None else row_json(row, 0, plan.dataset.schema)), "journal"
    if snapshot.dataset.primary_key != plan.dataset.primary_key:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the dataset had no such primary key then",
            dataset=plan.dataset.name,
            hint="ask for a later version, or use sql with as_of",
        )
    found = await parts.reader.find(snapshot, keys)
    text = row_json(found, 0, snapshot.dataset.schema) if found.num_rows else None
    return text, "table"
