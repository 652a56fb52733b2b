"""Row changes against a dict: any sequence of changes, crashes, compactions and collections.

On memory the work of threads is done in turns that the seed draws, elsewhere by threads.
``LAKEHOUSE_ROWS_SEED`` repeats one sequence; ``LAKEHOUSE_ROWS_SEQUENCES`` sets how many on memory.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import pytest

from chaos.doomed import CLOCK
from lakehouse.objectstore.buckets import BucketSettings, open_adapter
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ObjectStore
from property.one_thread import one_thread
from property.row_world import World, play
from support_s3 import S3Place, place_of_environment

STEPS: Final = 30
CHUNK: Final = 8
SEQUENCES: Final = int(os.environ.get("LAKEHOUSE_ROWS_SEQUENCES", "16"))
FIRST: Final = 0 if "CI" in os.environ else random.randrange(2**31)
SCRATCH: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""What a process holds beside its store is no part of what is tested, and costs less here."""
KEPT: Final = [1, 5, *map(int, os.environ.get("LAKEHOUSE_ROWS_SEED", "").split())]
"""Seeds that once failed, and those that are asked for."""

Stores = Callable[[int], ObjectStore]


async def sequence(seed: int, store: ObjectStore, folder: Path) -> None:
    world = World(store, folder, random.Random(seed))
    in_turns = isinstance(store, MemoryStore)
    try:
        with one_thread(random.Random(seed)) if in_turns else nullcontext():
            await play(world, STEPS)
    except BaseException as error:
        error.add_note(f"LAKEHOUSE_ROWS_SEED={seed}: " + "\n".join(world.log))
        raise


async def sequences(seeds: range, stores: Stores) -> None:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        for seed in seeds:
            await sequence(seed, stores(seed), Path(folder))


def memory(seed: int) -> ObjectStore:
    return MemoryStore(f"rows-{seed}", CLOCK)


def local(folder: Path) -> Stores:
    def at(seed: int) -> ObjectStore:
        place = folder / str(seed)
        place.mkdir()
        return open_adapter(BucketSettings("primary", place.as_uri()), CLOCK)

    return at


def s3(place: S3Place) -> Stores:
    def at(seed: int) -> ObjectStore:
        settings = place.settings()
        inside = BucketSettings(
            "primary",
            f"{settings.url}/{seed}",
            settings.endpoint,
            credentials=settings.credentials,
        )
        return open_adapter(inside, CLOCK)

    return at


def seeds(count: int, offset: int) -> Any:
    """Chunks of so many seeds, called by their place: processes of one run draw apart."""
    first = FIRST + offset
    chunks = [
        range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)
    ]
    return [pytest.param(each, id=str(place)) for place, each in enumerate(chunks)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chosen", seeds(SEQUENCES, 0))
async def test_memory(chosen: range) -> None:
    await sequences(chosen, memory)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chosen", seeds(SEQUENCES // 12, 10**8))
async def test_local(chosen: range, tmp_path: Path) -> None:
    await sequences(chosen, local(tmp_path))


@pytest.mark.s3
@pytest.mark.timeout(300)
async def test_s3() -> None:
    await sequences(range(FIRST, FIRST + 3), s3(place_of_environment()))


@pytest.mark.soak
@pytest.mark.parametrize("chosen", seeds(18_000, 2 * 10**8))
async def test_many_on_memory(chosen: range) -> None:
    await sequences(chosen, memory)


@pytest.mark.soak
@pytest.mark.parametrize("chosen", seeds(1_500, 3 * 10**8))
async def test_many_on_local(chosen: range, tmp_path: Path) -> None:
    await sequences(chosen, local(tmp_path))


@pytest.mark.parametrize("seed", KEPT)
async def test_kept_seeds(seed: int, tmp_path: Path) -> None:
    await sequence(seed, memory(seed), tmp_path)
