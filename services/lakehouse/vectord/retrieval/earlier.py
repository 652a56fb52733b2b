"""Indexes as they were: rows and documents at an earlier version of the store, compared one by one.

An index version is searched whose vectors were there at that version; later ones may have been made
of the same documents by another model. Documents that the dataset did not have then are left out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
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


@dataclass(slots=True, eq=False)
class Past:
    """An index as it was. ``there``: the rows whose documents the dataset had, once that was
    asked."""

    asking: Asking
    asked: Asked
    image: Image
    there: Flags | None = field(default=None)

    async def on_image(self, ctx: Context, ask: Callable[[Image], Awaitable[T]]) -> tuple[Image, T]:
        return self.image, await ask(self.image)

    async def wanted(self, ctx: Context, image: Image, predicate: str) -> Flags | None:
        if predicate.strip():
            return await self.asking.matching(ctx, self.asked, image, predicate)
        if self.asked.source is not None and self.there is None:
            self.there = await self.asking.matching(ctx, self.asked, image, _EVERY)
        return self.there


class Earlier:
    """Belongs to one event loop; the last few are kept."""

    def __init__(
        self, parts: VectorParts, documents: Documents, asking: Asking, loader: Loader
    ) -> None:
        self._parts = parts
        self._documents = documents
        self._asking = asking
        self._loader = loader
        self._kept: OrderedDict[tuple[str, int], asyncio.Task[Past]] = OrderedDict()

    async def opened(self, ctx: Context, name: str, number: int, as_of: AsOf) -> Past:
        """Raises ``not_found`` where the index, the version, or the dataset was not there then, and
        for what the store cannot be read as of."""
        info, _ = await self._documents.read(ctx, name)
        version, found = await self._version(ctx, info, number, as_of)
        key = (version.vectors_dataset_id, found.version)
        task = self._kept.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._made(ctx, info, version, found), name="earlier image")
            self._kept[key] = task
        self._kept.move_to_end(key)
        past = await asyncio.shield(task)
        self._make_room()
        return past

    async def close(self) -> None:
        """End what is being read; idempotent."""
        tasks = [task for task in self._kept.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept.clear()

    async def _made(
        self, ctx: Context, info: VectorIndexInfo, version: IndexVersion, found: DatasetResult
    ) -> Past:
        source = await self._source(ctx, info, found.version) if info.dataset_id else None
        bare = replace(version, structures=(), vectors_dataset=found.dataset.name)
        at = (found.version, found.dataset.rows_version)
        image = await self._loader.load(ctx, bare, at)
        # Nobody wrote down then how far the index had come: its rows say of which version they are.
        rows = np.arange(image.count)
        newest = int(image.book.versions(rows).max()) if image.count else 0
        if source is None:
            newest = version.source_version
        asked = Asked(info, replace(bare, source_version=newest), source, found.version)
        return Past(self._asking, asked, image)

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
        names = [info.dataset]
        now = await self._asking.asked(ctx, info.name, 0)
        if now.source is not None:
            names.append(now.source.dataset.name)
        for name in dict.fromkeys(names):
            found = await self._dataset(ctx, name, info.dataset_id, AsOf(version=version))
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

    def _make_room(self) -> None:
        """Let go what was searched longest ago."""
        most = self._parts.settings.memory_bytes_max // _MEMORY_SHARE
        while len(self._kept) > 1 and (len(self._kept) > _KEPT or self._bytes() > most):
            key, task = next(iter(self._kept.items()))
            if not task.done():
                return
            del self._kept[key]

    def _bytes(self) -> int:
        done = [task for task in self._kept.values() if task.done() and not task.cancelled()]
        return sum(task.result().image.size_bytes for task in done if task.exception() is None)
