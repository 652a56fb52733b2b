"""The copier that fills the rescue bucket: follows the catalog, sweeps, verifies a sample.

In steady state it asks the catalog for its version and does nothing else. What came is copied, what
was given up is removed before the catalog lets the original go; a sweep at each start and now and
then finds what no change tells. Every step may be cut off anywhere: copies appear whole or not at
all, and what is known to be copied is noted only after it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lakehouse.contracts import inventory as i
from lakehouse.contracts.catalog import CatalogService, StatusRequest, UsageRequest
from lakehouse.contracts.storage import RescueInfo
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.refs import ObjectRef
from lakehouse.model.residency import may_keep
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.rescue import COPIES, KnownObject, RescueSettings, rescue_key
from lakehouse.storaged.copies import claim, load_cursors, save_cursors
from lakehouse.storaged.copying import Copying, Pace, known_objects
from lakehouse.storaged.fan import each_of
from lakehouse.storaged.sweep import Sample, Seen, Verdict, Walk, judge, origins

__all__ = ["COPIER", "Copier"]

log = logging.getLogger(__name__)

COPIER: Final = Principal(id="rescue", scopes=(Scope.READ,))
_PAGE: Final = 1000
_BUSY_SECONDS: Final = 0.02
_FAILED_MAX: Final = 10_000
_HELD_SECONDS_MAX: Final = 60.0
_TROUBLES_MAX: Final = 4
_HOUR: Final = 3600.0
# What these say is true of one object; everything else stops the bucket until the next round.
_OF_OBJECTS: Final = frozenset({ErrorKind.NOT_FOUND, ErrorKind.CORRUPT, ErrorKind.INVALID})


@dataclass(slots=True)
class _Coverage:
    """Of one bucket: files that live, and how many of them have no copy yet, since when."""

    live: int = 0
    waiting: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """A bucket that did not answer is not asked before ``until``, ``seconds`` after the last."""

    until: float
    seconds: float


class Copier:
    """Runs until it is cancelled; one a store is enough, and two do no harm.

    Args:
        catalog: what there is; called as ``COPIER``, scope read.
        settings: its bucket is one of ``buckets``.
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
        self._catalog = catalog
        self._buckets = buckets
        self._clock = clock
        self._ids = ids
        self._served = served
        self._copying = Copying(buckets, settings.bucket, Pace(clock, settings.bandwidth_bytes_max))
        self._claimed = False
        self._version = -1
        self._cursors: dict[str, str] = {}
        self._saved: dict[str, str] = {}
        self._doubtful: set[str] = set()
        self._settled: dict[str, set[KnownObject]] = {}
        self._removed: dict[str, set[ObjectRef]] = {}
        self._ahead: dict[str, str] = {}
        self._held: dict[str, _Held] = {}
        self._coverage: dict[str, _Coverage] = {}
        self._excluded: dict[str, int] = {}
        self._failed: dict[KnownObject, datetime] = {}
        self._walk: Walk | None = None
        self._swept_at: float | None = None
        self._sample: list[ObjectRef] = []
        self._verified_at = clock.monotonic()
        self._counts = {"verified": 0, "damaged": 0, "deletions": 0}
        self._last_error = ""
        self._troubles = 0

    def info(self) -> RescueInfo:
        """How the copies stand, as of the last round."""
        parts = [part for name, part in self._coverage.items() if name not in self._excluded]
        objects = sum(part.live for part in parts)
        waiting = sum(part.waiting for part in parts) + len(self._failed)
        since = [part.since for part in parts if part.since] + list(self._failed.values())
        now = to_datetime(self._clock.now_us())
        return RescueInfo(
            bucket=self._settings.bucket,
            objects=objects,
            copied=max(0, objects - waiting),
            excluded=sum(self._excluded.values()),
            lag_seconds=max(0.0, (now - min(since)).total_seconds()) if since else 0.0,
            served=self._served(),
            last_error=self._last_error,
            **self._counts,
        )

    async def run(self) -> None:
        """Rounds for ever. A bucket or catalog that does not answer is asked again next time."""
        with act_as(COPIER.id):
            while True:
                busy = await self.round()
                seconds = self._settings.interval_seconds * 2.0**self._troubles
                await self._clock.sleep(_BUSY_SECONDS if busy else seconds)

    async def round(self) -> bool:
        """Follow the catalog, then one step of what is due; whether there is more to do now."""
        try:
            await self._begin()
            stuck = not await self._follow()
            busy = self._is_sweep_due() and await self._sweep()
            if not busy:
                await self._verify()
        except LakehouseError as error:
            self._note(error)
            self._troubles = min(self._troubles + 1, _TROUBLES_MAX)
            return False
        self._troubles = 0
        if not stuck and not self._failed and self._walk is None:
            self._last_error = ""
        return busy

    # -- following ---------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._claimed:
            return
        store = self._copying.store
        status = await self._catalog.status(self._ctx(), StatusRequest())
        await claim(store, status.store_id)
        self._cursors = await load_cursors(store)
        self._saved = dict(self._cursors)
        # Their first pages may have been copied in part before the process died.
        self._doubtful = set(self._cursors)
        self._claimed = True

    async def _follow(self) -> bool:
        """Bring every bucket to the catalog's version; False if one could not be."""
        version = (await self._catalog.status(self._ctx(), StatusRequest())).version
        names = [name for name in self._buckets.names() if name != self._settings.bucket]
        if version == self._version and set(names) == set(self._coverage):
            return True
        await self._place(names)
        done = True
        for name in names:
            if name in self._excluded:
                self._cursors.pop(name, None)
            elif name in self._cursors:
                done = await self._follow_bucket(name) and done
        await self._save()
        self._version = version if done else -1
        return done

    async def _save(self) -> None:
        if self._cursors != self._saved:
            cursors = dict(self._cursors)
            await save_cursors(self._copying.store, cursors)
            self._saved = cursors

    async def _place(self, names: Sequence[str]) -> None:
        """Which buckets may be copied here, and how many objects each has."""
        usage = await self._catalog.usage(self._ctx(), UsageRequest())
        here = self._buckets.settings(self._settings.bucket).residency
        self._excluded = {}
        for name in names:
            labels = {use.residency for use in usage.buckets if use.bucket == name}
            labels.add(self._buckets.settings(name).residency)
            part = self._coverage.setdefault(name, _Coverage())
            barred = not all(may_keep(label, here) for label in labels)
            if barred or name not in self._cursors:
                page = await self._changes(name, "", 1)
                part.live = page.live
                if barred:
                    self._excluded[name] = page.live
                elif self._walk is None or name not in self._walk.cursors:
                    part.waiting, part.since = page.live, page.waiting_since
        for name in set(self._coverage) - set(names):
            del self._coverage[name]

    async def _follow_bucket(self, name: str) -> bool:
        """Copy and remove until the catalog has no more to tell; False if the bucket is stuck."""
        while True:
            try:
                page = await self._changes(name, self._cursors[name], _PAGE)
            except LakehouseError as error:
                if error.kind is not ErrorKind.INVALID:
                    raise
                # The note was damaged: a sweep finds out what is there.
                del self._cursors[name]
                self._swept_at = None
                return True
            await self._remove(name, page.given_up)
            wanted = [known for file in page.added for known in known_objects(file)]
            if not await self._copy_page(name, wanted):
                self._coverage[name] = _Coverage(
                    page.live, page.waiting + len(page.added), self._since(page)
                )
                await self._remove_ahead(name, page)
                return False
            self._cursors[name] = page.cursor
            self._coverage[name] = _Coverage(page.live, page.waiting, page.waiting_since)
            if not page.waiting:
                self._removed.pop(name, None)
                self._ahead.pop(name, None)
                return True

    async def _remove_ahead(self, name: str, page: i.ObjectChangesResult) -> None:
        """What was given up goes also while the bucket that had it does not answer."""
        cursor = self._ahead.get(name, page.cursor)
        while True:
            page = await self._changes(name, cursor, _PAGE)
            await self._remove(name, page.given_up)
            cursor = self._ahead[name] = page.cursor
            if not page.waiting:
                return

    def _since(self, page: i.ObjectChangesResult) -> datetime:
        return page.waiting_since or to_datetime(self._clock.now_us())

    async def _changes(self, bucket: str, cursor: str, limit: int) -> i.ObjectChangesResult:
        request = i.ObjectChangesRequest(bucket, cursor, limit)
        return await self._catalog.object_changes(self._ctx(), request)

    # -- copying and removing ----------------------------------------------------------------

    async def _copy_page(self, name: str, wanted: Iterable[KnownObject]) -> bool:
        """Copy all of ``wanted`` but those that cannot be; False if the bucket, or the rescue
        bucket, does not answer: what was settled by then is not done again."""
        settled = self._settled.setdefault(name, set())
        left = [known for known in wanted if known not in settled]
        held = self._held.get(name)
        if left and held is not None and self._clock.monotonic() < held.until:
            return False

        async def one(known: KnownObject) -> None:
            try:
                await self._copying.copy(known, doubtful=name in self._doubtful)
                self._failed.pop(known, None)
            except LakehouseError as error:
                if not _is_of_object(error):
                    raise
                self._fail(known, error)
            settled.add(known)

        try:
            await each_of(left, one, self._settings.concurrency)
        except LakehouseError as error:
            self._note(error)
            least = self._settings.interval_seconds
            seconds = min(_HELD_SECONDS_MAX, 2 * held.seconds) if held is not None else least
            self._held[name] = _Held(self._clock.monotonic() + seconds, seconds)
            return False
        self._held.pop(name, None)
        del self._settled[name]
        self._doubtful.discard(name)
        return True

    def _fail(self, known: KnownObject, error: LakehouseError) -> None:
        self._note(error)
        if len(self._failed) < _FAILED_MAX:
            self._failed.setdefault(known, to_datetime(self._clock.now_us()))

    async def _remove(self, name: str, gone: Sequence[ObjectRef]) -> None:
        """Remove the copies of objects that the catalog has given up."""
        removed = self._removed.setdefault(name, set())
        left = [ref for ref in gone if ref not in removed]
        if not left:
            return
        copies = []
        for ref in left:
            try:
                copies.append(rescue_key(ref.bucket, ref.key))
            except LakehouseError:
                continue  # what may not be copied has no copy
        await self._copying.remove(copies)
        removed.update(left)
        self._counts["deletions"] += len(copies)
        for known in list(self._failed):
            if ObjectRef(known.bucket, known.key) in removed:
                del self._failed[known]

    # -- sweeping ----------------------------------------------------------------------------

    def _is_sweep_due(self) -> bool:
        now, seconds = self._clock.monotonic(), self._settings.sweep_seconds
        if self._walk is not None:
            return True
        unfilled = self._coverage.keys() - self._excluded.keys() - self._cursors.keys()
        return bool(unfilled) or self._swept_at is None or now - self._swept_at >= seconds

    async def _sweep(self) -> bool:
        """One page of a sweep; whether it got on."""
        now = self._clock.monotonic()
        if self._walk is None or now - self._walk.began > max(_HOUR, self._settings.sweep_seconds):
            size = int(
                self._settings.verify_objects * max(1.0, self._settings.sweep_seconds / _HOUR)
            )
            names = self._coverage.keys() - self._excluded.keys()
            version = (await self._catalog.status(self._ctx(), StatusRequest())).version
            self._walk = Walk(
                version,
                now,
                Seen(self._ids.token(16)),
                Sample(size, self._ids),
                cursors=dict.fromkeys(sorted(names), ""),
                fresh=names - self._cursors.keys(),
            )
        walk = self._walk
        if walk.listed is not None:
            await self._list_page(walk, walk.listed)
            return True
        got_on = False
        for name in list(walk.cursors):
            got_on = await self._walk_page(walk, name) or got_on
        if not walk.cursors:
            self._walk, self._swept_at = None, now
            await self._save()
            return False
        return got_on

    async def _list_page(self, walk: Walk, after: str) -> None:
        page = await self._copying.store.list(COPIES, start_after=after, limit=_PAGE)
        found = origins(page)
        request = i.ObjectStatesRequest(tuple(origin for _, origin in found))
        states: tuple[i.ObjectState, ...] = ()
        if found:
            states = (await self._catalog.object_states(self._ctx(), request)).states
        gone: list[str] = []
        for (copy, origin), state in zip(found, states, strict=True):
            verdict = judge(copy, origin, state, origin.bucket in self._excluded)
            if verdict is Verdict.KEEP:
                walk.seen.add(origin.bucket, origin.key)
                if state.standing is i.ObjectStanding.NAMED:
                    walk.sample.offer(origin)
                continue
            gone.append(copy.key)
            self._counts["damaged" if verdict is Verdict.DAMAGED else "deletions"] += 1
        await self._copying.remove(gone)
        walk.listed = page[-1].key if len(page) == _PAGE else None
        if walk.listed is None:
            self._sample = walk.sample.objects

    async def _walk_page(self, walk: Walk, name: str) -> bool:
        """Copy what is missing of a page of the bucket's objects; False if it is stuck."""
        fresh = name in walk.fresh
        if name in self._excluded or name not in self._coverage:
            del walk.cursors[name]
            return True
        page = await self._changes(name, walk.cursors[name], _PAGE)
        missing = [
            known
            for file in page.added
            if fresh or file.seq <= walk.version
            for known in known_objects(file)
            if (known.bucket, known.key) not in walk.seen
        ]
        if fresh:
            await self._remove(name, page.given_up)
        if not await self._copy_page(name, missing):
            return False
        if fresh:
            self._coverage[name] = _Coverage(page.live, page.waiting, page.waiting_since)
        walk.cursors[name] = page.cursor
        if not page.waiting or (not fresh and page.added and page.added[-1].seq > walk.version):
            del walk.cursors[name]
            if fresh:
                self._cursors[name] = page.cursor
        return True

    # -- verifying ---------------------------------------------------------------------------

    async def _verify(self) -> None:
        """Read back one copy of the sample if its time has come."""
        rate, now = self._settings.verify_objects, self._clock.monotonic()
        if rate <= 0 or not self._sample or now - self._verified_at < _HOUR / rate:
            return
        self._verified_at = now
        origin = self._sample.pop(int(self._ids.uniform() * len(self._sample)))
        request = i.ObjectStatesRequest((origin,))
        [state] = (await self._catalog.object_states(self._ctx(), request)).states
        if state.standing is not i.ObjectStanding.NAMED or origin.bucket in self._excluded:
            return
        known = KnownObject(origin.bucket, origin.key, state.size_bytes, state.sha256)
        try:
            right = await self._copying.is_right(known)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            right = False
        self._counts["verified"] += 1
        if not right:
            self._counts["damaged"] += 1
            await self._copying.remove([rescue_key(origin.bucket, origin.key)])
            self._fail(known, _damaged(known))
            await self._copy_page(origin.bucket, [known])

    def _note(self, error: LakehouseError) -> None:
        told = str(error)
        if told != self._last_error:
            log.warning("the rescue copier is held up", extra={"reason": told, **_places(error)})
        self._last_error = told

    def _ctx(self) -> Context:
        return Context(COPIER, self._ids.ulid(), source="rescue")


def _is_of_object(error: LakehouseError) -> bool:
    cut_off = error.fields.get("truncated") is True
    return error.kind in _OF_OBJECTS and not cut_off and error.fields.get("what") != "bucket"


def _places(error: LakehouseError) -> dict[str, str]:
    return {name: str(error.fields[name]) for name in ("bucket", "key") if name in error.fields}


def _damaged(known: KnownObject) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "a copy in the rescue bucket was damaged and is made again",
        bucket=known.bucket,
        key=known.key,
    )
