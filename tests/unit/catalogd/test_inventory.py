"""What who keeps copies asks: what came, what was given up, whether something is still named."""

from __future__ import annotations

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.contracts import inventory as i
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.changes import AddFiles, RemoveFiles
from lakehouse.model.refs import ObjectRef
from lakehouse.testing.clocks import ManualClock
from support_catalog import CARD, CTX, House, build_house, commit, create, file_of, put_parquet

NAMED, GIVEN_UP, UNKNOWN = i.ObjectStanding


async def changes(
    catalog: Catalog, cursor: str = "", bucket: str = "primary", limit: int = 1000
) -> i.ObjectChangesResult:
    return await catalog.object_changes(CTX, i.ObjectChangesRequest(bucket, cursor, limit))


async def walk(catalog: Catalog, limit: int) -> list[str]:
    keys: list[str] = []
    cursor = ""
    while True:
        page = await changes(catalog, cursor, limit=limit)
        keys += [file.key for file in page.added]
        assert (page.waiting > 0) == (page.waiting_since is not None)
        cursor = page.cursor
        if not page.waiting:
            return keys


async def standing(catalog: Catalog, *keys: str, bucket: str = "primary") -> list[i.ObjectState]:
    refs = tuple(ObjectRef(bucket, key) for key in keys)
    return list((await catalog.object_states(CTX, i.ObjectStatesRequest(refs))).states)


async def test_a_cursor_goes_on_with_what_came_since_and_costs_nothing_else(
    catalog: Catalog, session: str
) -> None:
    old = [file_of(session, "D1", f"a{at}") for at in range(3)]
    await commit(catalog, *create("D1", "people", *old))
    first = await changes(catalog)
    assert [file.key for file in first.added] == [file.key for file in old]
    assert all(not file.stats for file in first.added)
    assert (first.live, first.waiting, first.waiting_since) == (3, 0, None)
    again = await changes(catalog, first.cursor)
    assert (again.added, again.given_up) == ((), ())
    new = [file_of(session, "D1", "b"), file_of(session, "D2", "c")]
    await commit(catalog, AddFiles("D1", (new[0],)), *create("D2", "places", new[1]))
    later = await changes(catalog, again.cursor)
    assert [file.key for file in later.added] == [file.key for file in new]
    assert (await changes(catalog, first.cursor)).added == later.added
    assert (await changes(catalog, bucket="elsewhere")).added == ()


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_pages_of_any_size_have_everything_once_in_commit_order(
    catalog: Catalog, session: str, limit: int
) -> None:
    for turn in range(3):
        for name in ("D1", "D2"):
            files = tuple(file_of(session, name, f"{name}-{turn}-{at}") for at in range(2))
            made = create(name, name, *files) if turn == 0 else (AddFiles(name, files),)
            await commit(catalog, *made)
    await commit(catalog, RemoveFiles("D1", (file_of(session, "D1", "D1-1-0").key,)))
    every = [
        f"datasets/{session}/{name}/{name}-{turn}-{at}.parquet"
        for turn in range(3)
        for name in ("D1", "D2")
        for at in range(2)
        if (turn, name, at) != (1, "D1", 0)
    ]
    assert await walk(catalog, limit) == every


async def test_many_files_in_few_segments_are_found_from_the_middle(
    catalog: Catalog, session: str
) -> None:
    await commit(catalog, *create("D1", "people", file_of(session, "D1", "first")))
    for turn in range(4):
        files = tuple(file_of(session, "D1", f"{turn}-{at:04d}") for at in range(700))
        await commit(catalog, AddFiles("D1", files))
    first = await changes(catalog, limit=1000)
    assert len(first.added) == 1000
    assert 1801 <= first.waiting <= 2800
    keys = [file.key for file in first.added]
    assert len(set(keys + await walk(catalog, 333))) == 2801


async def test_what_is_given_up_comes_with_the_changes_and_copies_may_go_before_it() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    try:
        catalog = await house.open()
        session = (await catalog.session(CTX, c.SessionRequest("t", "ingestd"))).session_id
        file = file_of(session, "D1", "a")
        kept = file_of(session, "D2", "b")
        await commit(catalog, *create("D1", "people", file), *create("D2", "places", kept))
        start = await changes(catalog)
        await catalog.drop(CTX, c.DropRequest("people"))
        assert [s.standing for s in await standing(catalog, file.key)] == [NAMED]
        await catalog.drop(CTX, c.DropRequest("people", purge=True))
        # Its session lives, yet the chain knows it as nobody's: it was purged.
        assert [s.standing for s in await standing(catalog, file.key)] == [GIVEN_UP]
        assert (await changes(catalog, start.cursor)).given_up == ()
        await catalog.session(CTX, c.SessionRequest("t", "ingestd", session, close=True))
        await catalog.collect(CTX, c.PlanRequest())
        page = await changes(catalog, start.cursor)
        assert page.given_up == (ObjectRef("primary", file.key),)
        assert (await changes(catalog, page.cursor)).given_up == ()
        found = await standing(catalog, file.key, kept.key)
        assert [s.standing for s in found] == [GIVEN_UP, NAMED]
        assert (found[1].sha256, found[1].size_bytes) == (kept.sha256, kept.size_bytes)
    finally:
        await house.close()


async def test_nothing_follows_from_what_is_not_known(catalog: Catalog, session: str) -> None:
    written = file_of(session, "D1", "about-to-be-named").key
    ended = file_of("01ENDEDSESSION0000000000AA", "D1", "orphan").key
    # Opened by another node since, for all that this one knows.
    younger = file_of("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "D1", "other").key
    found = await standing(catalog, written, ended, younger)
    assert [s.standing for s in found] == [UNKNOWN, GIVEN_UP, UNKNOWN]


async def test_a_removed_file_is_named_while_its_version_can_be_read(
    catalog: Catalog, session: str
) -> None:
    file = file_of(session, "D1", "a")
    await commit(catalog, *create("D1", "people", file))
    await commit(catalog, RemoveFiles("D1", (file.key,)))
    [found] = await standing(catalog, file.key)
    assert (found.standing, found.live) == (NAMED, False)


async def test_objects_of_others_are_named_by_whatever_dataset(
    house: House, catalog: Catalog
) -> None:
    for name in ("one", "two"):
        foreign = await put_parquet(house, "their/file.parquet")
        await catalog.register(CTX, c.RegisterRequest(name, (foreign,), CARD))
    assert [s.standing for s in await standing(catalog, "their/file.parquet")] == [NAMED]
    assert len((await changes(catalog)).added) == 2
    for name, left in (("one", NAMED), ("two", GIVEN_UP)):
        await catalog.drop(CTX, c.DropRequest(name, purge=True))
        assert [s.standing for s in await standing(catalog, "their/file.parquet")] == [left]
    # The same key in another bucket is another object.
    other = await standing(catalog, "their/file.parquet", bucket="elsewhere")
    assert [s.standing for s in other] == [GIVEN_UP]


async def test_a_page_is_bounded_and_a_cursor_is_ours(catalog: Catalog) -> None:
    for request in (i.ObjectChangesRequest("primary", limit=0), i.ObjectChangesRequest("x", "?")):
        with pytest.raises(LakehouseError) as caught:
            await catalog.object_changes(CTX, request)
        assert caught.value.kind is ErrorKind.INVALID
    with pytest.raises(LakehouseError):
        await standing(catalog, *(f"k{at}" for at in range(1001)))
