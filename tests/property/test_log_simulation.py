"""The real append log in simulated worlds: many histories, and mutants that must be caught.

``LAKEHOUSE_SIM_SEEDS`` asks for more histories; a seed that fails is in the message, and
``simulate_log(seed, folder)`` plays it again exactly.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from lakehouse.testing.simulation.ledgerbook import Violation
from lakehouse.testing.simulation.logworld import LogProfile, simulate_log
from property.log_mutants import DEFAULT, GHOSTS, HARSH_LOG, LOG_MUTANTS

SEEDS = int(os.environ.get("LAKEHOUSE_SIM_SEEDS", "2000")) // 125
MUTANT_SEEDS = 200


@pytest.fixture(autouse=True)
def _memory_disk() -> Iterator[None]:
    """A simulated machine does not lose power: nothing is gained by waiting for the disk."""
    logging.disable(logging.CRITICAL)
    with mock.patch("os.fsync"):
        yield
    logging.disable(logging.NOTSET)


def _play(seeds: range, folder: Path, profile: LogProfile = DEFAULT) -> Counter[str]:
    """Play and judge ``seeds``; what happened in them together."""
    totals: Counter[str] = Counter()
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        try:
            simulation = simulate_log(seed, place, profile)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        book, objects = simulation.book, simulation.bucket.objects
        totals["acknowledged"] += len(book.acknowledged)
        totals["refused"] += len(book.absent)
        totals["offered"] += sum(book.offered.values())
        totals["scans"] += len(book.read)
        totals["merged"] += sum("/m/" in key for key in objects)
        totals["retained"] += any("/retained/" in key for key in objects)
    return totals


def test_no_history_of_a_log_breaks_a_promise(tmp_path: Path) -> None:
    totals = _play(range(SEEDS), tmp_path)
    # A world in which nothing happens would break no promise either.
    assert min(totals[name] for name in ("acknowledged", "offered", "scans", "merged")) > SEEDS
    assert totals["refused"] > 0
    assert totals["retained"] > SEEDS // 10


@pytest.mark.parametrize("profile", [HARSH_LOG, GHOSTS], ids=["harsh", "ghosts"])
def test_no_harsh_history_of_a_log_breaks_a_promise(profile: LogProfile, tmp_path: Path) -> None:
    totals = _play(range(SEEDS // 3), tmp_path, profile)
    assert totals["acknowledged"] > SEEDS


# Once failed: a segment was sent again behind its own earlier attempt, which had arrived meanwhile.
@pytest.mark.parametrize("seed", [59, 70, 73])
def test_a_history_of_a_log_that_once_broke_a_promise(seed: int, tmp_path: Path) -> None:
    _play(range(seed, seed + 1), tmp_path, GHOSTS)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(100_000, 104_000, 250))
def test_no_history_of_many_breaks_a_promise(first: int, tmp_path: Path) -> None:
    _play(range(first, first + 200), tmp_path)
    _play(range(first + 200, first + 225), tmp_path, HARSH_LOG)
    _play(range(first + 225, first + 250), tmp_path, GHOSTS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LOG_MUTANTS)
def test_a_missing_safeguard_of_a_log_is_noticed(name: str, tmp_path: Path) -> None:
    profile, without = LOG_MUTANTS[name]
    with without():
        for seed in range(MUTANT_SEEDS):
            place = tmp_path / str(seed)
            place.mkdir()
            try:
                simulate_log(seed, place, profile)
            except Violation as violation:
                print(f"{name}: seed {seed}: {violation}")
                return
    pytest.fail(f"{MUTANT_SEEDS} histories without noticing: {name}")


def test_one_seed_is_one_history_of_a_log(tmp_path: Path) -> None:
    worlds = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        worlds.append(simulate_log(7, tmp_path / place))
    assert worlds[0].bucket.objects == worlds[1].bucket.objects
