"""Merging old batches into larger objects, and giving up what is too old.

Compaction commits nothing. In this order, so that a crash anywhere, or another compactor beside,
neither loses nor doubles: read, look at the floor again (a slot below it may hold a late writer's
bytes), write the merged object, read it back, raise the floor, delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lakehouse.appendlog.batch import read_batch
from lakehouse.appendlog.layout import LogLayout, Range
from lakehouse.appendlog.mapping import LogMap, map_log
from lakehouse.appendlog.merged import body_of, digest, merge
from lakehouse.appendlog.objects import LogObjects
from lakehouse.appendlog.search import Stale, find_end
from lakehouse.appendlog.settings import LogSettings
from lakehouse.appendlog.tiers import Segment, plan_merges
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger import floor
from lakehouse.ledger.access import Access
from lakehouse.objectstore.port import ObjectMeta

_DELETED_TOGETHER: Final = 1000


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did, or with ``dry_run`` would do.

    Attributes:
        merged: batches from and to of each new object.
        bytes_read, bytes_written: of merged batches.
        floor: slots up to here are in merged objects; -1 for none.
        damaged: keys of batches that were carried along as they are, or left where they are.
    """

    merged: tuple[tuple[int, int], ...] = ()
    batches: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    slots_deleted: int = 0
    objects_deleted: int = 0
    floor: int = -1
    damaged: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RetainReport:
    """Batches up to ``through`` are gone (-1: none ever were)."""

    through: int
    batches: int
    slots_deleted: int
    objects_deleted: int


