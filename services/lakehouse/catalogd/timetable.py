"""Collection on a timetable: the catalog gives up, deletes and packs without being asked."""

from __future__ import annotations

import logging

from lakehouse.catalogd.collect import Collecting
from lakehouse.catalogd.core import Core
from lakehouse.catalogd.sessions import SYSTEM
from lakehouse.contracts.catalog import PlanRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.supervise import Supervisor
from lakehouse.model.identity import Context

__all__ = ["Timetable"]

log = logging.getLogger(__name__)


class Timetable:
    """Collects every ``collect_seconds`` of our own monotonic clock; commits never wait for it."""

    def __init__(self, core: Core, collecting: Collecting) -> None:
        self._core = core
        self._collecting = collecting
        self._supervisor = Supervisor()
        if core.settings.collect_seconds > 0:
            self._supervisor.start("catalog collection", self._run)

    async def stop(self) -> None:
        """End it; what is under way is found again by the next run. Idempotent."""
        await self._supervisor.stop()

    async def _run(self) -> None:
        ctx = Context(principal=SYSTEM, request_id="timetable")
        while True:
            await self._core.clock.sleep(self._core.settings.collect_seconds)
            try:
                await self._collecting.collect(ctx, PlanRequest())
            except LakehouseError as error:
                # The chain is as it was, or ahead by what the next run goes on from.
                if error.kind is not ErrorKind.FENCED:
                    log.warning("collection did not finish", extra={"error": str(error)})
