"""Statistics of files outside the primary bucket, read from beside the files when they may help.

They only ever spare reading: what is missing, damaged or slow to come is done without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.errors import LakehouseError
from lakehouse.model.dataset import ColumnStats, DataFile, stats_key
from lakehouse.model.refs import PRIMARY
from lakehouse.objectstore.in_place import SilentError
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.queryd.prepare import Lru
from lakehouse.queryd.scan import STATISTICS_MIN_FILES
from lakehouse.table.statsfile import decode_stats

__all__ = ["Statistics"]

log = logging.getLogger(__name__)

SECONDS_MAX: Final = 5.0
OBJECTS_MAX: Final = 4096
_REMEMBERED: Final = 16_384
# What such an object weighs in the cache, for its own size is not in the catalog.
_BYTES: Final = 2048
_BYTES_A_COLUMN: Final = 200


class Statistics:
    """Reads through ``cache``: verified, shared by those that ask at once, bounded."""

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._known: Lru[tuple[ColumnStats, ...]] = Lru(_REMEMBERED)

    @staticmethod
    def wanted(snapshot: DatasetSnapshot) -> bool:
        """Whether the dataset's files may have statistics beside them, and pruning may matter."""
        outside = snapshot.dataset.bucket != PRIMARY
        return outside and len(snapshot.files) >= STATISTICS_MIN_FILES

    async def filled(self, snapshot: DatasetSnapshot) -> tuple[DatasetSnapshot, bool]:
        """``snapshot`` with the statistics of its files put in, and whether all were to be had."""
        lacking = [file for file in snapshot.files if file.stats_sha256 and not file.stats]
        new = [file for file in lacking if self._known.peek(file.stats_sha256) is None]
        width = len(snapshot.dataset.schema.columns)
        if new:
            await self._read(snapshot.dataset.name, new[:OBJECTS_MAX], width)
        files = tuple(self._with(file) for file in snapshot.files)
        whole = all(self._known.peek(file.stats_sha256) is not None for file in lacking)
        return replace(snapshot, files=files), whole

    def _with(self, file: DataFile) -> DataFile:
        found = self._known.peek(file.stats_sha256) if file.stats_sha256 else None
        return file if found is None or file.stats else replace(file, stats=found)

    async def _read(self, dataset: str, files: Sequence[DataFile], width: int) -> None:
        tasks = [asyncio.create_task(self._one(file, width)) for file in files]
        try:
            async with asyncio.timeout(SECONDS_MAX):
                failed = [why for why in await asyncio.gather(*tasks) if why]
        except TimeoutError:
            failed = [f"no answer within {SECONDS_MAX:.0f} s"]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            log.warning(
                "statistics could not be read, so files are not left out by them",
                extra={"dataset": dataset, "objects": len(failed), "reason": failed[0]},
            )

    async def _one(self, file: DataFile, width: int) -> str:
        """Remember the statistics of ``file``; why not, or ""."""
        size = _BYTES + width * _BYTES_A_COLUMN
        beside = DataFile(stats_key(file.key), size, 0, file.stats_sha256, file.bucket)
        try:
            with self._cache.held([beside]):
                path = (await self._cache.paths([beside])).paths[0]
                data = await self._cache.run_in_place(
                    file.bucket, lambda _: Path(path).read_bytes()
                )
                stats = decode_stats(data)
        except SilentError:
            return f"its file does not answer ({file.bucket}/{beside.key})"
        except LakehouseError as error:
            return f"{error} ({file.bucket}/{beside.key})"
        except OSError as error:
            return f"{error.strerror} ({file.bucket}/{beside.key})"
        self._known.get(file.stats_sha256, lambda: stats)
        return ""
