"""The janitor's timetable: look at the store, ask for what is due, wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from lakehouse.contracts.catalog import CatalogService, ListRequest, StatusRequest
from lakehouse.contracts.rows import CompactRequest, RowsService
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.janitor.compacting import Visits, worth_a_look
from lakehouse.janitor.figures import JanitorFigures
from lakehouse.janitor.settings import JanitorSettings
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import Readout
from lakehouse.kit.ids import Ids
from lakehouse.kit.supervise import Supervisor
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context, Principal, Scope

__all__ = ["Janitor"]

log = logging.getLogger(__name__)
JANITOR: Final = Principal(id="janitor", scopes=(Scope.READ, Scope.WRITE))
_PAGE: Final = 1000


class Janitor:
    """Belongs to one event loop. ``start`` begins the timetable, ``close`` ends it; what it asked
    for goes on where it is done."""

    def __init__(
        self,
        settings: JanitorSettings,
        catalog: CatalogService,
        rows: RowsService,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._rows = rows
        self._clock = clock
        self._ids = ids
        self._visits = Visits()
        self._figures = JanitorFigures()
        self._supervisor = Supervisor()
        self._version = -1

    def start(self) -> None:
        """Begin to look, for the first time after a part of an interval."""
        if self._settings.compact_seconds > 0:
            self._supervisor.start("janitor", self._run)

    async def close(self) -> None:
        """End the timetable; idempotent."""
        await self._supervisor.stop()

    def figures(self) -> Iterable[Readout]:
        """What was looked at and asked for since the start."""
        return self._figures.figures()

    async def look(self) -> int:
        """One pass; how many compactions were asked for. An idle store costs one call.

        Raises what the catalog raises; a compaction that fails is logged and asked for again later.
        """
        ctx = self._context()
        version = (await self._catalog.status(ctx, StatusRequest())).version
        if version == self._version and not self._visits.waiting:
            self._figures.passed("idle")
            return 0
        candidates: list[Dataset] = []
        cursor = ""
        while True:
            page = await self._catalog.list(ctx, ListRequest(limit=_PAGE, cursor=cursor))
            candidates += [d for d in page.datasets if worth_a_look(d, self._settings)]
            cursor = page.cursor
            if not cursor:
                break
        due = self._visits.due(candidates)
        self._figures.due = len(due)
        places = asyncio.Semaphore(self._settings.concurrent_max)
        await asyncio.gather(*(self._compact(dataset, places) for dataset in due))
        # What changed while it was at work is looked at the next time.
        self._version = version
        self._figures.passed("done")
        return len(due)

    async def _compact(self, dataset: Dataset, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                report = await self._rows.compact(self._context(), CompactRequest(dataset.name))
            except LakehouseError as error:
                self._figures.asked(error.kind.value)
                if error.kind is ErrorKind.NOT_FOUND:
                    return
                self._visits.failed(dataset)
                told = {"dataset": dataset.name, "reason": str(error)}
                log.warning("a compaction did not finish", extra=told)
                return
        self._figures.asked("no_op" if report.no_op else "done")
        self._visits.left(dataset, dataset.version if report.no_op else report.version)

    def _context(self) -> Context:
        return Context(JANITOR, self._ids.ulid(), source="janitor")

    async def _run(self) -> None:
        seconds = self._settings.compact_seconds
        # Nodes that start together do not look together.
        await self._clock.sleep(seconds * self._ids.uniform())
        while True:
            try:
                with act_as("janitor"):
                    await self.look()
            except LakehouseError as error:
                self._figures.passed(error.kind.value)
                log.warning("the janitor could not look", extra={"reason": str(error)})
            await self._clock.sleep(seconds * (0.9 + 0.2 * self._ids.uniform()))
