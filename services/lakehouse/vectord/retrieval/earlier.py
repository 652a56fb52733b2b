"""Indexes as they were: rows and documents at an earlier version of the store, compared one by one.

An index version is searched whose vectors were there at that version; later ones may have been made
of the same documents by another model. Documents that the dataset did not have then are left out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.catalog import DatasetResult, GetRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo
from lakehouse.vectord.asking import Asked, Asking
from lakehouse.vectord.documents import Documents, live_version, version_of
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.image import Image
from lakehouse.vectord.loading import Loader
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.source import Source

__all__ = ["Earlier", "Past"]

Flags = npt.NDArray[np.bool_]
T = TypeVar("T")

_KEPT: Final = 4
_MEMORY_SHARE: Final = 4
_EVERY: Final = "TRUE"
_VALUE_BYTES: Final = 4


@dataclass(slots=True, eq=False)
class _Then:
    """Rows of an index as they were.

    Attributes:
        newest: of the version of this the newest document is.
        there: of the rows_version of the dataset that was asked for last: the rows whose
            documents it had.
    """

    image: Image
    newest: int
    there: tuple[int, Flags] | None = None


@dataclass(slots=True, eq=False)
class _Loading:
    """``waiting``: how many do."""

    task: asyncio.Task[_Then]
    waiting: int = 0

    @property
    def then(self) -> _Then | None:
        """None where it is not there yet, or could not be read."""
        task = self.task
        there = task.done() and not task.cancelled() and task.exception() is None
        return task.result() if there else None


@dataclass(slots=True, eq=False)
class Past:
    """An index as it was."""

    asking: Asking
    asked: Asked
    then: _Then

    async def on_image(self, ctx: Context, ask: Callable[[Image], Awaitable[T]]) -> tuple[Image, T]:
        return self.then.image, await ask(self.then.image)

    async def wanted(self, ctx: Context, image: Image, predicate: str) -> Flags | None:
        if predicate.strip():
            return await self.asking.matching(ctx, self.asked, image, predicate)
        source = self.asked.source
        if source is None:
            return None
        there = self.then.there
        if there is None or there[0] != source.rows_version:
            flags = await self.asking.matching(ctx, self.asked, image, _EVERY)
            self.then.there = there = source.rows_version, flags
        return there[1]


class Earlier:
    """Belongs to one event loop; the last few are kept, each for all versions of the store that had
    the same rows. One is read at a time: requests of many would fill the memory."""

    def __init__(
        self, parts: VectorParts, documents: Documents, asking: Asking, loader: Loader
    ) -> None:
        self._parts = parts
        self._documents = documents
        self._asking = asking
        self._loader = loader
        self._kept: OrderedDict[tuple[str, int], _Loading] = OrderedDict()
        self._tasks: set[asyncio.Task[_Then]] = set()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._reading: tuple[str, int] | None = None

    async def opened(self, ctx: Context, name: str, number: int, as_of: AsOf) -> Past:
        """Raises ``not_found`` where the index, the version, or the dataset was not there then,
        ``timeout``, and for what the store cannot be read as of."""
        info, _ = await self._documents.read(ctx, name)
        version, found = await self._version(ctx, info, number, as_of)
        source = await self._source(ctx, info, found.version) if info.dataset_id else None
        bare = replace(version, structures=(), vectors_dataset=found.dataset.name)
        then = await self._read(ctx, bare, (found.version, found.dataset.rows_version))
        # Nobody wrote down then how far the index had come: its rows say of which version they are.
        newest = version.source_version if source is None else then.newest
        asked = Asked(info, replace(bare, source_version=newest), source, found.version)
        return Past(self._asking, asked, then)

    async def close(self) -> None:
        """End what is being read; idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept.clear()

    async def _read(self, ctx: Context, version: IndexVersion, at: tuple[int, int]) -> _Then:
        """One reading for all who want the same; each waits for as long as its own deadline
        allows."""
        key = (version.vectors_dataset_id, at[1])
        loading = self._kept.get(key)
        if loading is None or (loading.task.done() and loading.then is None):
            task = asyncio.create_task(self._load(version, at), name="earlier image")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            loading = self._kept[key] = _Loading(task)
        self._kept.move_to_end(key)
        until = ctx.deadline
        left = None if until is None else max(0.0, until - self._parts.clock.monotonic())
        loading.waiting += 1
        try:
            async with asyncio.timeout(left):
                return await asyncio.shield(loading.task)
        except TimeoutError as error:
            raise LakehouseError(
                ErrorKind.TIMEOUT,
                "the deadline passed before the index was read as it was",
                dataset=version.vectors_dataset,
                as_of=at[0],
                hint="allow more time, or search again: what is being read by now is kept",
            ) from error
        finally:
            loading.waiting -= 1
            # What is being read by now may be wanted again; nobody waits for the turn of the rest.
            if not loading.waiting and not loading.task.done() and key != self._reading:
                loading.task.cancel()
                if self._kept.get(key) is loading:
                    del self._kept[key]

    async def _load(self, version: IndexVersion, at: tuple[int, int]) -> _Then:
        async with self._one_at_a_time:
            self._reading = version.vectors_dataset_id, at[1]
            self._make_room(version.chunks * version.dimensions * _VALUE_BYTES)
            # On nobody's behalf: whoever asks first is not the only one who waits.
            ctx = own_context(self._parts.ids, "search as of")
            image = await self._loader.load(ctx, version, at)
            self._make_room(image.size_bytes)
        rows = np.arange(image.count)
        return _Then(image, int(image.book.versions(rows).max()) if image.count else 0)

    async def _version(
        self, ctx: Context, info: VectorIndexInfo, number: int, as_of: AsOf
    ) -> tuple[IndexVersion, DatasetResult]:
        """The one to search, and the dataset of its vectors as it was."""
        live = live_version(info)
        newest = sorted(info.versions, key=lambda each: -each.number)
        order: Sequence[IndexVersion] = [version_of(info, number)] if number else newest
        if not number and live is not None:
            order = [live, *(each for each in newest if each is not live)]
        for version in order:
            found = await self._dataset(
                ctx, version.vectors_dataset, version.vectors_dataset_id, as_of
            )
            if found is not None:
                return version, found
        since = min((each.created_at for each in order), default=None)
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the index was not there yet",
            index=info.name,
            as_of=as_of.tag or str(as_of.time or as_of.version),
            since="" if since is None else since.isoformat(),
            hint="search as of a later version, or as it is now",
        )

    async def _source(self, ctx: Context, info: VectorIndexInfo, version: int) -> Source:
        """The dataset whose documents are searched, as it was, whatever it was called."""
        as_of = AsOf(version=version)
        found = await self._dataset(ctx, info.dataset, info.dataset_id, as_of)
        if found is None:
            now = (await self._asking.asked(ctx, info.name, 0)).source
            if now is not None and now.dataset.name != info.dataset:
                found = await self._dataset(ctx, now.dataset.name, info.dataset_id, as_of)
        if found is not None:
            return Source(found.dataset, version)
        raise LakehouseError(
            ErrorKind.NOT_FOUND,
            "the dataset of the index cannot be found as it was",
            index=info.name,
            dataset=info.dataset,
            as_of=version,
        )

    async def _dataset(
        self, ctx: Context, name: str, dataset_id: str, as_of: AsOf
    ) -> DatasetResult | None:
        """None where no such dataset had the name then."""
        try:
            found = await self._parts.catalog.get(ctx, GetRequest(name, as_of))
        except LakehouseError as error:
            # Without a name it is the version that there is none of.
            if error.kind is not ErrorKind.NOT_FOUND or "name" not in error.fields:
                raise
            return None
        return found if found.dataset.id == dataset_id else None

    def _make_room(self, coming: int) -> None:
        """Let go what was searched longest ago, for one of so many bytes."""
        most = self._parts.settings.memory_bytes_max // _MEMORY_SHARE
        sizes = {
            key: one.then.image.size_bytes
            for key, one in self._kept.items()
            if one.then is not None
        }
        for key in list(sizes):
            if len(sizes) < _KEPT and sum(sizes.values()) + coming <= most:
                return
            del self._kept[key], sizes[key]
