"""What a process does with the rescue bucket: its reads, and the copier where storaged runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.contracts.catalog import CatalogService
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.supervise import Supervisor
from lakehouse.node.config import Config
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.rescue import KnownReads

if TYPE_CHECKING:
    from lakehouse.storaged.copier import Copier

_FIRST_SECONDS = 1.0


class Rescue:
    """``reads``: with ``rescue.bucket`` they fall back on it, else they are plain reads."""

    def __init__(self, config: Config, buckets: Buckets, clock: Clock, ids: Ids) -> None:
        self._settings = config.rescue
        self._buckets = buckets
        self._clock = clock
        self._ids = ids
        self.reads = KnownReads(buckets, clock, ids, config.rescue)

    def copier(self, catalog: CatalogService, supervisor: Supervisor) -> Copier | None:
        """Start the copier; None where no rescue bucket is configured, and then nothing runs."""
        if not self._settings.bucket:
            return None
        from lakehouse.storaged.copier import Copier

        copier = Copier(
            self._settings,
            catalog,
            self._buckets,
            self._clock,
            self._ids,
            lambda: self.reads.served,
        )

        async def run() -> None:
            # Not among what a start waits for.
            await self._clock.sleep(_FIRST_SECONDS)
            await copier.run()

        supervisor.start("rescue copier", run)
        return copier
