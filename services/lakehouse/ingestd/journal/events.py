"""Events of one dataset or of all, newest first, a page at a time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import pyarrow as pa

from lakehouse.contracts import journal as c
from lakehouse.contracts.catalog import ListRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.cursors import decode_cursor, encode_cursor
from lakehouse.ingestd.journal.objects import EventObjects
from lakehouse.ingestd.journal.paging import Ask, Order, Page, Place, Work, page_of
from lakehouse.ingestd.journal.planning import Plan, plan_of
from lakehouse.ingestd.journal.wanted import VERSION_MAX, Wanted
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.kit.clock import to_micros
from lakehouse.model.dataset import Dataset
from lakehouse.model.events import EventKind, JournalEvent
from lakehouse.model.identity import Context, Scope
from lakehouse.table.events import to_journal_events
from lakehouse.table.keys import entity_texts, parse_entity

__all__ = ["LIMIT_MAX", "events", "key_of", "wanted_of"]

LIMIT_MAX: Final = 10_000
_LIST_LIMIT: Final = 1000
_LISTINGS_MAX: Final = 3
_DATASETS_MAX: Final = 1000
"""Of a scan over all datasets: looked into for one page, unless those share one version."""


class _Place(NamedTuple):
    """Where a page begins: what comes after it, backwards. Of each event another."""

    version: int
    ordinal: int
    dataset_id: str

    @property
    def first_version(self) -> int:
        """The first that may have something after this."""
        return self.version - (self.ordinal <= 0 and not self.dataset_id)

    def of(self, dataset_id: str) -> Place:
        """What this is in the order of one dataset."""
        return Place(self.version, self.ordinal + (dataset_id < self.dataset_id))


_END: Final = _Place(VERSION_MAX, 0, "")


async def events(
    parts: RowParts, objects: EventObjects, ctx: Context, request: c.EventsRequest
) -> c.EventsResult:
    """Serve ``contracts.journal.JournalService.events``. A page may have fewer events than its
    limit, even none, and a cursor: so much was looked into, and it goes on there."""
    ctx.require(Scope.READ)
    _check(request)
    start = _END
    if request.cursor:
        start = _Place(*decode_cursor(request.cursor, (int, int, str)))
    if request.dataset:
        after = request.after_version
        plan = await plan_of(parts.catalog, ctx, request.dataset, after)
        wanted = wanted_of(request, plan)
        order = Order.backwards(start.of(plan.dataset.id))
        page = await page_of(ctx, objects, plan, Ask(wanted, order, request.limit + 1))
        found = to_journal_events(page.events, plan.dataset.name)
        return _result(found, page.ended, request.limit, plan.version)
    return await _Everywhere(parts, objects, request).page(ctx, start)


def _check(request: c.EventsRequest) -> None:
    if not 1 <= request.limit <= LIMIT_MAX:
        raise LakehouseError(
            ErrorKind.INVALID,
            f"limit must be from 1 to {LIMIT_MAX}",
            limit=request.limit,
            maximum=LIMIT_MAX,
        )
    kinds = [kind.value for kind in EventKind]
    if request.kind and request.kind not in kinds:
        raise LakehouseError(
            ErrorKind.INVALID,
            "there is no such kind of event",
            event_kind=request.kind[:80],
            kinds=[*kinds],
        )
    if request.entity_json and not request.dataset:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a key is of a dataset: name it",
            entity=request.entity_json[:200],
            hint="give dataset beside entity",
        )
    for name in ("since", "until"):
        when = getattr(request, name)
        if when is not None and when.tzinfo is None:
            raise LakehouseError(
                ErrorKind.INVALID, "a time needs its zone", **{name: when.isoformat()}
            )


def wanted_of(request: c.EventsRequest, plan: Plan | None = None) -> Wanted:
    """The filters of ``request``; of a key as ``plan``'s dataset writes it. Raises ``invalid``."""
    entity = ""
    if request.entity_json and plan is not None:
        _, entity = key_of(plan.dataset, request.entity_json)
    return Wanted(
        entity=entity,
        field=request.field,
        kind=request.kind,
        actor=request.actor,
        workspace=request.workspace,
        request_id=request.request_id,
        since_us=None if request.since is None else to_micros(request.since),
        until_us=None if request.until is None else to_micros(request.until),
        after=max(0, request.after_version),
        upto=request.before_version or VERSION_MAX,
    )


def key_of(dataset: Dataset, key_json: str) -> tuple[pa.Table, str]:
    """A key as a row of the key columns and as its canonical text. Raises ``invalid``."""
    key = dataset.primary_key
    if not key:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the dataset has no primary key",
            dataset=dataset.name,
            hint="declare one: without it changes are told by batch, not by row",
        )
    row = parse_entity(key_json, dataset.schema, key)
    return row, entity_texts(row, dataset.schema, key)[0].as_py()


