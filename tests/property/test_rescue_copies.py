"""Whatever happens to buckets, datasets and the copier: copies never lie, and in the end they are
those of what is live."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st

from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import DataFile
from lakehouse.objectstore.rescue import rescue_key
from support_catalog import CTX
from unit.storaged.rescue_world import HOME, RESCUE, Crash, World, build_world

DATASETS = ("A", "B")
BUCKETS = (HOME, RESCUE)
STEPS = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(DATASETS)),
    st.tuples(st.just("purge"), st.sampled_from(DATASETS)),
    st.tuples(st.just("down"), st.sampled_from(BUCKETS)),
    st.tuples(st.just("up"), st.sampled_from(BUCKETS)),
    st.tuples(st.just("round"), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.sampled_from([5, 70])),
    st.tuples(st.just("kill"), st.tuples(st.integers(1, 6), st.booleans())),
    st.tuples(st.just("lose"), st.integers(0, 5)),
    st.tuples(st.just("cut"), st.integers(0, 5)),
)


class Life:
    """A world, and what must be true of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.live: dict[str, list[DataFile]] = {}
        self.bytes: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.names = 0

    async def append(self, dataset: str) -> None:
        self.names += 1
        data = f"{dataset} {self.names}".encode()
        if dataset in self.live:
            file = await self.world.append(dataset, f"n{self.names}", data)
        else:
            [file] = await self.world.make(dataset, 1)
            data = f"{dataset} 0".encode()
        self.live.setdefault(dataset, []).append(file)
        self.bytes[rescue_key(HOME, file.key)] = data

    async def purge(self, dataset: str) -> None:
        if self.live.pop(dataset, None):
            await self.world.purge(dataset)

    async def down(self, bucket: str) -> None:
        self.world.script.errors[bucket] = LakehouseError(ErrorKind.TIMEOUT, "no answer")

    async def up(self, bucket: str) -> None:
        self.world.script.errors.pop(bucket, None)

    async def round(self, count: int) -> None:
        for _ in range(count):
            await self.world.copier.round()

    async def wait(self, seconds: int) -> None:
        await self.world.clock.advance(seconds)

    async def kill(self, how: tuple[int, bool]) -> None:
        script = self.world.script
        script.dies_at, script.after = len(script.log) + how[0], how[1]
        with contextlib.suppress(Crash):
            await self.round(3)
        self.world.restart()

    async def lose(self, place: int) -> None:
        """Somebody deletes a copy."""
        copies = sorted(await self.world.copies())
        if copies:
            await self.world.buckets.raw(RESCUE).delete([copies[place % len(copies)]])

    async def cut_(self, place: int) -> None:
        """Somebody leaves half of a copy."""
        copies = sorted(await self.world.copies())
        if copies:
            key = copies[place % len(copies)]
            self.cut.add(key)
            await self.world.buckets.raw(RESCUE).put(key, b"")

    async def check(self) -> None:
        """A copy has the bytes of its original, unless somebody cut it."""
        copies = await self.world.copies()
        assert {key: data for key, data in copies.items() if data} == {
            key: self.bytes[key] for key, data in copies.items() if data
        }
        assert {key for key, data in copies.items() if not data} <= self.cut

    async def finish(self) -> None:
        self.world.script.errors.clear()
        await self.world.clock.advance(self.world.settings.sweep_seconds + 60)
        self.world.restart()
        await self.world.settle(100)
        wanted = {rescue_key(HOME, file.key) for files in self.live.values() for file in files}
        assert await self.world.copies() == {key: self.bytes[key] for key in wanted}
        info = self.world.copier.info()
        assert (info.objects, info.copied, info.lag_seconds) == (len(wanted), len(wanted), 0.0)


async def live(steps: list[tuple[str, Any]]) -> None:
    async with build_world() as world:
        life = Life(world)
        for name, argument in steps:
            await getattr(life, "cut_" if name == "cut" else name)(argument)
            await life.check()
        await life.finish()
        listed = await world.catalog.list(CTX, c.ListRequest())
        assert {dataset.name for dataset in listed.datasets} == set(life.live)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_copies_never_lie_and_in_the_end_are_those_of_what_is_live(
    steps: list[tuple[str, Any]],
) -> None:
    note(str(steps))
    asyncio.run(live(steps))
