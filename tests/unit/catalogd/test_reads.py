"""Reading: lists, pages, points in time, hints."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import changes as m
from lakehouse.model.dataset import Card, DatasetStatus
from lakehouse.model.identity import Principal
from lakehouse.model.schema import Column, Schema
from lakehouse.table.fingerprint import fingerprint
from support_catalog import CARD, CTX, commit, create, file_of


async def names_of(catalog: Catalog, **options: object) -> list[str]:
    """All names, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = await catalog.list(CTX, c.ListRequest(cursor=cursor, **options))  # type: ignore[arg-type]
        found += [dataset.name for dataset in page.datasets]
        cursor = page.cursor
        if not cursor:
            return found


async def test_lists_are_sorted_and_paged(catalog: Catalog) -> None:
    names = [f"Set {at:03d}" for at in range(25)]
    for at, name in enumerate(reversed(names)):
        await commit(catalog, *create(f"D{at}", name))
    for limit in (1, 7, 25, 1000):
        assert await names_of(catalog, limit=limit) == names


async def test_a_cursor_survives_changes(catalog: Catalog) -> None:
    for at in range(6):
        await commit(catalog, *create(f"D{at}", f"s{at}"))
    page = await catalog.list(CTX, c.ListRequest(limit=3))
    assert [d.name for d in page.datasets] == ["s0", "s1", "s2"]
    await catalog.drop(CTX, c.DropRequest("s2"))
    await commit(catalog, *create("D9", "s2b"), *create("D8", "a"))
    rest = await catalog.list(CTX, c.ListRequest(cursor=page.cursor))
    assert [d.name for d in rest.datasets] == ["s2b", "s3", "s4", "s5"]


async def test_search_looks_in_all_of_the_card_and_the_columns(catalog: Catalog) -> None:
    columns = (Column(1, "Umsatz", "float64"),)
    cards = {
        "orders": Card("ann", "all orders", tags=("Sales", "daily")),
        "people": Card("bob", "whoever ORDERED"),
        "other": Card("ann", "nothing"),
    }
    for at, (name, card) in enumerate(cards.items()):
        made = m.CreateDataset(f"D{at}", name, fingerprint(columns), Schema(1, columns), card)
        await commit(catalog, made)
    assert await names_of(catalog, query="order") == ["orders", "people"]
    assert await names_of(catalog, query="ORDER daily") == ["orders"]
    assert await names_of(catalog, query="umsatz", limit=1) == ["orders", "other", "people"]
    assert await names_of(catalog, tag="sales") == ["orders"]
    assert await names_of(catalog, owner="Ann") == ["orders", "other"]
    assert await names_of(catalog, owner="ann", tag="none") == []


async def test_dropped_are_listed_on_request(catalog: Catalog) -> None:
    for at, name in enumerate("cab"):
        await commit(catalog, *create(f"D{at}", name))
    await catalog.drop(CTX, c.DropRequest("b"))
    assert await names_of(catalog, limit=1) == ["a", "c"]
    assert await names_of(catalog, limit=1, include_dropped=True) == ["a", "b", "c"]
    found = await catalog.get(CTX, c.GetRequest("B", include_dropped=True))
    assert found.dataset.status is DatasetStatus.DROPPED


@pytest.mark.parametrize("cursor", ["x", "e30", "W10", "WzFd", "\udc80", "€", "[" * 50, "WzEsMl0"])
async def test_foreign_cursors_are_invalid(catalog: Catalog, cursor: str) -> None:
    await commit(catalog, *create("D0", "t"))
    page = c.PageRequest("t", cursor=cursor)
    for call in (
        catalog.list(CTX, c.ListRequest(cursor=cursor)),
        catalog.files(CTX, page),
        catalog.versions(CTX, replace(page, cursor="W10" if cursor == "WzFd" else cursor)),
    ):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("limit", [0, -1, 100_000])
async def test_limits_have_bounds(catalog: Catalog, limit: int) -> None:
    await commit(catalog, *create("D0", "t"))
    for call in (
        catalog.list(CTX, c.ListRequest(limit=limit)),
        catalog.files(CTX, c.PageRequest("t", limit=limit)),
        catalog.versions(CTX, c.PageRequest("t", limit=limit)),
    ):
        with pytest.raises(LakehouseError, match="limit must be"):
            await call


async def test_not_found_names_the_nearest(catalog: Catalog) -> None:
    for at, name in enumerate(("people", "orders", "zebra")):
        await commit(catalog, *create(f"D{at}", name))
    with pytest.raises(LakehouseError) as caught:
        await catalog.get(CTX, c.GetRequest("poeple"))
    assert (caught.value.kind, caught.value.fields["nearest"]) == (ErrorKind.NOT_FOUND, "people")
    await catalog.drop(CTX, c.DropRequest("zebra"))
    with pytest.raises(LakehouseError) as caught:
        await catalog.snapshot(CTX, c.SnapshotRequest(("zebra",)))
    assert "restore" in str(caught.value.fields["hint"])


