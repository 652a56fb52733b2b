"""Builds in the background: those that were asked for, those that ended early, and those that are
due because a dataset has changed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from lakehouse.contracts.catalog import StatusRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.model.identity import Context
from lakehouse.model.refs import name_key
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo, VersionState
from lakehouse.vectord.building import Builder, Overtaken
from lakehouse.vectord.documents import Documents
from lakehouse.vectord.figures import VectorFigures
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.source import Source

__all__ = ["Follower"]

log = logging.getLogger(__name__)
_PAUSE_MAX: Final = 60.0

_Key = tuple[str, int]


@dataclass(slots=True)
class _Failed:
    """``until``: on the monotonic scale, before which it is not tried again by itself."""

    times: int
    until: float


class Follower:
    """One build of a version at a time. Belongs to one event loop."""

    def __init__(
        self,
        parts: VectorParts,
        documents: Documents,
        builder: Builder,
        figures: VectorFigures | None = None,
    ) -> None:
        self._figures = figures or VectorFigures()
        self._parts = parts
        self._documents = documents
        self._builder = builder
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._failed: dict[_Key, _Failed] = {}
        self._passed: set[_Key] = set()
        self._version = -1
        self._wake = asyncio.Event()

    def start_build(
        self, name: str, number: int, after: asyncio.Task[None] | None = None
    ) -> asyncio.Task[None]:
        """Build it now, or when ``after`` has ended, or join the build that runs."""
        key = (name_key(name), number)
        task = self._tasks.get(key)
        if task is None:
            work = self._build(name, key, after)
            task = asyncio.create_task(work, name=f"build {name} {number}")
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    @property
    def running(self) -> int:
        """How many builds run."""
        return len(self._tasks)

    def building(self, name: str) -> bool:
        """Whether a build of any version runs in this process."""
        key = name_key(name)
        return any(each[0] == key for each in self._tasks)

    def hasten(self) -> None:
        """Look now, not at the next turn."""
        self._wake.set()

    async def stop(self, name: str, number: int = 0) -> None:
        """End the builds of an index, or of version ``number`` of it, before it is deleted."""
        key = name_key(name)
        await self._end([each for each in self._tasks if each[0] == key and number in (0, each[1])])

    async def close(self) -> None:
        """End all builds where they are; idempotent."""
        await self._end(list(self._tasks))

    async def run(self) -> None:
        """Follow until cancelled."""
        seconds = self._parts.settings.follow_seconds
        while True:
            with act_as("vectord"):
                try:
                    await self.look()
                except LakehouseError as error:
                    self._version = -1
                    if error.kind is ErrorKind.FENCED:
                        raise
                    log.warning("indexes could not be looked at", extra={"reason": str(error)})
            await self._pause(seconds)

    async def look(self) -> int:
        """Start what is due; how many builds. A store that did not change costs one call."""
        ctx = own_context(self._parts.ids, "follow")
        version = (await self._parts.catalog.status(ctx, StatusRequest())).version
        if version == self._version and not self._failed:
            return 0
        # Before it looks: what changes meanwhile, or waits for a build that ends, is looked at the
        # next time.
        self._version = version
        infos, _ = await self._documents.list(ctx)
        there = {(name_key(info.name), each.number) for info in infos for each in info.versions}
        for gone in self._failed.keys() - there:
            del self._failed[gone]
        started = 0
        sources: dict[str, Source | None] = {}
        for info in infos:
            if not info.dataset_id:
                continue
            # The live one first: searches wait for it, and the others take over what it has.
            live = self._tasks.get((name_key(info.name), info.live))
            for each in sorted(info.versions, key=lambda one: one.number != info.live):
                key = (name_key(info.name), each.number)
                if key in self._tasks:
                    self._passed.add(key)
                    continue
                if not self._in_time(key):
                    continue
                if await self._due(ctx, info, each, sources):
                    task = self.start_build(info.name, each.number, live)
                    live = task if each.number == info.live else live
                    started += 1
        return started

    async def _due(
        self,
        ctx: Context,
        info: VectorIndexInfo,
        version: IndexVersion,
        known: dict[str, Source | None],
    ) -> bool:
        if version.state is not VersionState.READY or version.cut_over:
            # One that was made without being built waits until somebody asks for it.
            asked = version.cut_over or version.number > 1
            return asked or bool(version.documents_total or version.error)
        if info.dataset_id not in known:
            known[info.dataset_id] = await self._source(ctx, info)
        source = known[info.dataset_id]
        if source is None:
            return False
        if source.dataset.name != info.dataset:
            await self._renamed(ctx, info, source.dataset.name)
        return source.rows_version != version.source_version

    async def _source(self, ctx: Context, info: VectorIndexInfo) -> Source | None:
        try:
            return await self._builder.reader.source(ctx, info)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return None

    async def _renamed(self, ctx: Context, info: VectorIndexInfo, name: str) -> None:
        """Whoever asks for the dataset asks by the name that the document has."""

        def edit(there: VectorIndexInfo) -> VectorIndexInfo:
            return replace(there, dataset=name) if there.dataset_id == info.dataset_id else there

        try:
            await self._documents.change(ctx, info.name, edit)
        except LakehouseError as error:
            if error.kind is ErrorKind.FENCED:
                raise
            told = {"index": info.name, "dataset": name, "reason": str(error)}
            log.warning("the new name of a dataset could not be noted", extra=told)

    def _in_time(self, key: _Key) -> bool:
        failed = self._failed.get(key)
        return failed is None or self._parts.clock.monotonic() >= failed.until

    async def _build(self, name: str, key: _Key, after: asyncio.Task[None] | None) -> None:
        with act_as("vectord"):
            if after is not None:
                await asyncio.wait([after])
            try:
                await self._builder.build(name, key[1])
            except (LakehouseError, Overtaken) as error:
                self._again_later(key)
                fell = error.kind.value if isinstance(error, LakehouseError) else "overtaken"
                self._figures.built(fell)
                told = {"index": name, "number": key[1], "reason": str(error) or "overtaken"}
                log.warning("a build did not come to its end", extra=told)
                raise
            self._figures.built("done")
            self._failed.pop(key, None)

    def _again_later(self, key: _Key) -> None:
        failed = self._failed.get(key)
        times = 1 if failed is None else failed.times + 1
        pause = min(2.0 ** (times - 1), _PAUSE_MAX) * (0.75 + 0.5 * self._parts.ids.uniform())
        self._failed[key] = _Failed(times, self._parts.clock.monotonic() + pause)

    def _ended(self, key: _Key, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        # What came while it ran was passed over: whether that is in, the next look tells.
        self._version = -1
        if key in self._passed:
            self._passed.discard(key)
            self._wake.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, LakehouseError | Overtaken):
            self._again_later(key)
            told = {"index": key[0], "number": key[1]}
            log.error("a build failed unforeseen", extra=told, exc_info=error)

    async def _end(self, keys: list[_Key]) -> None:
        tasks = [self._tasks[key] for key in keys]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key in keys:
            self._failed.pop(key, None)

    async def _pause(self, seconds: float) -> None:
        sleep = asyncio.ensure_future(self._parts.clock.sleep(seconds))
        wake = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleep, wake}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wake.clear()
            for each in (sleep, wake):
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each
