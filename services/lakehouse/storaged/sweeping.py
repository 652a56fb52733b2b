"""Sweeps, and a sample of copies read back between them."""

from __future__ import annotations

from typing import Final

from lakehouse.contracts.inventory import ObjectStanding
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.refs import ObjectRef
from lakehouse.objectstore.rescue import COPIES, KnownObject, RescueSettings
from lakehouse.storaged.asking import PAGE, Asking
from lakehouse.storaged.copying import Copying, known_objects
from lakehouse.storaged.keeping import Coverage, Keeping, Standing
from lakehouse.storaged.sweep import Sample, Seen, Verdict, Walk, is_foreign, judge, origins

__all__ = ["Sweeping"]

_HOUR: Final = 3600.0
# A request whose end nobody knows has ended by then, also at a server that was slow.
_SETTLED_SECONDS: Final = 900.0


class Sweeping:
    """One sweep at the start, one every ``sweep_seconds``, and one for buckets without a cursor:
    it fills them, and then gives them theirs.

    An object that was only registered is never condemned, so no change tells that it was given up.
    While there are copies of such, those alone are compared within an hour of a change. After a put
    of a copy whose end nobody knows all are, for it may come after the copy was removed.
    """

    def __init__(
        self,
        settings: RescueSettings,
        asking: Asking,
        keeping: Keeping,
        copying: Copying,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._settings = settings
        self._asking = asking
        self._keeping = keeping
        self._copying = copying
        self._clock = clock
        self._ids = ids
        self._walk: Walk | None = None
        self._swept_at: float | None = None
        self._looked_at = clock.monotonic()
        self._looked_version = -1
        self._sample: list[ObjectRef] = []
        self._verified_at = clock.monotonic()

    @property
    def under_way(self) -> bool:
        return self._walk is not None

    def is_filling(self, bucket: str) -> bool:
        """Whether the bucket's coverage is this sweep's to tell."""
        return self._walk is not None and bucket in self._walk.cursors

    def hurry(self) -> None:
        """Begin the next one at once."""
        self._swept_at = None

    def is_due(self, standing: Standing) -> bool:
        if self._walk is not None or self._is_whole_due(standing):
            return True
        since = self._clock.monotonic() - self._looked_at
        late = since >= min(_HOUR, self._settings.sweep_seconds)
        return late and self._keeping.foreign and standing.version != self._looked_version

    def _is_whole_due(self, standing: Standing) -> bool:
        now, seconds = self._clock.monotonic(), self._settings.sweep_seconds
        if self._swept_at is None or standing.eligible() - standing.cursors.keys():
            return True
        unsettled = self._copying.unsettled_at
        if unsettled is not None and now - unsettled >= min(_SETTLED_SECONDS, seconds):
            return True
        return now - self._swept_at >= seconds

    async def step(self, standing: Standing) -> bool:
        """One page of a sweep, of each bucket in its second half; whether it got on."""
        now = self._clock.monotonic()
        walk = self._walk
        if walk is None or now - walk.began > max(_HOUR, self._settings.sweep_seconds):
            walk = self._walk = await self._begin(standing)
        if walk.listed is not None:
            await self._list_page(walk, walk.listed, standing)
            return True
        got_on = False
        for bucket in list(walk.cursors):
            got_on = await self._walk_page(walk, bucket, standing) or got_on
        if not walk.cursors:
            await self._let_go()
            self._walk, self._looked_at, self._looked_version = None, now, walk.version
            if not walk.foreign_only:
                self._swept_at = now
        return got_on and self._walk is not None

    async def verify(self, standing: Standing) -> None:
        """Read back one copy of the sample if its time has come."""
        rate, now = self._settings.verify_objects, self._clock.monotonic()
        if rate <= 0 or not self._sample or now - self._verified_at < _HOUR / rate:
            return
        self._verified_at = now
        origin = self._sample.pop(int(self._ids.uniform() * len(self._sample)))
        [state] = await self._asking.states([origin])
        if state.standing is not ObjectStanding.NAMED or origin.bucket in standing.excluded:
            return
        known = KnownObject(origin.bucket, origin.key, state.size_bytes, state.sha256)
        try:
            right = await self._copying.is_right(known)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            right = False
        self._keeping.counts.verified += 1
        if not right:
            await self._keeping.replace(known)

    async def _begin(self, standing: Standing) -> Walk:
        hours = max(1.0, self._settings.sweep_seconds / _HOUR)
        whole = self._is_whole_due(standing)
        buckets = standing.eligible() if whole else set()
        version = (await self._asking.status()).version
        if whole:
            self._copying.unsettled_at = None
            self._keeping.foreign = False
        return Walk(
            version=version,
            began=self._clock.monotonic(),
            foreign_only=not whole,
            seen=Seen(self._ids.token(16)),
            sample=Sample(int(self._settings.verify_objects * hours), self._ids),
            cursors=dict.fromkeys(sorted(buckets), ""),
            fresh=buckets - standing.cursors.keys(),
        )

    async def _list_page(self, walk: Walk, after: str, standing: Standing) -> None:
        """Look at a page of copies: what must not be there goes, what is left was seen."""
        page = await self._copying.store.list(COPIES, start_after=after, limit=PAGE)
        found = [
            (copy, origin)
            for copy, origin in origins(page)
            if not walk.foreign_only or is_foreign(origin.key)
        ]
        states = await self._asking.states([origin for _, origin in found])
        counts = self._keeping.counts
        gone: list[str] = []
        for (copy, origin), state in zip(found, states, strict=True):
            verdict = judge(copy, origin, state, origin.bucket in standing.excluded)
            if verdict is Verdict.KEEP:
                walk.seen.add(origin.bucket, origin.key)
                self._keeping.foreign = self._keeping.foreign or is_foreign(origin.key)
                if state.standing is ObjectStanding.NAMED:
                    walk.sample.offer(origin)
                continue
            gone.append(copy.key)
            counts.damaged += verdict is Verdict.DAMAGED
            counts.deletions += verdict is Verdict.REMOVE
        await self._copying.remove(gone)
        walk.go_on(page, PAGE)
        if walk.listed is None and not walk.foreign_only:
            self._sample = walk.sample.objects

    async def _let_go(self) -> None:
        """Of what could not be copied: what the catalog does not name any more, or not so."""
        keeping = self._keeping
        left = [*keeping.failed, *keeping.barred]
        for at in range(0, len(left), PAGE):
            page = left[at : at + PAGE]
            states = await self._asking.states([ObjectRef(one.bucket, one.key) for one in page])
            for known, state in zip(page, states, strict=True):
                named = state.standing is ObjectStanding.NAMED
                if not named or state.sha256 != known.sha256:
                    keeping.let_go(known)

    async def _walk_page(self, walk: Walk, bucket: str, standing: Standing) -> bool:
        """Copy what is missing of a page of the bucket's objects; False if it is stuck."""
        if bucket not in standing.eligible():
            del walk.cursors[bucket]
            return True
        fresh = bucket in walk.fresh
        page = await self._asking.changes(bucket, walk.cursors[bucket])
        missing = [
            known
            for file in page.added
            if fresh or file.seq <= walk.version
            for known in known_objects(file)
            if (known.bucket, known.key) not in walk.seen
        ]
        if fresh:
            await self._keeping.remove(bucket, page.given_up)
        if not await self._keeping.copy_page(bucket, missing):
            return False
        walk.cursors[bucket] = page.cursor
        if fresh:
            standing.coverage[bucket] = Coverage(page.live, page.waiting, page.waiting_since)
        past = not fresh and page.added and page.added[-1].seq > walk.version
        if past or not page.waiting:
            del walk.cursors[bucket]
            if fresh:
                standing.cursors[bucket] = page.cursor
        return True
