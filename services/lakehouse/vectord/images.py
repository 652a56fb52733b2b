"""The images in memory: loaded when they are searched, kept at the head of their rows, rebuilt in
the background, and let go when memory is short."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from lakehouse.contracts.catalog import DatasetResult, GetRequest, PageRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo
from lakehouse.vectord.book import KEY
from lakehouse.vectord.documents import Documents
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.image import Image
from lakehouse.vectord.loading import Loader
from lakehouse.vectord.partmaking import Home, PartMaker, gone
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.planning import (
    Plan,
    merge_of,
    mergeable,
    plan_of,
    should_fold,
    tail_max,
    wanted,
)
from lakehouse.vectord.publishing import RowsWritten
from lakehouse.vectord.structures import Structures

__all__ = ["Images"]

log = logging.getLogger(__name__)

_BUILDERS: Final = 2
_NICENESS: Final = 5
_TOLD_SECONDS: Final = 0.05
_ATTEMPTS: Final = 5
_VERSIONS: Final = 20
# What changes more rows, or an image of more, is not done on the loop.
_FEW_ROWS: Final = 50
_SMALL_IMAGE: Final = 20_000
_PAUSE_SECONDS: Final = 30.0
_QUIET_SECONDS: Final = 1.0
# Graphs are merged when nothing was written for so long, and so many times as long after a merge as
# it took: all of a graph is written again with it.
_REST_SECONDS: Final = 5.0
_REST_SHARE: Final = 10.0
_LOOK_SECONDS: Final = 0.25


@dataclass(slots=True, eq=False)
class _Entry:
    """One index version. ``lock``: whoever makes ``image`` another; what was written meanwhile is
    in ``pending``. ``numbering``: another one where rows have other numbers.
    ``seen``: a version of the store whose rows ``image`` has all."""

    dataset_id: str
    image: Image | None = None
    used: int = 0
    numbering: int = 0
    unseen: int = 0
    seen: int = 0
    pending: list[RowsWritten] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    loading: asyncio.Task[None] | None = None
    upkeep: asyncio.Task[None] | None = None
    resting: asyncio.Task[None] | None = None
    paused_until: float = 0.0
    merge_after: float = -math.inf
    name: str = ""
    bucket: str = ""
    written_at: float = -_QUIET_SECONDS


class Images:
    """Belongs to one event loop; what it gives may be searched in any thread.

    Attributes:
        loads: images that were made of the store; ``built``: structures that were made.
    """

    def __init__(self, parts: VectorParts, documents: Documents | None = None) -> None:
        self._parts = parts
        self._documents = documents or Documents(parts)
        self._builders = ThreadPoolExecutor(_BUILDERS, "vectors-build", _be_nice)
        self._structures = Structures(parts, self._builders)
        self._maker = PartMaker(parts, self._documents, self._structures, self._builders)
        self.loader = Loader(parts, self._structures)
        self._entries: dict[str, _Entry] = {}
        self._uses = itertools.count(1)
        self.loads = 0
        self.built = 0

    async def image(self, ctx: Context, version: IndexVersion, at: int = 0) -> Image:
        """All rows of ``version`` that were committed when this was called, or later.

        Raises ``not_found`` where the dataset of the vectors is gone, and what reading raises.

        Args:
            at: a version of the store that the caller has read ``version`` at, since it was asked:
                rows that were committed by then are enough, and where the image is known to have
                them the catalog is not asked again.
        """
        entry = self._entries.get(version.vectors_dataset_id)
        if entry is not None and entry.image is not None and 0 < at <= entry.seen:
            entry.used = next(self._uses)
            return entry.image
        found = await self._head(ctx, version)
        entry = self._entries.get(version.vectors_dataset_id)
        if entry is None:
            entry = self._entries[version.vectors_dataset_id] = _Entry(found.dataset.id)
        entry.used = next(self._uses)
        entry.bucket, entry.name = found.dataset.bucket, version.vectors_dataset
        for _ in range(_ATTEMPTS):
            image = entry.image
            if image is not None and image.head >= found.dataset.rows_version:
                entry.seen = max(entry.seen, found.version)
                return image
            await self._catch_up(entry, version)
            self.consider(version)
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the index is written by others faster than it is read",
            dataset=version.vectors_dataset,
            hint="search again",
        )

    async def applied(self, version: IndexVersion, written: RowsWritten) -> None:
        """Rows that this process wrote are searched from now on (``publishing.Applied``)."""
        entry = self._entries.get(version.vectors_dataset_id)
        rows = written.rows.num_rows if written.rows is not None else 0
        if entry is None:
            entry = self._entries[version.vectors_dataset_id] = _Entry(version.vectors_dataset_id)
        entry.unseen += rows
        entry.written_at = self._parts.clock.monotonic()
        if entry.image is not None or entry.lock.locked():
            entry.pending.append(written)
            entry.told.set()
            if not entry.lock.locked():
                async with entry.lock:
                    await self._drain(entry)
                self._make_room(entry)
        self.consider(version)

    def consider(self, version: IndexVersion) -> None:
        """Begin to make structures in the background, if it is time and none are being made."""
        entry = self._entries.get(version.vectors_dataset_id)
        if entry is None or (entry.upkeep is not None and not entry.upkeep.done()):
            return
        image, most = entry.image, self._parts.settings.tail_rows
        if self._parts.clock.monotonic() < entry.paused_until or self._structures.stopping:
            return
        if image is None and entry.unseen <= max(most, version.profile.exact_rows_max):
            return
        if image is not None:
            most = tail_max(image, version, most, quiet=True)
            if wanted(image, version.profile, most) is None and not should_fold(image):
                self._merge_later(entry, version)
                return
        self._begin(entry)

    def _begin(self, entry: _Entry) -> None:
        entry.upkeep = asyncio.create_task(self._keep_up(entry), name="vectors upkeep")
        entry.upkeep.add_done_callback(_logged)

    def _merge_later(self, entry: _Entry, version: IndexVersion) -> None:
        """See to it that graphs are merged once writes rest, if they are better merged."""
        image = entry.image
        if image is None or (entry.resting is not None and not entry.resting.done()):
            return
        if mergeable(image, version):
            entry.resting = asyncio.create_task(self._rest(entry), name="vectors rest")

    async def _rest(self, entry: _Entry) -> None:
        """Wait until it is time to merge, then keep up, which merges."""
        while (seconds := self._unrest(entry)) > 0.0:
            await self._parts.clock.sleep(seconds)
        if entry.upkeep is None or entry.upkeep.done():
            self._begin(entry)

    def _unrest(self, entry: _Entry) -> float:
        """In how many seconds it is time to merge, if nothing is written."""
        due = max(entry.written_at + _REST_SECONDS, entry.merge_after, entry.paused_until)
        return due - self._parts.clock.monotonic()

    async def settled(self) -> None:
        """Wait until nothing is being made."""
        while True:
            tasks = [e.upkeep for e in self._entries.values() if e.upkeep and not e.upkeep.done()]
            if not tasks:
                return
            await asyncio.wait(tasks)

    def let_go(self, version: IndexVersion, image: Image) -> None:
        """``image`` cannot be read any more: whoever asks next gets one made of the store."""
        entry = self._entries.get(version.vectors_dataset_id)
        if entry is not None and entry.image is image:
            entry.image = None
            entry.numbering += 1

    def forget(self, dataset_id: str) -> None:
        """An index version was deleted."""
        entry = self._entries.pop(dataset_id, None)
        for task in (entry.upkeep, entry.resting) if entry is not None else ():
            if task is not None:
                task.cancel()

    @property
    def size_bytes(self) -> int:
        """Of all images in memory."""
        return sum(e.image.size_bytes for e in self._entries.values() if e.image is not None)

    async def close(self) -> None:
        """End what runs in the background; idempotent."""
        self._structures.stopping = True
        entries = self._entries.values()
        tasks = [t for e in entries for t in (e.loading, e.upkeep, e.resting) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()
        self._builders.shutdown(wait=False, cancel_futures=True)

    async def _head(self, ctx: Context, version: IndexVersion) -> DatasetResult:
        try:
            found = await self._parts.catalog.get(ctx, GetRequest(version.vectors_dataset))
        except LakehouseError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                self.forget(version.vectors_dataset_id)
                raise gone(version) from error
            raise
        if found.dataset.id != version.vectors_dataset_id:
            self.forget(version.vectors_dataset_id)
            raise gone(version)
        return found

    async def _catch_up(self, entry: _Entry, version: IndexVersion) -> None:
        """One load at a time, whoever waits for it; it goes on when they no longer do."""
        if entry.loading is None or entry.loading.done():
            entry.loading = asyncio.create_task(self._load(entry, version), name="vectors load")
            entry.loading.add_done_callback(_taken_note_of)
        await asyncio.shield(entry.loading)

    async def _load(self, entry: _Entry, version: IndexVersion) -> None:
        ctx = own_context(self._parts.ids, "search")
        async with entry.lock:
            await self._drain(entry)
            found = await self._head(ctx, version)
            if self._current(entry, found):
                return
            if entry.image is not None:
                # Written by this process, perhaps, and about to be told.
                entry.told.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(entry.told.wait(), _TOLD_SECONDS)
                await self._drain(entry)
                found = await self._head(ctx, version)
                if self._current(entry, found):
                    return
            kept = entry.image.parts if entry.image is not None else ()
            at = (found.version, found.dataset.rows_version)
            entry.image = await self.loader.load(ctx, version, at, kept)
            entry.numbering += 1
            entry.unseen = 0
            # Others may be writing: that nothing was written here says nothing of them.
            rested = self._parts.clock.monotonic() + _REST_SECONDS
            entry.merge_after = max(entry.merge_after, rested)
            self.loads += 1
            await self._drain(entry)
        self._make_room(entry)

    def _current(self, entry: _Entry, found: DatasetResult) -> bool:
        return entry.image is not None and entry.image.head >= found.dataset.rows_version

    async def _drain(self, entry: _Entry) -> None:
        """Take in what was written meanwhile; by the holder of the lock."""
        while entry.pending:
            written = entry.pending.pop(0)
            image = entry.image
            if image is None or not await self._is_next(entry, image.head, written):
                continue  # what is missing is read from the store
            changed = sum(
                each.num_rows for each in (written.rows, written.gone) if each is not None
            )
            if changed > _FEW_ROWS or image.count > _SMALL_IMAGE:
                entry.image = await run_in(self._parts.jobs, _with, image, written)
            else:
                entry.image = _with(image, written)

    async def _is_next(self, entry: _Entry, head: int, written: RowsWritten) -> bool:
        """Whether ``written`` is what came after ``head``."""
        if written.before or written.after <= head:
            return written.before == head
        # Who wrote it could not say on what: ask whether anything came between.
        request = PageRequest(entry.name, limit=_VERSIONS)
        ctx = own_context(self._parts.ids, "search")
        try:
            found = await self._parts.catalog.versions(ctx, request)
        except LakehouseError:
            return False
        versions = [each.version for each in found.versions]
        if min(versions, default=0) > head and found.cursor:
            return False
        return not any(head < each < written.after for each in versions)

    def _make_room(self, newest: _Entry) -> None:
        """Let go what was searched longest ago."""
        others = sorted((e for e in self._entries.values() if e.image), key=lambda e: e.used)
        for entry in others:
            if self.size_bytes <= self._parts.settings.memory_bytes_max:
                return
            if entry is not newest and not entry.lock.locked():
                entry.image = None

    async def _keep_up(self, entry: _Entry) -> None:
        """Build until nothing is to be built, and number rows anew where it is time. What fails is
        tried again some time later."""
        ctx = own_context(self._parts.ids, "structures")
        try:
            while True:
                named = await self._named(ctx, entry.dataset_id)
                if named is None:
                    return
                info, version = named
                image = await self.image(ctx, version)
                numbering = entry.numbering
                quiet = self._parts.clock.monotonic() - entry.written_at >= _QUIET_SECONDS
                most = tail_max(image, version, self._parts.settings.tail_rows, quiet=quiet)
                plan = await run_in(self._builders, plan_of, image, version.profile, most)
                if plan is not None:
                    await self._build(entry, (info, version), (image, numbering), plan)
                    continue
                # Also where writes never cease: what they replaced is in memory until then.
                await self._fold(entry)
                if mergeable(image, version) and self._unrest(entry) <= 0.0:
                    await self._merge(entry, (info, version))
                    continue
                if quiet:
                    self._merge_later(entry, version)
                    return
                await self._parts.clock.sleep(_LOOK_SECONDS)
        except LakehouseError as error:
            entry.paused_until = self._parts.clock.monotonic() + _PAUSE_SECONDS
            if not self._structures.stopping:
                told = {"dataset": entry.dataset_id, "reason": str(error)}
                log.warning("no search structure could be made", extra=told)

    async def _named(
        self, ctx: Context, dataset_id: str
    ) -> tuple[VectorIndexInfo, IndexVersion] | None:
        infos, _ = await self._documents.list(ctx)
        for info in infos:
            for version in info.versions:
                if version.vectors_dataset_id == dataset_id:
                    return info, version
        return None

    async def _merge(self, entry: _Entry, of: tuple[VectorIndexInfo, IndexVersion]) -> None:
        """One graph of all; not where so much is written meanwhile that a graph of that goes
        first."""
        image, numbering = entry.image, entry.numbering
        if image is None or not mergeable(image, of[1]):
            return  # what was numbered anew, or let go, is looked at again
        began = self._parts.clock.monotonic()
        most = self._parts.settings.tail_rows + len(image.tail_rows)

        def crowded() -> bool:
            return entry.image is not None and len(entry.image.tail_rows) > most

        try:
            plan = await run_in(self._builders, merge_of, image)
            await self._build(entry, of, (image, numbering), plan, crowded)
        except LakehouseError:
            if not crowded():
                self._merge_later(entry, of[1])
                raise
        finally:
            now = self._parts.clock.monotonic()
            entry.merge_after = now + _REST_SHARE * (now - began)

    async def _build(
        self,
        entry: _Entry,
        of: tuple[VectorIndexInfo, IndexVersion],
        image: tuple[Image, int],
        plan: Plan,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        now, numbering = image
        home = Home(entry.dataset_id, entry.bucket or "primary")
        added = await self._maker.parts(of, home, now, plan, stop)
        async with entry.lock:
            await self._drain(entry)
            if entry.image is not None and entry.numbering == numbering:
                here = entry.image
                entry.image = await run_in(self._parts.jobs, here.rebuilt, added, plan.dropped)
            elif entry.image is not None:
                entry.image = None  # read anew, with what was made
            await self._drain(entry)
        self.built += len(added)
        self._make_room(entry)

    async def _fold(self, entry: _Entry) -> None:
        async with entry.lock:
            await self._drain(entry)
            if entry.image is not None and should_fold(entry.image):
                entry.image = await run_in(self._parts.jobs, entry.image.folded)
                entry.numbering += 1
            await self._drain(entry)


def _with(image: Image, written: RowsWritten) -> Image:
    return image.applied(written.rows, _keys(written), written.after)


def _keys(written: RowsWritten) -> list[tuple[str, int]]:
    if written.gone is None:
        return []
    columns = [written.gone.column(name).to_pylist() for name in KEY]
    return list(zip(*columns, strict=True))


def _be_nice() -> None:
    """Searches go before builds, where the system knows threads."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _logged(task: asyncio.Task[None]) -> None:
    """What was not foreseen ends the task; the image serves as it is."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("making search structures failed unforeseen", exc_info=error)


def _taken_note_of(task: asyncio.Task[None]) -> None:
    """Those who waited were told; that nobody did is no defect."""
    if not task.cancelled():
        task.exception()
