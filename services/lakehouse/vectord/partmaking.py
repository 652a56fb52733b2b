"""What was planned is made: structures of rows, written, and named in the index's document."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.vectors import (
    VECTORS_FOLDER,
    IndexVersion,
    Structure,
    VectorBackend,
    VectorIndexInfo,
)
from lakehouse.vectord.documents import Documents, with_version
from lakehouse.vectord.identity import own_context
from lakehouse.vectord.image import Image, Part
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.planning import Plan
from lakehouse.vectord.ports import Labels
from lakehouse.vectord.recall import recall_of
from lakehouse.vectord.sessions import writing
from lakehouse.vectord.structures import HNSW, LABELS, LANCE, Built, Structures

__all__ = ["Home", "PartMaker", "gone"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Home:
    """The dataset of the vectors, and the bucket that structures over it go to."""

    dataset_id: str
    bucket: str


@dataclass(frozen=True, slots=True)
class PartMaker:
    """``builders``: threads of its own, so that no search waits for a build."""

    shared: VectorParts
    documents: Documents
    structures: Structures
    builders: Executor

    async def parts(
        self,
        of: tuple[VectorIndexInfo, IndexVersion],
        home: Home,
        image: Image,
        plan: Plan,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Part]:
        """The structures of ``plan`` over the rows of ``image``. Raises as ``Structures.build``."""
        made = await asyncio.gather(
            *[self._one(of[1], image, rows, plan.grown, stop) for rows in plan.rows]
        )
        kept = [part.structure for part in image.parts if part not in plan.dropped]
        named = await self._publish(of, home, [each for each in kept if each.key], made)
        return [
            Part(structure, built.index, rows, built.size_bytes, built.labels)
            for structure, (built, _), rows in zip(named, made, plan.labelled, strict=True)
        ]

    async def _one(
        self,
        version: IndexVersion,
        image: Image,
        rows: Labels,
        grown: Part | None,
        stop: Callable[[], bool],
    ) -> tuple[Built, float]:
        """A structure of ``rows``, or of ``grown`` and these behind it, and its recall."""
        builders, profile = self.builders, version.profile
        vectors = await run_in(builders, image.vectors, rows)
        labels = (await run_in(builders, image.book.table, rows)).select(LABELS)
        if grown is None or grown.labels is None:
            built = await self.structures.build(profile, vectors, labels, stop)
        else:
            begun = Built(grown.index, grown.labels, grown.size_bytes)
            built = await self.structures.grow(begun, vectors, labels, stop)
            vectors = built.every
        return built, await run_in(builders, recall_of, built.index, vectors, profile)

    async def _publish(
        self,
        of: tuple[VectorIndexInfo, IndexVersion],
        home: Home,
        kept: Sequence[Structure],
        made: Sequence[tuple[Built, float]],
    ) -> list[Structure]:
        """Write structures and name them in the index's document; those that cannot be are in
        memory alone."""
        info, version = of
        ctx = own_context(self.shared.ids, "structures")
        try:
            async with writing(self.shared) as session_id:
                folder = f"{VECTORS_FOLDER}{session_id}/{home.dataset_id}/"
                saved = [
                    replace(await self.structures.save(folder, home.bucket, one), recall=recall)
                    for one, recall in made
                ]

                def name(there: VectorIndexInfo) -> VectorIndexInfo:
                    for each in there.versions:
                        if each.vectors_dataset_id == home.dataset_id:
                            return with_version(there, replace(each, structures=(*kept, *saved)))
                    raise gone(version)

                await self.documents.change(ctx, info.name, name)
                return saved
        except LakehouseError as error:
            told = {"index": info.name, "number": version.number, "reason": str(error)}
            log.warning("a search structure could not be kept in the store", extra=told)
            lance = version.profile.vector_backend is VectorBackend.LANCE
            return [Structure(LANCE if lance else HNSW, "", one.labels.num_rows) for one, _ in made]


def gone(version: IndexVersion) -> LakehouseError:
    """The dataset of the vectors is not there any more."""
    return LakehouseError(
        ErrorKind.NOT_FOUND,
        "the vectors of this version are gone",
        number=version.number,
        dataset=version.vectors_dataset,
        hint="build a new version of the index",
    )
