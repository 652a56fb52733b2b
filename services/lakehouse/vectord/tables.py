"""Lance tables in the store: made and searched in a folder of this node, kept as objects."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.vectors import VECTORS_FOLDER, Distance, IndexVersion, Structure
from lakehouse.objectstore.folders import Claim, claim
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.vectord.folders import FolderInfo, fetch_folder, put_folder
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lakehouse.vectord.adapters.lance import LanceIndex

__all__ = ["LANCE", "Tables"]

LANCE: Final = "lance"
_SUFFIX: Final = ".lance/"
_PLACE: Final = "lance"


@dataclass(frozen=True, slots=True)
class Tables:
    """Whatever the bucket is, Lance reads and writes local files: what it does to a bucket goes
    through the same retries, keys and bounds as everything else, and is verified on its way back.

    Args:
        builders: threads of its own, so that no search waits for a build.
    """

    parts: VectorParts
    builders: Executor

    async def build(
        self, vectors: Vectors, labels: pa.Table, distance: Distance, stop: Callable[[], bool]
    ) -> LanceIndex:
        """Raises ``unavailable`` once ``stop`` says so, ``exhausted`` where the disk is full."""
        from lakehouse.vectord.adapters.lance import build_table

        place = await self._place()
        try:
            return await run_in(self.builders, build_table, vectors, labels, distance, place, stop)
        except BaseException:
            place.release()
            raise

    async def save(self, name: str, bucket: str, index: LanceIndex, seq: int) -> Structure:
        """Write the table to the folder ``name``, to which a suffix is put; nothing names it yet.

        Args:
            seq: as in ``Structure``.
        """
        store = ScopedStore(self.parts.buckets.get(bucket), (VECTORS_FOLDER,))
        key = f"{name}{_SUFFIX}"
        info = await put_folder(store, key, index.folder, self.builders)
        return Structure(
            LANCE,
            key,
            index.rows,
            info.size_bytes,
            info.sha256,
            lance_version=index.version,
            bucket=bucket,
            seq=seq,
        )

    async def load(
        self, version: IndexVersion, structure: Structure, columns: Sequence[str]
    ) -> tuple[LanceIndex, pa.Table]:
        """What ``save`` wrote, and its labels' ``columns``. Raises ``corrupt`` where it is damaged,
        and as the store does."""
        from lakehouse.vectord.adapters.lance import FOLDER, LanceIndex

        store = self.parts.buckets.get(structure.bucket)
        info = FolderInfo(structure.size_bytes, structure.sha256)
        shape = (version.dimensions, version.profile.distance)
        place = await self._place()
        try:
            folder: Path = place.path / FOLDER
            await fetch_folder(store, structure.key, info, folder, self.parts.jobs)
            opened = (place, structure.lance_version, *shape)
            index = await run_in(self.parts.jobs, LanceIndex, *opened)
            labels = (await run_in(self.parts.jobs, index.labels)).select(columns)
        except KeyError as error:
            place.release()
            raise LakehouseError(
                ErrorKind.CORRUPT,
                "a search structure is damaged",
                key=structure.key,
                reason=str(error),
            ) from error
        except BaseException:
            place.release()
            raise
        return index, labels

    async def _place(self) -> Claim:
        parent = str(Path(self.parts.settings.cache_dir) / _PLACE)
        try:
            return await claim(parent, self.parts.ids.ulid())
        except OSError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "the folder for copies of search structures cannot be written",
                folder=parent,
                reason=str(error)[:200],
                hint="see vectors.cache_dir in the configuration",
            ) from error