def _result(
    found: tuple[JournalEvent, ...], ended: Place | None, limit: int, version: int
) -> c.EventsResult:
    """``found`` has one more than ``limit``, if there is one."""
    cursor = ""
    if len(found) > limit:
        last = found[limit - 1]
        cursor = encode_cursor(last.version, last.ordinal, last.dataset_id)
    elif ended is not None:
        cursor = encode_cursor(*ended, "")
    return c.EventsResult(found[:limit], version, cursor)


class _One(NamedTuple):
    """A dataset of a scan over all; sorts by where its events may begin, backwards."""

    behind: int
    id: str
    name: str

    @property
    def version(self) -> int:
        return -self.behind


@dataclass(slots=True)
class _Everywhere:
    """A page over all datasets: from the one that was changed last on, until no other can have an
    event that belongs on it. Holds a page of events, and a name for each dataset."""

    parts: RowParts
    objects: EventObjects
    request: c.EventsRequest
    work: Work = field(default_factory=Work)
    found: list[JournalEvent] = field(default_factory=list)
    ended: int = -1
    """The newest version of which something may have been left out; -1 for none."""

    async def page(self, ctx: Context, start: _Place) -> c.EventsResult:
        limit = self.request.limit + 1
        version, datasets = await self._datasets(ctx, start.first_version)
        wanted = wanted_of(replace(self.request, entity_json=""))
        wanted = replace(wanted, upto=min(wanted.upto, version))
        first = -datasets[0].behind if datasets else 0
        seen = 0
        while datasets:
            one = heapq.heappop(datasets)
            if len(self.found) >= limit and self.found[limit - 1].version > one.version:
                break
            if one.version <= wanted.after:
                break
            spent = self.work.files <= 0 or seen >= _DATASETS_MAX
            if spent and one.version < first:
                self.ended = max(self.ended, one.version)
                break
            seen += 1
            await self._look(ctx, one, wanted, start)
        if self.ended < 0:
            return _result(tuple(self.found), None, self.request.limit, version)
        whole = tuple(event for event in self.found if event.version > self.ended)
        return _result(whole, Place(self.ended + 1, 0), self.request.limit, version)

    async def _look(self, ctx: Context, one: _One, wanted: Wanted, start: _Place) -> None:
        limit = self.request.limit + 1
        plan = await self._plan(ctx, one, wanted.after)
        if plan is None:
            return
        ask = Ask(wanted, Order.backwards(start.of(one.id)), limit)
        try:
            page: Page = await page_of(ctx, self.objects, plan, ask, self.work)
        except LakehouseError as error:
            fields = {**error.fields, "dataset": plan.dataset.name}
            raise LakehouseError(error.kind, error.message, **fields) from error
        if page.ended is not None:
            self.ended = max(self.ended, page.ended.version - 1)
        merged = [*self.found, *to_journal_events(page.events, plan.dataset.name)]
        merged.sort(key=lambda e: (e.version, e.ordinal, e.dataset_id), reverse=True)
        self.found = merged[:limit]

    async def _plan(self, ctx: Context, one: _One, after: int) -> Plan | None:
        """None for what is purged, or was dropped and its name is another's now."""
        for _ in range(_LISTINGS_MAX):
            try:
                plan = await plan_of(self.parts.catalog, ctx, one.name, after)
                if plan.dataset.id == one.id:
                    return plan
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
            _, now = await self._datasets(ctx, 0)
            name = next((other.name for other in now if other.id == one.id), "")
            if name in ("", one.name):
                return None
            one = one._replace(name=name)
        raise LakehouseError(
            ErrorKind.CONFLICT, "a dataset is renamed again and again", dataset=one.name
        )

    async def _datasets(self, ctx: Context, before: int) -> tuple[int, list[_One]]:
        """The version of the store, and a heap of all datasets, those that were dropped, too."""
        found: dict[str, _One] = {}
        version = -1
        for _ in range(_LISTINGS_MAX):
            seen = set[int]()
            request = ListRequest(include_dropped=True, limit=_LIST_LIMIT)
            while True:
                page = await self.parts.catalog.list(ctx, request)
                seen.add(page.version)
                version = page.version if version < 0 else version
                for one in page.datasets:
                    found[one.id] = _One(-min(one.version, before), one.id, one.name)
                if not page.cursor:
                    break
                request = replace(request, cursor=page.cursor)
            if len(seen) == 1:
                break  # else one may have been renamed from behind to before the cursor
        datasets = list(found.values())
        heapq.heapify(datasets)
        return version, datasets
