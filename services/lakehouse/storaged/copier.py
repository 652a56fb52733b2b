"""The copier that fills the rescue bucket: follows the catalog, sweeps, verifies a sample.

In steady state it asks the catalog for its version and does nothing else. What came is copied, what
was given up is removed before the catalog lets the original go; a sweep at each start and now and
then finds what no change tells. Every step may be cut off anywhere: copies appear whole or not at
all, and what is known to be copied is noted only after it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from lakehouse.contracts.catalog import CatalogService
from lakehouse.contracts.inventory import ObjectChangesResult
from lakehouse.contracts.storage import RescueInfo
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.kit.ids import Ids
from lakehouse.model.residency import may_keep
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.rescue import RescueSettings
from lakehouse.storaged.asking import COPIER, Asking
from lakehouse.storaged.copies import claim, load_cursors, save_cursors
from lakehouse.storaged.copying import Copying, Pace, known_objects
from lakehouse.storaged.fan import each_of
from lakehouse.storaged.keeping import Coverage, Keeping, Standing
from lakehouse.storaged.sweeping import Sweeping

__all__ = ["Copier"]

_BUSY_SECONDS: Final = 0.02
_TROUBLES_MAX: Final = 4


class Copier:
    """Runs until it is cancelled; one a store is enough, and two do no harm.

    Args:
        settings: its bucket is one of ``buckets``.
        catalog: what there is; asked as ``COPIER``, scope read.
        served: reads answered from the rescue bucket so far, for ``info``.
    """

    def __init__(
        self,
        settings: RescueSettings,
        catalog: CatalogService,
        buckets: Buckets,
        clock: Clock,
        ids: Ids,
        served: Callable[[], int] = lambda: 0,
    ) -> None:
        self._settings = settings
        self._buckets = buckets
        self._clock = clock
        self._served = served
        self._asking = Asking(catalog, ids)
        pace = Pace(clock, settings.bandwidth_bytes_max)
        self._copying = Copying(buckets, settings.bucket, pace, clock, ids)
        self._keeping = Keeping(self._copying, settings, clock)
        self._sweeping = Sweeping(settings, self._asking, self._keeping, self._copying, clock, ids)
        self._standing = Standing()
        self._saved: dict[str, str] = {}
        self._ahead: dict[str, str] = {}
        self._claimed = False
        self._version = -1
        self._troubles = 0

    def info(self) -> RescueInfo:
        """How the copies stand, as of the last round."""
        standing, keeping = self._standing, self._keeping
        parts = [standing.coverage[name] for name in standing.eligible()]
        objects = max(0, sum(part.live for part in parts) - len(keeping.barred))
        waiting = sum(part.waiting for part in parts) + len(keeping.failed)
        since = [part.since for part in parts if part.since] + list(keeping.failed.values())
        now = to_datetime(self._clock.now_us())
        return RescueInfo(
            bucket=self._settings.bucket,
            objects=objects,
            copied=max(0, objects - waiting),
            excluded=sum(standing.excluded.values()) + len(keeping.barred),
            lag_seconds=max(0.0, (now - min(since)).total_seconds()) if since else 0.0,
            verified=keeping.counts.verified,
            damaged=keeping.counts.damaged,
            deletions=keeping.counts.deletions,
            served=self._served(),
            last_error=keeping.last_error,
        )

    async def run(self) -> None:
        """Rounds for ever. A bucket or catalog that does not answer is asked again, ever more
        seldom."""
        with act_as(COPIER.id):
            while True:
                busy = await self.round()
                seconds = self._settings.interval_seconds * 2.0**self._troubles
                await self._clock.sleep(_BUSY_SECONDS if busy else seconds)

    async def round(self) -> bool:
        """Follow the catalog, then one step of what is due; whether there is more to do now."""
        standing, sweeping = self._standing, self._sweeping
        try:
            await self._begin()
            followed = await self._follow()
            busy = sweeping.is_due(standing) and await sweeping.step(standing)
            await self._save()
            if not busy:
                await sweeping.verify(standing)
        except LakehouseError as error:
            self._keeping.note(error)
            self._troubles = min(self._troubles + 1, _TROUBLES_MAX)
            return False
        self._troubles = 0
        if followed and not self._keeping.failed and not sweeping.under_way:
            self._keeping.last_error = ""
        return busy

    async def _begin(self) -> None:
        if self._claimed:
            return
        store = self._copying.store
        await claim(store, (await self._asking.status()).store_id)
        self._standing.cursors = await load_cursors(store)
        self._saved = dict(self._standing.cursors)
        self._keeping.doubtful = set(self._saved)
        self._claimed = True

    async def _save(self) -> None:
        cursors = dict(self._standing.cursors)
        if cursors != self._saved:
            await save_cursors(self._copying.store, cursors)
            self._saved = cursors

    async def _follow(self) -> bool:
        """Bring every bucket to the catalog's version; False if one could not be."""
        standing = self._standing
        version = standing.version = (await self._asking.status()).version
        names = [name for name in self._buckets.names() if name != self._settings.bucket]
        if version == self._version and set(names) == set(standing.coverage):
            return True
        await self._place(names)
        for name in standing.excluded:
            standing.cursors.pop(name, None)
        stuck: list[str] = []

        async def follow(name: str) -> None:
            if not await self._follow_bucket(name):
                stuck.append(name)

        # Side by side: one that hangs holds up the next round, but not this one of the others.
        await each_of([name for name in names if name in standing.cursors], follow, len(names))
        self._version = -1 if stuck else version
        return not stuck

    async def _place(self, names: Sequence[str]) -> None:
        """Which buckets may be copied here, and how many objects the others have to be filled
        with."""
        standing = self._standing
        usage = await self._asking.usage()
        here = self._buckets.settings(self._settings.bucket).residency
        standing.excluded = {}
        for name in names:
            labels = {use.residency for use in usage if use.bucket == name}
            labels.add(self._buckets.settings(name).residency)
            part = standing.coverage.setdefault(name, Coverage())
            if not all(may_keep(label, here) for label in labels):
                standing.excluded[name] = (await self._asking.changes(name, "", 1)).live
            elif name not in standing.cursors and not self._sweeping.is_filling(name):
                page = await self._asking.changes(name, "", 1)
                part.live = part.waiting = page.live
                part.since = page.since
        for name in standing.coverage.keys() - set(names):
            del standing.coverage[name]

    async def _follow_bucket(self, name: str) -> bool:
        """Copy and remove until the catalog has no more to tell; False if the bucket is stuck."""
        standing = self._standing
        while True:
            try:
                page = await self._asking.changes(name, standing.cursors[name])
            except LakehouseError as error:
                if error.kind is not ErrorKind.INVALID:
                    raise
                # The note was damaged: a sweep finds out what is there.
                del standing.cursors[name]
                self._sweeping.hurry()
                return True
            await self._keeping.remove(name, page.given_up)
            wanted = [known for file in page.added for known in known_objects(file)]
            if not await self._keeping.copy_page(name, wanted):
                waiting = page.waiting + len(page.added)
                standing.coverage[name] = Coverage(page.live, waiting, page.since)
                await self._remove_ahead(name, page)
                return False
            standing.cursors[name] = page.cursor
            standing.coverage[name] = Coverage(page.live, page.waiting, page.waiting_since)
            if not page.waiting:
                self._ahead.pop(name, None)
                self._keeping.caught_up(name)
                return True

    async def _remove_ahead(self, name: str, page: ObjectChangesResult) -> None:
        """What was given up goes also while the bucket that had it does not answer."""
        cursor, more = self._ahead.get(name, page.cursor), True
        while more:
            page = await self._asking.changes(name, cursor)
            await self._keeping.remove(name, page.given_up)
            cursor = self._ahead[name] = page.cursor
            more = page.waiting > 0
