"""Every change of a dataset after a version, oldest first, commit by commit, and what comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from itertools import groupby
from typing import Final

from lakehouse.contracts import journal as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.journal.objects import EventObjects
from lakehouse.ingestd.journal.paging import Ask, Order, Page, Place, page_of
from lakehouse.ingestd.journal.planning import Plan, plan_of
from lakehouse.ingestd.journal.wanted import VERSION_MAX, Wanted
from lakehouse.ingestd.journal.watching import VersionWatch
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.model.dataset import Dataset
from lakehouse.model.events import JournalEvent
from lakehouse.model.identity import Context, Scope
from lakehouse.table.events import to_journal_events

__all__ = ["feed"]

_EVENTS: Final = 10_000
"""Held at once; a commit with more is told in parts."""


async def feed(
    parts: RowParts,
    objects: EventObjects,
    watch: VersionWatch,
    ctx: Context,
    request: c.FeedRequest,
) -> c.FeedStream:
    """Serve ``contracts.journal.JournalService.feed``. Without ``follow`` it ends at the version
    that the store has now."""
    ctx.require(Scope.READ)
    if request.after_version < 0:
        raise LakehouseError(
            ErrorKind.INVALID, "a version is 0 or more", after_version=request.after_version
        )
    plan = await plan_of(parts.catalog, ctx, request.dataset, request.after_version)
    groups = _Feed(parts, objects, watch, ctx, plan.dataset)
    return c.FeedStream(plan.dataset.name, groups.told(plan, request))


class _Feed:
    """One subscription. ``_place`` is that of the last event that was told."""

    def __init__(
        self,
        parts: RowParts,
        objects: EventObjects,
        watch: VersionWatch,
        ctx: Context,
        dataset: Dataset,
    ) -> None:
        self._parts = parts
        self._objects = objects
        self._watch = watch
        self._ctx = ctx
        self._dataset = dataset
        self._place = Place(0, 0)

    async def told(
        self, plan: Plan, request: c.FeedRequest
    ) -> AsyncIterator[tuple[JournalEvent, ...]]:
        self._place = Place(request.after_version, VERSION_MAX)
        while True:
            async with aclosing(self._until(plan)) as groups:
                async for group in groups:
                    yield group
            reached = max(plan.version, self._place.version)
            if not request.follow:
                return
            self._place = Place(reached, VERSION_MAX)
            await self._watch.beyond(self._ctx, reached)
            plan = await self._plan()

    async def _until(self, plan: Plan) -> AsyncGenerator[tuple[JournalEvent, ...], None]:
        """What ``plan`` has and was not told yet; a plan has each of its versions whole."""
        version = plan.version
        wanted = Wanted(upto=version)
        while self._place.version < version or self._place.ordinal < VERSION_MAX:
            order = Order.forwards(self._place)
            page = await page_of(self._ctx, self._objects, plan, Ask(wanted, order, _EVENTS))
            for group in _groups(to_journal_events(page.events, plan.dataset.name), page):
                yield group
                self._place = Place(group[-1].version, group[-1].ordinal)
            if page.ended is not None:
                self._place = max(self._place, page.ended)
            elif page.events.num_rows < _EVENTS:
                return
            # Objects of an old plan are deleted some day, and a reader may be slow.
            plan = await self._plan()

    async def _plan(self) -> Plan:
        """The journal from where the feed is."""
        name = self._dataset.name
        plan = await plan_of(self._parts.catalog, self._ctx, name, self._place.version - 1)
        if plan.dataset.id != self._dataset.id:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "the dataset of the feed has this name no more",
                dataset=name,
                version=self._place.version,
                hint="it was renamed or dropped; start a feed of its new name after this version",
            )
        return plan


def _groups(events: tuple[JournalEvent, ...], page: Page) -> Iterator[tuple[JournalEvent, ...]]:
    """Commit by commit; the last one of a full page may go on, so it is told with the next, unless
    the page is all of one commit."""
    groups = [tuple(group) for _, group in groupby(events, key=lambda event: event.version)]
    if page.events.num_rows >= _EVENTS and page.ended is None and len(groups) > 1:
        groups.pop()
    yield from groups