class Compactor:
    """One compaction or retention; make a new one for each."""

    def __init__(self, access: Access, layout: LogLayout, settings: LogSettings) -> None:
        self._access = access
        self._layout = layout
        self._settings = settings
        self._objects = LogObjects(access, layout)
        self._verified: set[Range] = set()
        self._merged: list[Range] = []
        self._damaged: list[str] = []
        self._bytes_read = 0

    async def compact(self, dry_run: bool) -> CompactReport:
        where = await self._trusted(await map_log(self._access, self._layout))
        groups = plan_merges(await self._segments(where), self._settings)
        if dry_run:
            size = sum(one.size_bytes for group in groups for one in group)
            return CompactReport(
                merged=tuple((group[0].first, group[-1].last) for group in groups),
                batches=sum(one.batches for group in groups for one in group),
                bytes_read=size,
                bytes_written=size,
                floor=where.floor,
                dry_run=True,
            )
        for group in groups:
            if not await self._merge(group):
                break
        reached = await self._raise_floor()
        slots = await self._delete_slots(reached)
        objects = await self._delete_merged()
        await floor.drop_lower_floors(self._access)
        return CompactReport(
            merged=tuple((one.first, one.last) for one in self._merged),
            batches=sum(one.batches for one in self._merged),
            bytes_read=self._bytes_read,
            bytes_written=sum(one.size_bytes for one in self._merged),
            slots_deleted=slots,
            objects_deleted=objects,
            floor=reached,
            damaged=tuple(self._damaged),
        )

    async def retain(self, before_us: int) -> RetainReport:
        """Give up the batches written before ``before_us``, but for the newest."""
        access, layout = self._access, self._layout
        where, end = await self._find_end(before_us)
        through = max(end, where.retained)
        if through > where.retained:
            # First of all: from now on readers do not look for them.
            await access.put_named(layout.retained_mark(through), b"")
        # Slots go after the floor alone: a late write into one of them must not count.
        reached = await self._floor_at_least(through)
        slots = await self._delete_slots(reached)
        dead = [one.key for one in await self._objects.merged() if one.last <= through]
        await self._delete(dead)
        marks = await access.list_keys(layout.retained)
        await access.delete(marks[1:])
        return RetainReport(through, through - where.retained, slots, len(dead))

    async def _find_end(self, before_us: int) -> tuple[LogMap, int]:
        while True:
            where = await map_log(self._access, self._layout)
            try:
                return where, await find_end(self._access, self._layout, where, before_us)
            except Stale:
                continue  # another compactor is at it

    async def _segments(self, where: LogMap) -> list[Segment]:
        """Everything that is old enough to be merged, in order."""
        limit = where.newest - max(self._settings.slots_kept, 1)
        sizes = await self._slot_sizes(where, limit)
        found: list[Segment] = []
        for unit in where.units(where.oldest, limit):
            if unit.missing:
                continue  # a gap: what lies on both sides is not merged over it
            if unit.merged is not None:
                # Only a part of an object: a wider one reaches into it. It stays as it is.
                whole = (unit.first, unit.last) == (unit.merged.first, unit.merged.last)
                size = unit.merged.size_bytes
                found.append(Segment(unit.first, unit.last, size, unit.merged, not whole))
                continue
            found += [
                Segment(n, n, sizes[n]) for n in range(unit.first, unit.last + 1) if n in sizes
            ]
        return found

    async def _trusted(self, where: LogMap) -> LogMap:
        """``where`` without objects that are damaged while their slots are still there: a run that
        crashed may have left them, and it is done again."""
        for one in where.merged:
            if one.first > where.floor:
                try:
                    await self._verify(one)
                except LakehouseError as error:
                    if error.kind not in (ErrorKind.CORRUPT, ErrorKind.NOT_FOUND):
                        raise
                    where = where.without(one)
        return where

    async def _slot_sizes(self, where: LogMap, limit: int) -> dict[int, int]:
        """Sizes of the slots above the floor, up to ``limit``."""
        sizes: dict[int, int] = {}
        start = self._layout.slot(limit + 1) if limit >= 0 else ""
        while start:
            page = await self._page(start)
            for meta in page:
                n = self._layout.slot_number(meta.key)
                if n <= where.floor:
                    return sizes
                sizes[n] = meta.size_bytes
            start = page[-1].key if page else ""
        return sizes

    async def _page(self, start_after: str) -> list[ObjectMeta]:
        store, prefix = self._access.store, self._layout.slots
        return await self._access.patiently(lambda: store.list(prefix, start_after=start_after))

    async def _merge(self, group: Sequence[Segment]) -> bool:
        """Make one object of ``group``; false if somebody else is at it."""
        bodies: list[bytes] = []
        slots = [one.first for one in group if one.merged is None]
        try:
            read = iter(await self._read_slots(slots))
            for one in group:
                if one.merged is None:
                    bodies.append(next(read))
                else:
                    data = await self._objects.read_merged(one.merged)
                    self._bytes_read += len(data)
                    bodies.append(body_of(data))
        except LakehouseError as error:
            if error.kind is ErrorKind.CORRUPT:
                self._damaged.append(str(error.fields.get("key", "")))
                return True
            if error.kind is ErrorKind.NOT_FOUND:
                return False
            raise
        if slots and not await self._above_floor(min(slots)):
            return False
        data = await run_blocking(merge, group[0].first, group[-1].last, bodies)
        sha256 = await run_blocking(digest, data)
        key = self._layout.merged_key(group[0].first, group[-1].last, sha256)
        one_object = Range(group[0].first, group[-1].last, key, sha256, len(data))
        await self._write(one_object, data)
        self._merged.append(one_object)
        return True

    async def _write(self, one: Range, data: bytes) -> None:
        """Have the object, and know that it is whole."""
        await self._access.put_named(one.key, data)
        try:
            await self._verify(one)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            # Its name says what is in it: writing that again hurts nobody.
            await self._access.patiently(lambda: self._access.store.put(one.key, data))
            await self._verify(one)

    async def _above_floor(self, n: int) -> bool:
        """Whether slot ``n`` and those after it still are what they were: asked after reading."""
        return n > await self._access.patiently(lambda: floor.read_floor(self._access))

    async def _read_slots(self, numbers: Sequence[int]) -> list[bytes]:
        """The batches, each as it is; a damaged one only if it is so each time it is read."""
        keys = [self._layout.slot(n) for n in numbers]
        found = await self._access.get_many(keys)
        read: list[tuple[str, bytes]] = []
        for key, data in zip(keys, found, strict=True):
            if data is None:
                raise LakehouseError(ErrorKind.NOT_FOUND, "the batch is gone", key=key)
            self._bytes_read += len(data)
            read.append((key, data))
        for key, data in await run_blocking(_not_whole, read):
            if await self._access.get(key) != data:
                raise LakehouseError(ErrorKind.CORRUPT, "the batch is read damaged", key=key)
            self._damaged.append(key)
        return [data for _, data in read]

    async def _verify(self, one: Range) -> None:
        """Read it back. Raises ``corrupt``, and whatever the store raises."""
        if one not in self._verified:
            await self._objects.read_merged(one)
            self._verified.add(one)

    async def _raise_floor(self) -> int:
        """As far as verified objects reach without a gap; also those of a run that crashed."""
        where = await map_log(self._access, self._layout)
        limit = where.newest - max(self._settings.slots_kept, 1)
        start = max(where.floor, where.retained) + 1
        reached = start - 1
        for unit in where.units(start, limit):
            if unit.merged is None or unit.last < unit.merged.last:
                break
            try:
                await self._verify(unit.merged)
            except LakehouseError as error:
                if error.kind not in (ErrorKind.CORRUPT, ErrorKind.NOT_FOUND):
                    raise
                break
            reached = unit.last
        return await self._floor_at_least(reached)

    async def _floor_at_least(self, n: int) -> int:
        found = await self._access.patiently(lambda: floor.read_floor(self._access))
        if n > found:
            await floor.raise_floor(self._access, n)
        return max(n, found)

    async def _delete_slots(self, target: int) -> int:
        """Delete the slots at or below ``target``, also what late writers left in them."""
        if target < 0:
            return 0
        start, deleted = self._layout.slot(target + 1), 0
        while keys := await self._access.list_keys(self._layout.slots, start):
            await self._delete(keys)
            deleted += len(keys)
        return deleted

    async def _delete_merged(self) -> int:
        """Delete objects that a wider one covers, which was verified in this run, and those that
        retention gave up."""
        retained = await self._objects.retained()
        known = await self._objects.merged()
        dead: list[str] = []
        for one in known:
            wider = [other for other in known if other.covers(one)]
            if one.last <= retained or any(other in self._verified for other in wider):
                dead.append(one.key)
            elif wider and await self._whole(wider[0]):
                # A run before this one crashed here.
                dead.append(one.key)
        await self._delete(dead)
        return len(dead)

    async def _whole(self, one: Range) -> bool:
        """Whether a merged object can be read; one that is damaged covers nothing, and is told."""
        try:
            await self._verify(one)
        except LakehouseError as error:
            if error.kind not in (ErrorKind.CORRUPT, ErrorKind.NOT_FOUND):
                raise
            self._damaged.append(one.key)
            return False
        return True

    async def _delete(self, keys: Iterable[str]) -> None:
        waiting = list(keys)
        for place in range(0, len(waiting), _DELETED_TOGETHER):
            await self._access.delete(waiting[place : place + _DELETED_TOGETHER])


def _not_whole(read: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Those of the objects in which anything is damaged."""
    damaged: list[tuple[str, bytes]] = []
    for key, data in read:
        try:
            if not read_batch(data, key).bad_lines:
                continue
        except LakehouseError:
            pass
        damaged.append((key, data))
    return damaged
