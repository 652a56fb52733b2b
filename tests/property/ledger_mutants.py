"""The ledger with one of its safeguards taken out: each must break a promise that is checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from unittest import mock

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import chain, floor
from lakehouse.ledger.access import Access
from lakehouse.ledger.ledger import Ledger
from lakehouse.ledger.machine import Proposal
from lakehouse.ledger.record import Record
from lakehouse.ledger.sessions import session_of
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.simulation.bucket import Faults
from lakehouse.testing.simulation.collecting import RETENTION_SECONDS, unnamed_objects
from lakehouse.testing.simulation.machine import World, add_token
from lakehouse.testing.simulation.process import SimulatedClock
from lakehouse.testing.simulation.world import SETTINGS, Node, Profile

Mutant = tuple[Profile, Callable[[], AbstractContextManager[object]]]

_IN_PLACE = "_catalog/floor/current"
# Eager collectors, long stops, a network that delivers twice: what the floor is for.
HARSH = Profile(
    stop_seconds=50.0,
    collect_seconds=0.5,
    trouble_seconds=3.0,
    settings=replace(SETTINGS, fold_records=3, records_kept=1),
    file_writers=0,
    collect_objects=None,
    clients=4,
    tokens_each=20,
    seconds=120.0,
    faults=Faults(before=0.05, again=0.6, late_seconds=40.0, usual_seconds=0.1),
)
# The floor trails two checkpoints: it overtakes a sleeper where there are many, and long sleeps.
_EAGER = replace(
    HARSH,
    stop_seconds=100.0,
    seconds=240.0,
    clients=6,
    tokens_each=60,
    settings=replace(HARSH.settings, fold_records=1),
)
# An old marker that arrives once more, late, is what an overwritten floor cannot bear.
_TWICE = replace(HARSH, faults=Faults(before=0.05, again=1.0, late_seconds=25.0, usual_seconds=0.1))


def _patched(*patches: AbstractContextManager[object]) -> Callable[[], ExitStack]:
    def enter() -> ExitStack:
        stack = ExitStack()
        for patch in patches:
            stack.enter_context(patch)
        return stack

    return enter


async def _no_floor(access: Access) -> int:
    return floor.NONE


async def _read_in_place(access: Access) -> int:
    try:
        return int(await access.store.get(_IN_PLACE))
    except LakehouseError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return floor.NONE
        raise


async def _write_in_place(access: Access, n: int) -> None:
    await access.patiently(lambda: access.store.put(_IN_PLACE, str(n).encode()))


async def _nothing(access: Access) -> None:
    return


_check_floor = chain.Append._check_floor


async def _definite_below_the_floor(append: chain.Append[Record]) -> chain.Outcome:
    """A success under the floor is no success: so it is a refusal. But it may have been carried on
    by another writer and collected while this process slept."""
    outcome = await _check_floor(append)
    definite = outcome is chain.Outcome.LOST and not append._ambiguous
    return chain.Outcome.FENCED if definite else outcome


def _without_key(token: str, key_hash: str, body_sha256: str) -> Proposal[World]:
    return replace(add_token(token), body_sha256=body_sha256)


async def _collect_by_age(
    node: Node, ledger: Ledger[World], store: ObjectStore, clock: SimulatedClock
) -> None:
    """Nothing names it and it is not new: so it must be garbage."""
    await clock.sleep(2 * RETENTION_SECONDS)
    await store.delete(await unnamed_objects(ledger.state, store, ledger.seq))


async def _collect_without_condemn(
    node: Node, ledger: Ledger[World], store: ObjectStore, clock: SimulatedClock
) -> None:
    """Nothing names it and its session has ended: but the chain has not given it up."""
    state = ledger.state
    dead = [
        key
        for key in await unnamed_objects(state, store, state.seq)
        if session_of(key) not in state.objects.sessions
    ]
    await clock.sleep(RETENTION_SECONDS)
    await store.delete(dead)


MUTANTS: dict[str, Mutant] = {
    "no floor check": (HARSH, _patched(mock.patch.object(floor, "read_floor", _no_floor))),
    "floor overwritten in place": (
        _TWICE,
        _patched(
            mock.patch.object(floor, "read_floor", _read_in_place),
            mock.patch.object(floor, "raise_floor", _write_in_place),
            mock.patch.object(floor, "drop_lower_floors", _nothing),
        ),
    ),
    "a definite no below the floor": (
        _EAGER,
        _patched(mock.patch.object(chain.Append, "_check_floor", _definite_below_the_floor)),
    ),
    "no put id": (
        Profile(),
        _patched(mock.patch.object(chain, "is_mine", return_value=True)),
    ),
    "no idempotency key": (Profile(propose=_without_key), _patched()),
    "collection by age": (Profile(collect_objects=_collect_by_age), _patched()),
    "collection without condemn": (
        Profile(collect_objects=_collect_without_condemn),
        _patched(),
    ),
}
