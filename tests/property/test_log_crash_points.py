"""A log killed before and after every store operation of append, flush, compact and retain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.testing.simulation.bucket import NO_FAULTS
from lakehouse.testing.simulation.logworld import (
    PREFIX,
    SETTINGS,
    LogProfile,
    LogSimulation,
    judge,
)
from lakehouse.testing.simulation.loop import SimulatedLoop, run_simulated
from lakehouse.testing.simulation.process import Process

PROFILE = LogProfile(faults=NO_FAULTS)
BEFORE, AFTER = False, True


@pytest.fixture(autouse=True)
def _memory_disk() -> Iterator[None]:
    with mock.patch("os.fsync"):
        yield


async def _append(simulation: LogSimulation, log: AppendLog, token: str) -> None:
    done = await log.append([{"token": token}])
    simulation.book.acknowledged[token] = done.first_seq


async def _life(simulation: LogSimulation, process: Process, name: str) -> None:
    """Append, flush, compact twice, retain the half, append on, close."""
    access = simulation.access(process, NO_FAULTS)
    settings = replace(SETTINGS, spool_folder=str(simulation.folder / "spool"))
    log = await open_log(access.store, PREFIX, name, access.clock, access.ids, settings)
    process.died.add_done_callback(lambda _: log.abandon())
    for number in range(6):
        await _append(simulation, log, f"{name}-{number}")
    half_us = access.clock.now_us()
    log.offer([{"token": f"{name}-o{place}", "id": f"{name}-o{place}"} for place in range(4)])
    await asyncio.sleep(0.1)
    for place in range(4):
        simulation.book.offered[f"{name}-o{place}"] = process.alive
    await log.flush()
    await log.compact()
    for number in range(6, 10):
        await _append(simulation, log, f"{name}-{number}")
    await log.compact()
    await log.retain(to_datetime(half_us))
    await _append(simulation, log, f"{name}-10")
    await log.close()


async def _until_death(simulation: LogSimulation, process: Process, name: str) -> bool:
    """True if it got to its end."""
    life = asyncio.ensure_future(_life(simulation, process, name))
    await asyncio.wait([life, process.died], return_when=asyncio.FIRST_COMPLETED)
    if process.alive:
        await life
    life.cancel()
    return process.alive


def _play(folder: Path, *kills: tuple[int, bool]) -> tuple[int, bool]:
    """Lives that end at these requests, one after the other, then a whole one, then the verdict.

    Returns the requests of the last of the doomed lives, and whether it got to its end.
    """
    folder.mkdir()

    async def main(loop: SimulatedLoop) -> tuple[int, bool]:
        simulation = LogSimulation(loop, random.Random(1), PROFILE, folder)
        done, process = True, Process(loop, "none")
        for life, (at, after) in enumerate(kills):
            process = Process(loop, f"doomed{life}", kill_at=at, after_effect=after)
            done = await _until_death(simulation, process, process.name)
        assert await _until_death(simulation, Process(loop, "last"), "last")
        await judge(simulation)
        return process.requests, done

    try:
        return run_simulated(1, main)
    except LakehouseError as error:
        raise AssertionError(f"{kills}: {error} {error.fields}") from error


@pytest.mark.parametrize("after", [BEFORE, AFTER], ids=["before", "after"])
def test_a_log_killed_at_every_request_then_opened_again(after: bool, tmp_path: Path) -> None:
    at = 0
    while True:
        _, done = _play(tmp_path / str(at), (at, after))
        if done:
            break
        at += 1
    assert at > 60, "the life under test is too short to mean anything"


@pytest.mark.parametrize("after", [BEFORE, AFTER], ids=["before", "after"])
def test_a_log_killed_again_while_it_recovers(after: bool, tmp_path: Path) -> None:
    for first in range(11, 90, 26):
        for second in range(0, 60, 7):
            _play(tmp_path / f"{first}-{second}", (first, after), (second, not after))
