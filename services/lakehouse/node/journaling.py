"""Where the failed attempts of a process go: its own journal, or the process that keeps one."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.refs import PRIMARY
from lakehouse.node.config import Config
from lakehouse.node.reporting import Reporter
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.failures import FailureSink, NoSink
from lakehouse.storaged.journal import Journal, JournalPlace
from lakehouse.storaged.settings import JournalSettings

if TYPE_CHECKING:
    from lakehouse.node.wiring import Wiring

log = logging.getLogger(__name__)

_PLACE_DIGITS: Final = 16


class Journaling:
    """``sink`` takes attempts from the first moment."""

    def __init__(self, config: Config, wiring: Wiring, clock: Clock, ids: Ids) -> None:
        self._ids = ids
        self._settings = settings = _placed(config)
        self._journal: Journal | None = None
        self._reporter: Reporter | None = None
        storage: Any = wiring.contracts.get("storage")
        if "storaged" in config.node.roles:
            self._journal = Journal(settings, clock, ids)
        elif storage is not None:
            folder, most = settings.errors_spool_dir, settings.errors_spool_events_max
            self._reporter = Reporter(storage, folder, most, clock, ids)
        else:
            log.warning("what fails at buckets here goes into no journal: no peer keeps it")
        self.sink: FailureSink = self._journal or self._reporter or NoSink()

    def own(self) -> Journal:
        """The journal of a process with storaged."""
        assert self._journal is not None
        return self._journal

    async def start(self, buckets: Buckets) -> None:
        """Begin to write, or to forward; waits for nothing beyond this machine."""
        if self._reporter is not None:
            await self._reporter.start()
        if self._journal is not None:
            store = buckets.unreported(PRIMARY)
            health = lambda: buckets.health(PRIMARY)  # noqa: E731 - one short word for it
            with act_as("storaged"):
                await self._journal.start(JournalPlace(store, self._ids.ulid(), health))

    async def close(self) -> None:
        """Write or forward what waits, for a little while; the rest stays in the spool."""
        if self._journal is not None:
            await self._journal.close()
        if self._reporter is not None:
            await self._reporter.close()


def _placed(config: Config) -> JournalSettings:
    """The settings, with a spool folder for this store alone: a machine may run several."""
    settings, primary = config.journal, config.buckets[PRIMARY]
    if not settings.errors_spool_dir:
        return settings
    place = hashlib.sha256(f"{primary.endpoint} {primary.url}".encode()).hexdigest()
    folder = Path(settings.errors_spool_dir) / place[:_PLACE_DIGITS]
    return replace(settings, errors_spool_dir=str(folder))
