"""Where the failed attempts of a process go: its own journal, or the process that keeps one."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lakehouse.contracts.catalog import StatusRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.model.refs import PRIMARY
from lakehouse.node.config import Config
from lakehouse.node.reporting import Reporter
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.failures import FailureSink, NoSink
from lakehouse.objectstore.identity import confirm, read_identity, state_folder
from lakehouse.objectstore.port import ObjectStore
from lakehouse.storaged.journal import Journal, JournalPlace
from lakehouse.storaged.settings import JournalSettings

if TYPE_CHECKING:
    from lakehouse.node.wiring import Wiring

log = logging.getLogger(__name__)

_PLACE_DIGITS: Final = 16


class Journaling:
    """``sink`` takes attempts from the first moment."""

    def __init__(self, config: Config, wiring: Wiring, clock: Clock, ids: Ids) -> None:
        self._config = config
        self._wiring = wiring
        self._ids = ids
        settings = _placed(config)
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
            place = JournalPlace(
                store=store,
                writer=self._ids.ulid(),
                health=lambda: buckets.health(PRIMARY),
                prove=lambda: self._prove(store),
            )
            with act_as("storaged"):
                await self._journal.start(place)

    async def _prove(self, store: ObjectStore) -> None:
        """Raise unless the store in the primary is the one that this machine, the configuration
        and the catalog know, and may be written to."""
        node = self._config.node
        identity = await read_identity(store)
        state = Path(node.state_dir) if node.state_dir else state_folder(os.environ)
        confirm(state, store.url, identity, node.store_id)
        catalog = self._wiring.contracts.get("catalog")
        if "catalogd" in node.roles or catalog is None:
            return
        ctx = Context(ANONYMOUS_OPERATOR, self._ids.ulid(), source="node")
        try:
            known = (await catalog.status(ctx, StatusRequest())).store_id
        except LakehouseError as error:
            # Its own process may be down; what is known here has to do.
            log.warning("the catalog did not say which store it has: %s", error)
            return
        if known != identity.store_id:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the store in the primary bucket is not the catalog's",
                found=identity.store_id,
                catalog=known,
                key="buckets.primary.url",
            )

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