async def test_time_travel_by_version_and_time(catalog: Catalog, session: str) -> None:
    a, b = file_of(session, "D1", "a"), file_of(session, "D1", "b")
    v1 = await commit(catalog, *create("D1", "t", a))
    v2 = await commit(catalog, m.AddFiles("D1", (b,)), m.RemoveFiles("D1", (a.key,)))
    v3 = await commit(catalog, m.SetCard("D1", replace(CARD, owner="bob")))
    await catalog.rename(CTX, c.RenameRequest("t", "u"))

    async def seen(name: str, as_of: c.AsOf) -> tuple[str, list[str]]:
        snap = await catalog.snapshot(CTX, c.SnapshotRequest((name,), as_of))
        (one,) = snap.datasets
        return one.dataset.card.owner, [file.key for file in one.files]

    assert await seen("t", c.AsOf(version=v1)) == ("ann", [a.key])
    assert await seen("t", c.AsOf(version=v2)) == ("ann", [b.key])
    assert await seen("t", c.AsOf(version=v3)) == ("bob", [b.key])
    assert await seen("u", c.AsOf()) == ("bob", [b.key])
    entry = (await catalog.versions(CTX, c.PageRequest("u"))).versions[-1]
    assert await seen("t", c.AsOf(time=entry.at)) == ("ann", [a.key])
    for name, as_of in (("u", c.AsOf(version=v3)), ("t", c.AsOf()), ("t", c.AsOf(version=v1 - 1))):
        with pytest.raises(LakehouseError) as caught:
            await seen(name, as_of)
        assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_points_in_time_that_there_are_not(catalog: Catalog) -> None:
    version = await commit(catalog, *create("D1", "t"))
    at = (await catalog.get(CTX, c.GetRequest("t"))).dataset.created_at
    for as_of, kind in (
        (c.AsOf(version=version + 1), ErrorKind.NOT_FOUND),
        (c.AsOf(version=-1), ErrorKind.NOT_FOUND),
        (c.AsOf(time=at - timedelta(days=1)), ErrorKind.NOT_FOUND),
        (c.AsOf(time=at.replace(tzinfo=None)), ErrorKind.INVALID),
        (c.AsOf(version=1, time=at), ErrorKind.INVALID),
        (c.AsOf(min_version=version + 1), ErrorKind.UNAVAILABLE),
    ):
        with pytest.raises(LakehouseError) as caught:
            await catalog.get(CTX, c.GetRequest("t", as_of))
        assert caught.value.kind is kind, as_of
    future = c.AsOf(time=at + timedelta(days=1), min_version=version)
    assert (await catalog.get(CTX, c.GetRequest("t", future))).version == version


async def test_one_number_pins_a_snapshot_of_everything(catalog: Catalog, session: str) -> None:
    both = [*create("D1", "a", file_of(session, "D1", "a")), *create("D2", "b")]
    version = await commit(catalog, *both)
    await commit(
        catalog,
        m.AddFiles("D1", (file_of(session, "D1", "a2"),)),
        m.AddFiles("D2", (file_of(session, "D2", "b2"),)),
    )
    request = c.SnapshotRequest(("b", "a"), c.AsOf(version=version))
    old = await catalog.snapshot(CTX, request)
    assert [(d.dataset.name, len(d.files)) for d in old.datasets] == [("b", 0), ("a", 1)]
    assert old.version == version
    pinned = replace(request, pins=(c.Pin("b", c.AsOf()),))
    mixed = await catalog.snapshot(CTX, pinned)
    assert [len(d.files) for d in mixed.datasets] == [1, 1]


async def test_a_snapshot_has_every_schema_its_files_need(catalog: Catalog, session: str) -> None:
    from support_catalog import COLUMNS

    wider = (*COLUMNS, Column(3, "x", "date"))
    await commit(catalog, *create("D1", "t", file_of(session, "D1", "a")))
    newer = replace(file_of(session, "D1", "b"), schema_id=2)
    change = m.SetSchema("D1", Schema(2, wider), fingerprint(wider))
    await commit(catalog, change, m.AddFiles("D1", (newer,)))
    (found,) = (await catalog.snapshot(CTX, c.SnapshotRequest(("t",)))).datasets
    assert [schema.id for schema in found.schemas] == [1, 2]
    assert found.dataset.schema.columns == wider


async def test_files_are_paged_at_one_version(catalog: Catalog, session: str) -> None:
    files = [file_of(session, "D1", f"f{at}") for at in range(10)]
    await commit(catalog, *create("D1", "t", *files))
    page = await catalog.files(CTX, c.PageRequest("t", limit=4))
    await commit(catalog, m.AddFiles("D1", (), replace=True))
    keys = [file.key for file in page.files]
    while page.cursor:
        page = await catalog.files(CTX, c.PageRequest("t", limit=4, cursor=page.cursor))
        keys += [file.key for file in page.files]
    assert keys == [file.key for file in files]
    assert not (await catalog.files(CTX, c.PageRequest("t"))).files


