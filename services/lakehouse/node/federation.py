"""The bucket registry of a process: opened, following the others, and shown."""

from __future__ import annotations

import logging
from typing import Any

from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.supervise import Supervisor
from lakehouse.node.config import Config
from lakehouse.node.readiness import NodeReadiness
from lakehouse.objectstore.buckets import Buckets
from lakehouse.storaged.registry import Registry

log = logging.getLogger(__name__)


async def open_registry(
    config: Config, buckets: Buckets, catalog: Any, clock: Clock, ids: Ids
) -> Registry:
    """The registry with what is in the catalog now. A catalog that is not there yet, in another
    process, is no reason not to start: its documents come later."""
    registry = Registry(config.registry, buckets, catalog, clock, ids)
    try:
        await registry.refresh()
    except LakehouseError as error:
        log.warning("the bucket registry cannot be read yet", extra={"reason": str(error)})
    return registry


def follow(registry: Registry, supervisor: Supervisor, readiness: NodeReadiness) -> None:
    """Keep ``registry`` up to date, and show what is wrong with single buckets in ``/ready``."""
    supervisor.start("bucket registry", registry.follow)
    supervisor.start("bucket greetings", registry.greet)
    readiness.add("registry", registry)
