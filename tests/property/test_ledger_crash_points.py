"""Every crash point: killed before and after each store operation, then again during recovery."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest

from lakehouse.errors import LakehouseError
from lakehouse.ledger import checkpoint
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.simulation.bucket import NO_FAULTS
from lakehouse.testing.simulation.ledgerbook import check_chain
from lakehouse.testing.simulation.loop import SimulatedLoop, run_simulated
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token
from lakehouse.testing.simulation.process import Process, SimulatedClock
from lakehouse.testing.simulation.world import SETTINGS, Profile, Simulation

SMALL = replace(SETTINGS, fold_records=3, unfolded_records_max=6, records_kept=1)
PROFILE = Profile(faults=NO_FAULTS, settings=SMALL)
BEFORE, AFTER = False, True


@pytest.fixture(autouse=True)
def _remembered_parts() -> Iterator[None]:
    remembered = functools.lru_cache(256)(checkpoint.from_parquet)
    with mock.patch.object(checkpoint, "from_parquet", remembered):
        yield


async def _open(simulation: Simulation, process: Process) -> Ledger[World]:
    store = simulation.store(process, NO_FAULTS)
    clock = SimulatedClock(simulation.loop, process)
    ids = SeededIds(simulation.rng.getrandbits(32))
    writer, options = WriterInfo(process.name), OpenOptions(settings=SMALL)
    return await open_ledger(store, WorldMachine(), writer, clock, ids, options)


async def _commit(simulation: Simulation, ledger: Ledger[World], token: str) -> None:
    before = simulation.book.durable_seq
    done = await ledger.commit(add_token(token, f"key-{token}", "body"))
    simulation.book.acknowledge(token, done, ledger.epoch, 0 if done.replayed else before)


async def _life(simulation: Simulation, process: Process, tokens: range) -> None:
    """Open, commit with folds on the way, collect, commit on, close."""
    ledger = await _open(simulation, process)
    for place, number in enumerate(tokens):
        await _commit(simulation, ledger, f"t{number}")
        if place % 5 == 4:
            await ledger.collect_records()
    await ledger.close()


async def _until_death(simulation: Simulation, process: Process, tokens: range) -> bool:
    """True if it got to its end."""
    life = asyncio.ensure_future(_life(simulation, process, tokens))
    await asyncio.wait([life, process.died], return_when=asyncio.FIRST_COMPLETED)
    if process.alive:
        await life
    return process.alive


def _play(*kills: tuple[int, bool]) -> tuple[int, bool]:
    """Lives that end at these requests, one after the other, then a whole one, then the verdict.

    Returns the requests of the last of the doomed lives, and whether it got to its end.
    """

    async def main(loop: SimulatedLoop) -> tuple[int, bool]:
        simulation = Simulation(loop, random.Random(1), PROFILE)
        done, process = True, Process(loop, "none")
        for life, (at, after) in enumerate(kills):
            process = Process(loop, f"doomed{life}", kill_at=at, after_effect=after)
            done = await _until_death(simulation, process, range(11))
        # Repeats every token with its key: what was committed is answered, the rest is done now.
        assert await _until_death(simulation, Process(loop, "last"), range(13))
        access = simulation.access(Process(loop, "judge"), NO_FAULTS)
        head = await check_chain(simulation.book, access, simulation.bucket)
        assert dict(head.state.tokens) == {f"t{number}": 1 for number in range(13)}
        return process.requests, done

    try:
        return run_simulated(1, main)
    except LakehouseError as error:
        raise AssertionError(f"{kills}: {error} {error.fields}") from error


@pytest.mark.parametrize("after", [BEFORE, AFTER], ids=["before", "after"])
def test_killed_at_every_request_then_recovered(after: bool) -> None:
    at = 0
    while True:
        _, done = _play((at, after))
        if done:
            break
        at += 1
    assert at > 60, "the life under test is too short to mean anything"


@pytest.mark.parametrize("after", [BEFORE, AFTER], ids=["before", "after"])
def test_killed_again_at_every_request_of_the_recovery(after: bool) -> None:
    # Recovery is opening: its requests come first in the second life, 16 are all of them and more.
    for first in range(3, 80, 7):
        for second in range(16):
            _play((first, after), (second, not after))
