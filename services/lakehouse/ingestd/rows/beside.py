"""Statistics of large files outside the primary bucket, read from beside the files.

They only ever spare reading: what is missing or damaged is done without.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.errors import LakehouseError
from lakehouse.ingestd.rows.recent import is_small
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import ColumnStats, DataFile, stats_key
from lakehouse.objectstore.readcache import ReadCache
from lakehouse.table.statsfile import decode_stats

__all__ = ["Beside"]

_KEPT: Final = 4_096
_BYTES: Final = 2_048
_BYTES_A_COLUMN: Final = 200


class Beside:
    """Keeps what was read last, by its hash."""

    def __init__(self, jobs: ThreadPoolExecutor) -> None:
        self._jobs = jobs
        self._known: OrderedDict[str, tuple[ColumnStats, ...]] = OrderedDict()

    async def filled(self, snapshot: DatasetSnapshot, cache: ReadCache) -> DatasetSnapshot:
        """``snapshot`` with the statistics of its large files, as far as they are to be had."""
        lacking = [
            file
            for file in snapshot.files
            if file.stats_sha256 and not file.stats and not is_small(file)
        ]
        if not lacking:
            return snapshot
        new = [file for file in lacking if file.stats_sha256 not in self._known]
        width = len(snapshot.dataset.schema.columns)
        for start in range(0, len(new), _KEPT // 4):
            await self._read(new[start : start + _KEPT // 4], width, cache)
        files = tuple(self._with(file) for file in snapshot.files)
        return replace(snapshot, files=files)

    def _with(self, file: DataFile) -> DataFile:
        found = self._known.get(file.stats_sha256) if file.stats_sha256 else None
        if found is None or file.stats:
            return file
        self._known.move_to_end(file.stats_sha256)
        return replace(file, stats=found)

    async def _read(self, files: list[DataFile], width: int, cache: ReadCache) -> None:
        # Their sizes are not in the catalog.
        size = _BYTES + width * _BYTES_A_COLUMN
        objects = [
            DataFile(stats_key(file.key), size, 0, file.stats_sha256, file.bucket) for file in files
        ]
        with cache.held(objects):
            try:
                paths = (await cache.paths(objects)).paths
                found = await run_in(self._jobs, _decoded, paths)
            except (LakehouseError, OSError):
                return
        for one, stats in zip(objects, found, strict=True):
            self._known[one.sha256] = stats
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)


def _decoded(paths: list[str]) -> list[tuple[ColumnStats, ...]]:
    return [decode_stats(Path(path).read_bytes()) for path in paths]
