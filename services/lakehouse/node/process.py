"""A node as a process of its own: event loop, logs, signals."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from lakehouse.catalogd.service import Catalog, open_catalog
from lakehouse.catalogd.tokens import Tokens
from lakehouse.errors import EXIT_CODE, ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.kit.telemetry import configure_logging
from lakehouse.ledger.ledger import WriterInfo
from lakehouse.node.buckets import live_secrets, open_buckets
from lakehouse.node.config import Config
from lakehouse.node.holder import HolderProbe, endpoint_of
from lakehouse.node.lifecycle import (
    Node,
    catalog_settings,
    state_dir,
)
from lakehouse.node.primary import prepare_primary

COLLECTION_SECONDS_MAX: Final = 0.02
_OLDEST: Final = 2

Started = Callable[[Node], Awaitable[None]]


def run_node(config: Config, started: Started, *, take_over: bool = False) -> None:
    """Run a node until SIGTERM or SIGINT; raises what ended it otherwise (``fenced``, ...).

    Args:
        started: called once the node answers; the node stops if it raises.
    """
    import uvloop

    configure_logging(config.node.log_level, config.node.log_format, live_secrets(config))
    uvloop.run(_run(config, started, take_over))


async def _run(config: Config, started: Started, take_over: bool) -> None:
    node = Node(config, take_over=take_over)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.request_stop)
    try:
        await node.start()
    except LakehouseError as error:
        raise start_failure(error) from error
    # What start-up made lives as long as the process: the collector need not look at it again.
    gc.freeze()
    gc.enable()
    gc.callbacks.append(long_lived(SystemClock()))
    try:
        await started(node)
        await node.serve_forever()
    finally:
        await node.stop()


def start_failure(error: LakehouseError) -> LakehouseError:
    """What a failed start is told as.

    The exit code of a store that was lost to another node must mean that alone: whoever supervises
    the process does not start it again then. Lack of time or space passes.
    """
    lost = error.kind is ErrorKind.FENCED
    if lost or EXIT_CODE[error.kind] != EXIT_CODE[ErrorKind.FENCED]:
        return error
    return LakehouseError(ErrorKind.UNAVAILABLE, error.message, **error.fields)


def long_lived(clock: Clock) -> Callable[[str, dict[str, int]], None]:
    """For ``gc.callbacks``: what a long full collection has found alive is not looked at again.

    The state of a catalog grows with what is registered, and a collection of all of it would hold
    the loop for longer each time. Counting references still frees what was frozen; garbage in
    cycles it may hold is what was under way at that moment, a small part of what takes so long.
    """
    began = 0.0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if info["generation"] < _OLDEST:
            return
        if phase == "start":
            began = clock.monotonic()
        elif clock.monotonic() - began > COLLECTION_SECONDS_MAX:
            gc.freeze()

    return watch


@asynccontextmanager
async def offline_tokens(config: Config) -> AsyncIterator[Tokens]:
    """The token service over the store itself, for the first token, while no node runs.

    Raises ``conflict`` while a holder of the store answers.
    """
    clock = SystemClock()
    ids = SystemIds(clock)
    buckets = open_buckets(config, clock, ids)
    catalog: Catalog | None = None
    try:
        await prepare_primary(buckets, clock, ids, state_dir(config), config.node.store_id)
        settings = catalog_settings(
            config, HolderProbe(config.listen.grpc, clock, ids), take_over=False
        )
        writer = WriterInfo(ids.ulid(), endpoint_of(config.node.advertise, config.listen.grpc))
        catalog = await open_catalog(settings, buckets, writer, clock, ids)
        yield Tokens(catalog, clock, ids)
    finally:
        if catalog is not None:
            await catalog.close()
        await buckets.close()