async def test_versions_are_newest_first_and_paged(catalog: Catalog, session: str) -> None:
    await commit(catalog, *create("D1", "t"))
    for at in range(5):
        await commit(catalog, m.AddFiles("D1", (file_of(session, "D1", f"f{at}"),), source="s"))
    found: list[tuple[int, str]] = []
    cursor = ""
    while True:
        page = await catalog.versions(CTX, c.PageRequest("t", limit=2, cursor=cursor))
        found += [(entry.version, entry.operation) for entry in page.versions]
        cursor = page.cursor
        if not cursor:
            break
    assert [operation for _, operation in found] == ["append"] * 5 + ["create"]
    assert [version for version, _ in found] == sorted((v for v, _ in found), reverse=True)
    entry = (await catalog.versions(CTX, c.PageRequest("t"))).versions[0]
    assert (entry.actor, entry.request_id, entry.source, entry.row_count) == (
        "local",
        "r-1",
        "s",
        25,
    )


async def test_documents_by_kind_and_id(catalog: Catalog) -> None:
    await commit(catalog, m.PutDocument("k", "b", "[1]"), m.PutDocument("k", "a", "2"))
    found = (await catalog.documents(CTX, c.DocumentsRequest("k"))).documents
    assert [(each.id, each.body) for each in found] == [("a", "2"), ("b", "[1]")]
    await commit(catalog, m.DeleteDocument("k", "a"))
    for bad in (
        catalog.documents(CTX, c.DocumentsRequest("k", "a")),
        commit(catalog, m.DeleteDocument("k", "a")),
    ):
        with pytest.raises(LakehouseError) as caught:
            await bad
        assert caught.value.kind is ErrorKind.NOT_FOUND
    with pytest.raises(LakehouseError, match="must be json"):
        await commit(catalog, m.PutDocument("k", "c", "{"))
    assert (await catalog.documents(CTX, c.DocumentsRequest("none"))).documents == ()


async def test_a_remembered_snapshot_is_of_its_version_and_caller_alone(
    catalog: Catalog, session: str
) -> None:
    await commit(catalog, *create("D1", "people"))
    await commit(catalog, *create("D2", "other"))

    async def keys(name: str, **at: int) -> list[str]:
        request = c.SnapshotRequest((name,), c.AsOf(**at))
        return [file.key for file in (await catalog.snapshot(CTX, request)).datasets[0].files]

    assert await keys("people") == await keys("people") == []
    seqs = []
    for count in range(3):
        file = file_of(session, "D1", f"f{count}")
        seqs.append(await commit(catalog, m.AddFiles("D1", (file,))))
        assert len(await keys("people")) == count + 1
        assert await keys("other") == []
    # Back and forth: what was asked last must not answer for another version.
    for count, seq in (*enumerate(seqs), *reversed(list(enumerate(seqs)))):
        assert len(await keys("people", version=seq)) == count + 1
        assert len(await keys("people")) == len(seqs)
    nobody = replace(CTX, principal=Principal("nobody", ()))
    with pytest.raises(LakehouseError) as caught:
        await catalog.snapshot(nobody, c.SnapshotRequest(("people",)))
    assert caught.value.kind is ErrorKind.FORBIDDEN
    await catalog.rename(CTX, c.RenameRequest("people", "folk"))
    renamed = await catalog.snapshot(CTX, c.SnapshotRequest(("folk",)))
    assert renamed.datasets[0].dataset.name == "folk"
    await catalog.drop(CTX, c.DropRequest("folk"))
    with pytest.raises(LakehouseError) as caught:
        await catalog.snapshot(CTX, c.SnapshotRequest(("folk",)))
    assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_a_snapshot_made_of_the_last_one_has_what_a_full_look_finds(
    catalog: Catalog, session: str
) -> None:
    """Adds, removals and replaces in turn, asked after each, some, or as of before."""
    chance = random.Random(11)
    await commit(catalog, *create("D1", "people"))
    alive: list[str] = []
    past: dict[int, list[str]] = {}
    for step in range(60):
        kind = chance.choice(("add", "add", "add", "remove", "replace"))
        if kind == "remove" and alive:
            gone = chance.sample(alive, chance.randint(1, len(alive)))
            alive = [key for key in alive if key not in gone]
            seq = await commit(catalog, m.RemoveFiles("D1", tuple(gone)))
        else:
            files = tuple(
                file_of(session, "D1", f"{step}-{at}") for at in range(chance.choice((1, 3)))
            )
            replaces = kind == "replace"
            alive = [*([] if replaces else alive), *(file.key for file in files)]
            seq = await commit(catalog, m.AddFiles("D1", files, replace=replaces))
        past[seq] = alive
        if chance.random() < 0.3:
            before = chance.choice(list(past))
            request = c.SnapshotRequest(("people",), c.AsOf(version=before))
            then = (await catalog.snapshot(CTX, request)).datasets[0].files
            assert [file.key for file in then] == past[before], step
        if chance.random() < 0.7:
            now = (await catalog.snapshot(CTX, c.SnapshotRequest(("people",)))).datasets[0].files
            assert [file.key for file in now] == alive, step
