"""What a request is about: the index, its version, its dataset, and the image that is searched."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.vectors import IndexVersion, VectorIndexInfo, VersionState
from lakehouse.vectord.documents import Documents, version_of
from lakehouse.vectord.filters import Filters
from lakehouse.vectord.image import Image
from lakehouse.vectord.images import Images
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.source import MISSED_SECONDS, Source, SourceReader

__all__ = ["Asked", "Asking"]

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.02
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about. ``source``: None for given vectors, and where the dataset was
    dropped: what was embedded of it can be searched for all that."""

    info: VectorIndexInfo
    version: IndexVersion
    source: Source | None
    store_version: int

    @property
    def behind(self) -> bool:
        """Rows of the dataset changed after those that were embedded."""
        source = self.source
        return source is not None and source.rows_version > self.version.source_version


class Asking:
    """Belongs to one event loop.

    Attributes:
        nudge: called where a search has to wait for an index to catch up.
    """

    def __init__(self, parts: VectorParts, images: Images, documents: Documents) -> None:
        self._parts = parts
        self._images = images
        self._documents = documents
        self._sources = SourceReader(parts, MISSED_SECONDS)
        self._filters = Filters(parts)
        self.nudge: Callable[[], None] | None = None

    async def asked(self, ctx: Context, name: str, number: int) -> Asked:
        """The index ``name`` and its version ``number``, as they are now. Raises ``not_found``."""
        info, store_version = await self._documents.read(ctx, name)
        version = version_of(info, number)
        source = None
        if info.dataset_id:
            try:
                source = await self._sources.source(ctx, info)
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
        return Asked(info, version, source, store_version)

    async def fresh(self, ctx: Context, asked: Asked, number: int) -> Asked:
        """Wait a little for an index to have what its dataset had when it was asked; not for one
        that is still built, unless nothing of it is there yet."""
        wanted = asked.source.rows_version if asked.source is not None else 0
        clock = self._parts.clock
        until = clock.monotonic() + self._parts.settings.fresh_seconds
        if self.nudge is not None:
            self.nudge()
        while asked.behind and asked.version.source_version < wanted and clock.monotonic() < until:
            version = asked.version
            if version.state is not VersionState.READY and version.chunks:
                break
            if version.state is VersionState.FAILED:
                break
            await clock.sleep(_LOOK_SECONDS)
            asked = await self.asked(ctx, asked.info.name, number)
        return asked

    async def on_image(
        self,
        ctx: Context,
        version: IndexVersion,
        ask: Callable[[Image], Awaitable[T]],
        at: int = 0,
    ) -> tuple[Image, T]:
        """What ``ask`` finds in the version's image; asked once more of another one where files
        that it reads were damaged or cleared away. ``at``: as ``Images.image`` has it."""
        image = await self._images.image(ctx, version, at)
        try:
            return image, await ask(image)
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            told = {"dataset": version.vectors_dataset, "reason": str(error)}
            log.warning("an image in memory cannot be read and is made anew", extra=told)
        self._images.let_go(version, image)
        image = await self._images.image(ctx, version)
        return image, await ask(image)

    async def matching(
        self, ctx: Context, asked: Asked, image: Image, predicate: str
    ) -> npt.NDArray[np.bool_]:
        """One flag a row of ``image``: whether it is live, and ``predicate`` holds for its row
        of the dataset. Raises ``invalid``, ``not_found``."""
        if asked.source is None and asked.info.dataset_id:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "the dataset of the index was dropped, and has no columns to filter by",
                index=asked.info.name,
                dataset=asked.info.dataset,
                hint="leave the filter out, or restore the dataset",
            )
        if asked.source is None:
            raise LakehouseError(
                ErrorKind.INVALID,
                "an index of given vectors has no columns to filter by",
                index=asked.info.name,
                hint="leave the filter out, or make an index over a dataset",
            )
        return await self._filters.matching(ctx, asked.source, image, predicate)
