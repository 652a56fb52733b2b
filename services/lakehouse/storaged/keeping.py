"""Making and removing copies page by page, and remembering what could not be done and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.model.refs import ObjectRef
from lakehouse.objectstore.rescue import KnownObject, RescueSettings, rescue_key
from lakehouse.storaged.copying import Copying
from lakehouse.storaged.fan import each_of
from lakehouse.storaged.sweep import is_foreign

__all__ = ["Counts", "Coverage", "Keeping", "Standing"]

log = logging.getLogger(__name__)

_FAILED_MAX: Final = 10_000
_HELD_SECONDS_MAX: Final = 60.0
# What these say is true of one object; everything else stops the bucket until it is asked again.
_OF_OBJECTS: Final = frozenset({ErrorKind.NOT_FOUND, ErrorKind.CORRUPT, ErrorKind.INVALID})


@dataclass(slots=True)
class Coverage:
    """Of one bucket: files that live, and how many of them have no copy yet, since when."""

    live: int = 0
    waiting: int = 0
    since: datetime | None = None


@dataclass(slots=True)
class Standing:
    """How the copies of each bucket stand, by its name.

    Attributes:
        version: of the catalog when it was last asked.
        cursors: where the catalog's changes go on; all before is copied. A bucket without one has
            yet to be filled.
        coverage: of every bucket there is but the rescue bucket.
        excluded: those whose objects residency keeps away, with how many live.
    """

    version: int = -1
    cursors: dict[str, str] = field(default_factory=dict)
    coverage: dict[str, Coverage] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)

    def eligible(self) -> set[str]:
        """The buckets that are copied."""
        return self.coverage.keys() - self.excluded.keys()


@dataclass(slots=True)
class Counts:
    """Since the start, as in ``RescueInfo``."""

    verified: int = 0
    damaged: int = 0
    deletions: int = 0


@dataclass(frozen=True, slots=True)
class _Held:
    """A bucket that did not answer is not asked before ``until``, ``seconds`` after the last."""

    until: float
    seconds: float


class Keeping:
    """``doubtful``: buckets whose next page may have been copied in part before the process died.
    ``failed``: objects without a copy for a reason of their own, since when it is known.
    ``barred``: objects whose key leaves no place for a copy. ``foreign``: there may be copies of
    objects that were only registered."""

    def __init__(self, copying: Copying, settings: RescueSettings, clock: Clock) -> None:
        self._copying = copying
        self._settings = settings
        self._clock = clock
        self._settled: dict[str, set[KnownObject]] = {}
        self._removed: dict[str, set[ObjectRef]] = {}
        self._held: dict[str, _Held] = {}
        self.doubtful: set[str] = set()
        self.failed: dict[KnownObject, datetime] = {}
        self.barred: set[KnownObject] = set()
        self.foreign = False
        self.counts = Counts()
        self.last_error = ""

    async def copy_page(self, bucket: str, wanted: Iterable[KnownObject]) -> bool:
        """Copy all of ``wanted`` but those that cannot be; False if the bucket, or the rescue
        bucket, does not answer: what was settled by then is not done again."""
        settled = self._settled.setdefault(bucket, set())
        left = [known for known in wanted if known not in settled and self._has_place(known)]
        self.foreign = self.foreign or any(is_foreign(known.key) for known in left)
        held = self._held.get(bucket)
        if left and held is not None and self._clock.monotonic() < held.until:
            return False

        async def one(known: KnownObject) -> None:
            try:
                await self._copying.copy(known, doubtful=bucket in self.doubtful)
                self.failed.pop(known, None)
            except LakehouseError as error:
                if not _is_of_object(error):
                    raise
                self.fail(known, error)
            settled.add(known)

        try:
            await each_of(left, one, self._settings.concurrency)
        except LakehouseError as error:
            self.note(error)
            seconds = self._settings.interval_seconds
            if held is not None:
                seconds = min(_HELD_SECONDS_MAX, 2 * held.seconds)
            self._held[bucket] = _Held(self._clock.monotonic() + seconds, seconds)
            return False
        self._held.pop(bucket, None)
        del self._settled[bucket]
        self.doubtful.discard(bucket)
        return True

    async def remove(self, bucket: str, gone: Sequence[ObjectRef]) -> None:
        """Remove the copies of objects of ``bucket`` that the catalog has given up."""
        removed = self._removed.setdefault(bucket, set())
        left = [ref for ref in gone if ref not in removed]
        copies = []
        for ref in left:
            try:
                copies.append(rescue_key(ref.bucket, ref.key))
            except LakehouseError:
                continue  # what may not be copied has no copy
        if not copies:
            return
        await self._copying.remove(copies)
        removed.update(left)
        self.counts.deletions += len(copies)
        for known in [*self.failed, *self.barred]:
            if ObjectRef(known.bucket, known.key) in removed:
                self.let_go(known)

    def let_go(self, known: KnownObject) -> None:
        """No copy of the object is wanted any more."""
        self.failed.pop(known, None)
        self.barred.discard(known)

    def _has_place(self, known: KnownObject) -> bool:
        try:
            rescue_key(known.bucket, known.key)
        except LakehouseError:
            if len(self.barred) < _FAILED_MAX:
                self.barred.add(known)
            return False
        return True

    def caught_up(self, bucket: str) -> None:
        """All that the catalog has to tell of the bucket is done."""
        self._removed.pop(bucket, None)

    async def replace(self, known: KnownObject) -> None:
        """Remove a damaged copy and make it again, now or when its bucket answers."""
        self.counts.damaged += 1
        await self._copying.remove([rescue_key(known.bucket, known.key)])
        told = "a copy in the rescue bucket was damaged and is made again"
        error = LakehouseError(ErrorKind.CORRUPT, told, bucket=known.bucket, key=known.key)
        self.fail(known, error)
        await self.copy_page(known.bucket, [known])

    def fail(self, known: KnownObject, error: LakehouseError) -> None:
        """Remember an object that has no copy, for ``error``; the next sweep tries again."""
        self.note(error)
        if len(self.failed) < _FAILED_MAX:
            self.failed.setdefault(known, to_datetime(self._clock.now_us()))

    def note(self, error: LakehouseError) -> None:
        """Show what holds the copier up; logged when it is news."""
        told = str(error)
        if told != self.last_error:
            fields = error.fields
            about = {"bucket": fields.get("bucket"), "key": fields.get("key"), "reason": told}
            log.warning("the rescue copier is held up", extra=about)
        self.last_error = told


def _is_of_object(error: LakehouseError) -> bool:
    fields = error.fields
    if error.kind is ErrorKind.INVALID and "s3_status" in fields:
        return False  # another region, or a server that cannot do it: that is the bucket
    cut_off = fields.get("truncated") is True
    return error.kind in _OF_OBJECTS and not cut_off and fields.get("what") != "bucket"
