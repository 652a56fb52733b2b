"""Collecting data objects the right way: the chain gives them up before anybody deletes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.ledger.ledger import Ledger
from lakehouse.ledger.sessions import session_of
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.simulation.machine import World, change_files
from lakehouse.testing.simulation.process import SimulatedClock

if TYPE_CHECKING:
    from lakehouse.testing.simulation.world import Node

RETENTION_SECONDS = 0.5


async def unnamed_objects(state: World, store: ObjectStore, horizon: int) -> list[str]:
    """Data objects that no version at or above ``horizon`` names."""
    found = [meta.key for meta in await store.list("datasets/")]
    return [
        key for key in found if key not in state.files and not state.dropped.get(key, -1) > horizon
    ]


async def collect_condemned(
    node: Node, ledger: Ledger[World], store: ObjectStore, clock: SimulatedClock
) -> None:
    """Condemn by a commit what no retained version names and no live session may name; delete it
    after readers are done."""
    state = ledger.state
    horizon = max(state.objects.horizon, state.seq - node.simulation.rng.randrange(6))
    dead = [
        key
        for key in await unnamed_objects(state, store, horizon)
        if session_of(key) not in state.objects.sessions and key not in state.objects.condemned
    ]
    if dead:
        change = {"op": "condemn", "keys": dead, "horizon": horizon}
        await ledger.commit(change_files((change,), kind="condemn"))
    await clock.sleep(RETENTION_SECONDS)
    await store.delete(sorted(ledger.state.objects.condemned)[:20])
