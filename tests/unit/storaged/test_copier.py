"""The copier: what is live is copied, what is gone goes, and it may die at any request."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime
from lakehouse.model.changes import AddFiles
from lakehouse.objectstore.rescue import RescueSettings
from lakehouse.storaged.copies import OWNER, STATE, load_cursors
from support_catalog import CARD, CTX, commit, parquet_bytes
from unit.storaged.rescue_world import (
    HOME,
    RESCUE,
    RETENTION_SECONDS,
    Crash,
    World,
    build_world,
)

DOWN = LakehouseError(ErrorKind.UNAVAILABLE, "connection refused")


async def test_live_objects_of_all_buckets_are_copied_and_counted() -> None:
    async with build_world() as world:
        files = await world.make("A", 3) + await world.make("B", 2, "primary")
        await world.make("C", 1, RESCUE)
        await world.settle()
        assert await world.copies() == await world.expected(*files)
        info = world.copier.info()
        assert (info.bucket, info.objects, info.copied, info.lag_seconds) == (RESCUE, 5, 5, 0.0)
        # No record of the ledger, nothing of store.json or of the rescue bucket itself.
        assert all("/datasets/" in key for key in await world.copies())


async def test_what_comes_later_costs_what_came_and_nothing_costs_nothing() -> None:
    async with build_world() as world:
        await world.make("A", 20)
        await world.settle()
        world.script.log.clear()
        for _ in range(5):
            await world.clock.advance(5)
            assert await world.copier.round() is False
        assert world.script.log == []
        new = await world.append("A", "new", b"later")
        await world.settle()
        asked = sorted((operation, bucket) for operation, bucket, _ in world.script.log)
        # One read, one write, and the note of it.
        assert asked == [("get", HOME), ("put", RESCUE), ("put", RESCUE)]
        assert f"rescue/{HOME}/{new.key}" in await world.copies()
        assert world.copier.info().copied == 21


async def test_a_restart_goes_on_from_its_note_and_reads_nothing_twice() -> None:
    async with build_world() as world:
        files = await world.make("A", 30)
        await world.settle()
        world.restart()
        world.script.log.clear()
        await world.settle()
        assert world.script.counts(HOME) == 0
        assert world.script.counts(RESCUE) < 10
        assert await world.copies() == await world.expected(*files)


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b'{"format":9}', b'{"format":1,"cursors":{"client_a":"?"}}']
)
async def test_a_note_that_cannot_be_read_costs_work_only(note: bytes) -> None:
    async with build_world() as world:
        files = await world.make("A", 3)
        await world.settle()
        await world.buckets.raw(RESCUE).put(STATE, note)
        lost = f"rescue/{HOME}/{files[1].key}"
        await world.buckets.raw(RESCUE).delete([lost])
        world.restart()
        await world.settle()
        assert await world.copies() == await world.expected(*files)


async def test_a_rescue_bucket_of_another_store_is_left_alone() -> None:
    async with build_world() as world:
        await world.make("A", 1)
        theirs = world.buckets.raw(RESCUE)
        await theirs.put(OWNER, b'{"format":1,"store_id":"ANOTHER"}')
        await theirs.put("rescue/primary/datasets/S/D/x.parquet", b"theirs")
        await world.settle()
        assert await world.copies() == {"rescue/primary/datasets/S/D/x.parquet": b"theirs"}
        assert "another store" in world.copier.info().last_error


# -- going away ----------------------------------------------------------------------------------


async def test_deletions_and_erasures_travel_before_the_original_goes() -> None:
    async with build_world() as world:
        gone, kept = await world.make("A", 3), await world.make("B", 1)
        await world.settle()
        await world.purge("A")
        await world.settle()
        assert await world.copies() == await world.expected(*kept)
        assert world.copier.info().deletions == 3
        # Readers still have their hour with the originals.
        assert await world.buckets.raw(HOME).get(gone[0].key)


@pytest.mark.parametrize("page", [1, 2, 1000])
async def test_erasures_travel_while_the_bucket_that_had_it_is_down(page: int) -> None:
    async with build_world() as world:
        world.page_by(page)
        await world.make("A", 2)
        kept = await world.make("B", 1)
        await world.settle()
        world.script.errors[HOME] = DOWN
        await world.append("B", "late", b"late")
        await world.settle()
        await world.purge("A")
        for _ in range(5):
            await world.clock.advance(5)
            await world.settle()
        assert await world.copies() == await world.expected(*kept)
        assert world.copier.info().deletions == 2
        del world.script.errors[HOME]
        await world.clock.advance(60)
        await world.settle()
        info = world.copier.info()
        assert (info.deletions, info.copied, info.objects) == (2, 2, 2)


async def test_a_version_that_can_be_read_keeps_its_copies() -> None:
    async with build_world() as world:
        files = await world.make("A", 2)
        await world.settle()
        await world.remove("A", files[0])
        await world.catalog.drop(CTX, c.DropRequest("A"))
        await world.settle()
        world.restart()
        await world.settle()
        assert await world.copies() == await world.expected(*files)


async def test_what_was_forgotten_while_nobody_looked_is_found_by_the_sweep() -> None:
    async with build_world() as world:
        await world.make("A", 2)
        kept = await world.make("B", 1)
        await world.settle()
        await world.purge("A")
        await world.clock.advance(RETENTION_SECONDS + 1)
        await world.catalog.collect(CTX, c.PlanRequest())
        world.restart()
        await world.settle()
        assert await world.copies() == await world.expected(*kept)


async def test_nothing_is_removed_on_what_is_not_known() -> None:
    """An object of a session that lives may be about to be named."""
    async with build_world() as world:
        early = await world.write("A", "early", b"not committed yet")
        copy = f"rescue/{HOME}/{early.key}"
        await world.buckets.raw(RESCUE).put(copy, b"not committed yet")
        await world.settle()
        assert list(await world.copies()) == [copy]
        await world.renew()
        world.restart()
        await world.settle()
        assert await world.copies() == {}


async def test_a_catalog_that_does_not_answer_removes_nothing() -> None:
    async with build_world() as world:
        files = await world.make("A", 2)
        await world.settle()
        world.restart()
        answers = world.catalog.object_states

        async def silent(*_: object) -> object:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the catalog is opening")

        world.catalog.object_states = silent  # type: ignore[assignment]
        await world.settle()
        assert "opening" in world.copier.info().last_error
        world.catalog.object_states = answers
        await world.settle()
        assert await world.copies() == await world.expected(*files)


# -- objects of others ---------------------------------------------------------------------------


async def test_an_object_registered_again_with_other_bytes_gets_another_copy() -> None:
    async with build_world() as world:
        for rows, start in ((3, 0), (4, 1), (4, 2)):
            data = parquet_bytes(rows, start)
            await world.buckets.raw(HOME).put("their/file.parquet", data)
            refs = (c.ForeignObject("their/file.parquet", HOME),)
            await world.catalog.register(CTX, c.RegisterRequest("theirs", refs, CARD))
            await world.settle()
            assert await world.copies() == {f"rescue/{HOME}/their/file.parquet": data}
        await world.catalog.drop(CTX, c.DropRequest("theirs", purge=True))
        await world.clock.advance(world.settings.sweep_seconds)
        await world.settle()
        assert await world.copies() == {}


# -- large objects -------------------------------------------------------------------------------


async def test_large_objects_are_streamed_and_appear_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lakehouse.storaged.copying.STREAM_ABOVE_BYTES", 10)
    async with build_world() as world:
        await world.make("A", 1)
        good = await world.append("A", "good", b"x" * 100)
        bad = await world.append("A", "bad", b"y" * 100)
        await world.buckets.raw(HOME).put(bad.key, b"z" * 100)
        for rows, start in ((3, 1), (3, 2)):
            data = parquet_bytes(rows, start)
            await world.buckets.raw(HOME).put("their/file.parquet", data)
            refs = (c.ForeignObject("their/file.parquet", HOME),)
            await world.catalog.register(CTX, c.RegisterRequest("theirs", refs, CARD))
            await world.settle()
            copies = await world.copies()
            assert copies[f"rescue/{HOME}/their/file.parquet"] == data
            assert copies[f"rescue/{HOME}/{good.key}"] == b"x" * 100
            assert f"rescue/{HOME}/{bad.key}" not in copies


# -- damage --------------------------------------------------------------------------------------


async def test_an_object_that_is_not_what_the_catalog_says_is_not_copied() -> None:
    async with build_world() as world:
        files = await world.make("A", 3)
        await world.buckets.raw(HOME).put(files[1].key, b"A ?")
        await world.settle()
        assert await world.copies() == await world.expected(files[0], files[2])
        info = world.copier.info()
        assert (info.objects, info.copied) == (3, 2)
        assert "not what the catalog says" in info.last_error
        await world.clock.advance(60)
        assert world.copier.info().lag_seconds >= 60
        await world.buckets.raw(HOME).put(files[1].key, b"A 1")
        await world.clock.advance(world.settings.sweep_seconds)
        await world.settle()
        assert world.copier.info().copied == 3
        assert world.copier.info().lag_seconds == 0


@pytest.mark.parametrize("bad", [b"A ?", b"A 1 and more", None])
async def test_a_sample_is_read_back_and_damage_is_made_good(bad: bytes | None) -> None:
    async with build_world() as world:
        files = await world.make("A", 4)
        await world.settle()
        # The sample is drawn by the sweep, of what stands then.
        await world.clock.advance(world.settings.sweep_seconds)
        await world.settle()
        copy = f"rescue/{HOME}/{files[1].key}"
        store = world.buckets.raw(RESCUE)
        if bad is None:
            await store.delete([copy])
        else:
            await store.put(copy, bad)
        for _ in range(6):
            await world.clock.advance(2)
            await world.copier.round()
        info = world.copier.info()
        assert (info.verified, info.damaged) == (4, 1)
        assert await world.copies() == await world.expected(*files)
        assert info.copied == 4


async def test_a_copy_of_another_size_is_found_by_the_sweep() -> None:
    async with build_world() as world:
        files = await world.make("A", 3)
        await world.settle()
        await world.buckets.raw(RESCUE).put(f"rescue/{HOME}/{files[0].key}", b"cut off")
        world.restart()
        await world.settle()
        assert world.copier.info().damaged == 1
        assert await world.copies() == await world.expected(*files)


# -- buckets in trouble --------------------------------------------------------------------------


async def test_a_bucket_that_is_down_holds_up_only_itself_and_is_caught_up_with() -> None:
    async with build_world() as world:
        await world.make("A", 1)
        other = await world.make("B", 1, "client_b")
        await world.settle()
        world.script.errors[HOME] = DOWN
        late = await world.append("A", "late", b"late")
        more = await world.make("D", 2, "client_b")
        await world.settle()
        await world.clock.advance(30)
        info = world.copier.info()
        assert (info.objects, info.copied) == (5, 4)
        assert info.lag_seconds >= 29
        assert "refused" in info.last_error
        assert len(await world.copies()) == 4
        assert {f"rescue/client_b/{file.key}" for file in (*other, *more)} <= set(
            await world.copies()
        )
        # It is not asked all the time: each attempt would be another entry of the error journal.
        asked = world.script.counts(HOME)
        for _ in range(60):
            await world.clock.advance(5)
            await world.settle()
        assert world.script.counts(HOME) - asked < 10
        del world.script.errors[HOME]
        await world.clock.advance(60)
        await world.settle()
        info = world.copier.info()
        assert (info.copied, info.lag_seconds, info.last_error) == (5, 0.0, "")
        assert f"rescue/{HOME}/{late.key}" in await world.copies()


async def test_a_rescue_bucket_that_is_down_costs_nobody_anything() -> None:
    async with build_world() as world:
        files = await world.make("A", 2)
        world.script.errors[RESCUE] = DOWN
        await world.settle()
        assert "refused" in world.copier.info().last_error
        world.script.errors.clear()
        await world.settle()
        assert await world.copies() == await world.expected(*files)
        world.script.errors[RESCUE] = DOWN
        await world.append("A", "late", b"late")
        await world.settle()
        assert world.copier.info().copied == 2
        world.script.errors.clear()
        await world.clock.advance(60)
        await world.settle()
        assert world.copier.info().copied == 3


# -- residency -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "copied"), [("", {"primary"}), ("eu", {"primary", HOME}), ("us", {"primary"})]
)
async def test_residency_keeps_objects_away(place: str, copied: set[str]) -> None:
    async with build_world(residencies={HOME: "eu", RESCUE: place}) as world:
        await world.make("A", 2)
        await world.make("B", 3, "primary")
        # A copy from before the label.
        stray = f"rescue/{HOME}/datasets/{world.session}/A/f0.parquet"
        await world.buckets.raw(RESCUE).put(stray, b"A 0")
        await world.settle()
        assert {key.split("/")[1] for key in await world.copies()} == copied
        info = world.copier.info()
        assert info.objects == info.copied == (5 if place == "eu" else 3)
        assert info.excluded == (0 if place == "eu" else 2)


async def test_a_key_that_leaves_no_place_for_a_copy_holds_nobody_up() -> None:
    key = f"{'k' * 250}/{'e' * 250}.parquet"
    async with build_world() as world:
        files = await world.make("A", 2)
        foreign = replace(files[0], key=key, external=True)
        await commit(world.catalog, AddFiles("A", (foreign,)))
        late = await world.append("A", "late", b"late")
        await world.settle()
        assert await world.copies() == await world.expected(*files, late)
        info = world.copier.info()
        assert (info.objects, info.copied, info.excluded, info.lag_seconds) == (3, 3, 1, 0.0)


async def test_a_bucket_in_the_wrong_region_is_no_thousand_damaged_objects() -> None:
    async with build_world() as world:
        await world.make("A", 50)
        moved = LakehouseError(ErrorKind.INVALID, "the object store refused", s3_status=301)
        world.script.errors[HOME] = moved
        await world.settle()
        assert world.script.counts(HOME) < 10


# -- dying ---------------------------------------------------------------------------------------


async def scene(world: World) -> None:
    """A life of the copier: a fill, appends, a purge, a damaged and a missing copy, a sweep."""
    files = await world.make("A", 4)
    await world.settle()
    await world.append("A", "new", b"new")
    await world.make("B", 1, "client_b")
    await world.settle()
    await world.purge("B")
    await world.settle()
    store = world.house.buckets.raw(RESCUE)
    await store.put(f"rescue/{HOME}/{files[0].key}", b"cut off")
    await store.delete([f"rescue/{HOME}/{files[1].key}"])
    await world.clock.advance(world.settings.sweep_seconds)
    await world.settle()


async def requests_of_the_scene() -> int:
    async with build_world() as world:
        await scene(world)
        return len(world.script.log)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("page", [1, 1000])
async def test_killed_at_every_request_it_goes_on(after: bool, page: int) -> None:
    total = await requests_of_the_scene()
    assert total > 20
    for at in range(1, total + 1):
        async with build_world() as world:
            world.page_by(page)
            world.script.dies_at, world.script.after = at, after
            try:
                await scene(world)
            except Crash:
                await check_note(world)
            world.restart()
            # Killed again on its way back.
            world.script.dies_at = len(world.script.log) + 1 + at % 7
            try:
                await world.settle()
            except Crash:
                await check_note(world)
            world.restart()
            await world.settle()
            live = await world.catalog.files(CTX, c.PageRequest("A"))
            keep = list(live.files)
            if (await world.catalog.list(CTX, c.ListRequest())).datasets[-1].name == "B":
                keep += (await world.catalog.files(CTX, c.PageRequest("B"))).files
            assert await world.copies() == await world.expected(*keep), (at, after)
            assert world.copier.info().copied == len(keep)


async def check_note(world: World) -> None:
    """What the note says is copied has its copy, but for what was taken away by hand."""
    cursors = await load_cursors(world.buckets.raw(RESCUE))
    copies = await world.copies()
    for bucket, cursor in cursors.items():
        whole = await world.catalog.object_changes(CTX, c.ObjectChangesRequest(bucket))
        rest = await world.catalog.object_changes(CTX, c.ObjectChangesRequest(bucket, cursor))
        behind = {file.key for file in rest.added}
        missing = [
            file.key
            for file in whole.added
            if file.key not in behind and f"rescue/{bucket}/{file.key}" not in copies
        ]
        assert [key for key in missing if not key.endswith(("/f0.parquet", "/f1.parquet"))] == []


async def test_bandwidth_is_bounded() -> None:
    settings = RescueSettings(RESCUE, bandwidth_bytes_max=10, verify_objects=0)
    async with build_world(settings) as world:
        await world.make("A", 1)
        files = [await world.append("A", f"big{at}", b"x" * 100) for at in range(3)]
        began = world.clock.monotonic()
        task = asyncio.create_task(world.settle())
        while not task.done():
            await world.clock.advance(1)
        await task
        assert world.clock.monotonic() - began >= 20
        assert len(await world.copies()) == 1 + len(files)


async def test_lag_is_the_age_of_the_oldest_that_is_missing() -> None:
    async with build_world() as world:
        await world.make("A", 1)
        await world.settle()
        world.script.errors[HOME] = DOWN
        made = to_datetime(world.clock.now_us())
        for at in range(10):
            await world.append("A", f"late{at}", b"late")
            await world.clock.advance(10)
            await world.settle()
        lag = (to_datetime(world.clock.now_us()) - made).total_seconds()
        assert lag - 1 <= world.copier.info().lag_seconds <= lag
        assert world.copier.info().copied == 1
