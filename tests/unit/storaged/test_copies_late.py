"""The copier and what no change tells: purges of others' objects, copies that come too late."""

from __future__ import annotations

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.rescue import RescueSettings
from support_catalog import CARD, CTX, parquet_bytes
from unit.storaged.rescue_world import HOME, RESCUE, Scripted, World, build_world


async def register(world: World, name: str, key: str) -> bytes:
    data = parquet_bytes(3, 0)
    await world.buckets.raw(HOME).put(key, data)
    refs = (c.ForeignObject(key, HOME),)
    await world.catalog.register(CTX, c.RegisterRequest(name, refs, CARD))
    return data


async def test_the_purge_of_objects_of_others_travels_within_an_hour() -> None:
    async with build_world(RescueSettings(RESCUE)) as world:
        await world.make("A", 3)
        await world.settle()
        await register(world, "gone", "a/gone.parquet")
        data = await register(world, "kept", "their/kept.parquet")
        await world.settle()
        assert len(await world.copies()) == 5
        await world.clock.advance(3_600)
        await world.settle()
        await world.catalog.drop(CTX, c.DropRequest("gone", purge=True))
        await world.settle()
        world.script.log.clear()
        await world.clock.advance(3_600)
        await world.settle()
        copies = await world.copies()
        assert f"rescue/{HOME}/a/gone.parquet" not in copies
        assert copies[f"rescue/{HOME}/their/kept.parquet"] == data
        assert len(copies) == 4
        assert world.copier.info().deletions == 1
        # And then no more is looked for until something changes.
        await world.clock.advance(7_200)
        await world.settle()
        world.script.log.clear()
        await world.clock.advance(7_200)
        await world.settle()
        assert [entry for entry in world.script.log if entry[0] == "list"] == []


async def test_copies_of_our_own_are_passed_by_where_only_those_of_others_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lakehouse.storaged.sweeping.PAGE", 2)
    async with build_world(RescueSettings(RESCUE)) as world:
        await world.make("A", 30)
        for key in ("a/1", "a/2", "a/3", "z/1", "z/2"):
            await register(world, key[0] + key[2], f"{key}.parquet")
        await world.settle()
        for name in ("a1", "z2"):
            await world.catalog.drop(CTX, c.DropRequest(name, purge=True))
        world.script.log.clear()
        await world.clock.advance(3_600)
        await world.settle()
        theirs = [key for key in await world.copies() if "/datasets/" not in key]
        assert theirs == [f"rescue/{HOME}/{key}.parquet" for key in ("a/2", "a/3", "z/1")]
        assert sum(entry[0] == "list" for entry in world.script.log) <= 5


async def test_what_could_not_be_copied_and_is_purged_is_forgotten() -> None:
    async with build_world() as world:
        await register(world, "theirs", "their/file.parquet")
        await world.buckets.raw(HOME).delete(["their/file.parquet"])
        await world.settle()
        assert world.copier.info().last_error
        await world.clock.advance(world.settings.sweep_seconds)
        await world.settle()
        assert world.copier.info().lag_seconds > 0
        await world.catalog.drop(CTX, c.DropRequest("theirs", purge=True))
        await world.clock.advance(world.settings.sweep_seconds)
        await world.settle()
        info = world.copier.info()
        assert (info.objects, info.copied, info.lag_seconds, info.last_error) == (0, 0, 0.0, "")


@pytest.mark.parametrize("large", [False, True])
async def test_a_copy_that_comes_after_its_removal_is_found(
    monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr("lakehouse.storaged.copying.STREAM_ABOVE_BYTES", 1)
    async with build_world(RescueSettings(RESCUE)) as world:
        await world.make("B", 1, "client_b")
        await world.settle()
        files = await world.make("A", 1)

        async def lost(*_: object, **__: object) -> None:
            raise LakehouseError(ErrorKind.TIMEOUT, "no answer")

        with monkeypatch.context() as patch:
            patch.setattr(Scripted, "put_stream" if large else "put", lost)
            await world.settle()
        assert len(await world.copies()) == 1
        await world.purge("A")
        await world.settle()
        late = f"rescue/{HOME}/{files[0].key}"
        await world.buckets.raw(RESCUE).put(late, b"A 0")
        await world.clock.advance(1_000)
        await world.settle()
        assert late not in await world.copies()
        assert len(await world.copies()) == 1
