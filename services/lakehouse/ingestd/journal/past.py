"""A row as it was where the table itself cannot be read any more: from the row of now and the
events since."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.catalog import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.objects import EventObjects
from lakehouse.ingestd.journal.paging import Ask, Order, Place, page_of
from lakehouse.ingestd.journal.planning import Plan, plan_of
from lakehouse.ingestd.journal.wanted import Wanted
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.kit.clock import to_micros
from lakehouse.model.dataset import Dataset, DatasetStatus
from lakehouse.model.identity import Context
from lakehouse.table.events import walk_back
from lakehouse.table.keys import entity_texts

__all__ = ["beyond_horizon", "row_from_journal", "row_from_plan"]

_EVENTS: Final = 10_000


def beyond_horizon(error: LakehouseError) -> bool:
    """Whether the catalog says that the table cannot be read at a version or a time any more."""
    return error.kind is ErrorKind.NOT_FOUND and "horizon" in error.fields


async def row_from_journal(
    parts: RowParts, ctx: Context, dataset: Dataset, keys: pa.Table, as_of: AsOf
) -> tuple[pa.Table | None, int]:
    """The row of ``keys`` (one row of the key columns) at ``as_of``, and the version that is.

    ``dataset`` as it is now; the row is under its schema; None if it was not there.

    Raises ``not_found`` for what is before the first version that the journal tells.
    """
    plan = await plan_of(parts.catalog, ctx, dataset.name)
    return await row_from_plan(parts, parts.events, ctx, plan, keys, as_of)


async def row_from_plan(
    parts: RowParts,
    objects: EventObjects,
    ctx: Context,
    plan: Plan,
    keys: pa.Table,
    as_of: AsOf,
) -> tuple[pa.Table | None, int]:
    """As ``row_from_journal``, of a journal that is planned already."""
    dataset = plan.dataset
    key = dataset.primary_key
    version = await _version(objects, ctx, plan, as_of)
    if not key or version < dataset.history_since:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "neither the table nor its journal goes back so far",
            dataset=dataset.name,
            as_of=version,
            horizon=plan.horizon,
            history_since=dataset.history_since,
            hint="the journal tells every change from history_since on",
        )
    # The last version with rows: a drop takes none away, but only until then they can be read.
    dropped = dataset.status is DatasetStatus.DROPPED
    base = AsOf(version=dataset.version - 1) if dropped else AsOf()
    snapshot, now = await parts.reader.snapshot(ctx, dataset.name, base)
    row = await parts.reader.find(snapshot, keys)
    entity = entity_texts(keys, dataset.schema, key)[0].as_py()
    wanted = Wanted(entity=entity, after=version, upto=now)
    if plan.version < now:
        plan = await plan_of(parts.catalog, ctx, dataset.name, version)
    events = await _all(ctx, objects, plan, wanted)
    found = walk_back(row if row.num_rows else None, events, snapshot.dataset.schema, key, version)
    return found, version


async def _all(ctx: Context, objects: EventObjects, plan: Plan, wanted: Wanted) -> pa.Table:
    """All wanted events, newest first: of one row, so not many."""
    order = Order.backwards()
    pages: list[pa.Table] = []
    while True:
        page = await page_of(ctx, objects, plan, Ask(wanted, order, _EVENTS))
        pages.append(page.events)
        if page.ended is not None:
            order = Order.backwards(page.ended)
        elif page.events.num_rows == _EVENTS:
            last = page.events.slice(_EVENTS - 1)
            order = Order.backwards(Place(last["version"][0].as_py(), last["ordinal"][0].as_py()))
        else:
            return pa.concat_tables(pages)


async def _version(objects: EventObjects, ctx: Context, plan: Plan, as_of: AsOf) -> int:
    """The version that ``as_of`` means. The time of one below the horizon is that of its events:
    it is the last change of the dataset at or before the time."""
    if as_of.version is not None:
        return as_of.version
    if as_of.time is None:
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "there is no version of this tag that could be read",
            tag=as_of.tag[:80],
            horizon=plan.horizon,
        )
    if as_of.time.tzinfo is None:
        raise LakehouseError(
            ErrorKind.INVALID, "a time needs its zone", as_of=as_of.time.isoformat()
        )
    wanted = Wanted(until_us=to_micros(as_of.time) + 1)
    order = Order.backwards()
    while True:
        page = await page_of(ctx, objects, plan, Ask(wanted, order, 1))
        if page.events.num_rows:
            return int(pc.max(page.events["version"]).as_py())
        if page.ended is None:
            return 0
        order = Order.backwards(page.ended)
