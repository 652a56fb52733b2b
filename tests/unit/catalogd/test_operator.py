"""Import, dedupe, fsck, collect: the operator's calls."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import changes as m
from lakehouse.model.dataset import DataFile, DatasetStatus
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.testing.clocks import ManualClock
from support_catalog import (
    CARD,
    CTX,
    House,
    build_house,
    commit,
    create,
    file_of,
    parquet_bytes,
    put_parquet,
)

T0 = datetime(2026, 3, 1, tzinfo=UTC)
DRY = c.PlanRequest(dry_run=True)
DAY = 24 * 3600


def manifest(
    name: str, keys: tuple[str, ...], row_count: int | None, day: int
) -> c.ImportedDataset:
    return c.ImportedDataset(name, keys, row_count, T0 + timedelta(days=day), card=CARD)


async def imported(house: House, catalog: Catalog) -> c.ImportReport:
    """Five manifests of three names over four objects, as a gateless catalog leaves them."""
    for at in range(4):
        await put_parquet(house, f"old/{at}.parquet", parquet_bytes(at + 1, start=10 * at))
    datasets = (
        manifest("Playbooks", ("old/0.parquet", "old/1.parquet"), None, 9),
        manifest("playbooks", ("old/1.parquet",), 2, 1),
        manifest("PLAYBOOKS", ("old/1.parquet", "old/2.parquet"), 5, 2),
        manifest("solo", ("old/3.parquet",), 4, 1),
        manifest("torn", ("old/3.parquet", "old/gone.parquet"), 4, 1),
    )
    return await catalog.import_datasets(CTX, c.ImportRequest(datasets))


async def collect_as_planned(catalog: Catalog) -> c.CollectReport:
    """As an operator does who has seen what goes, and so that the clock is right."""
    plan = (await catalog.collect(CTX, c.PlanRequest(dry_run=True))).plan
    return await catalog.collect(CTX, c.PlanRequest(plan=plan))


async def test_duplicates_are_importable(house: House, catalog: Catalog) -> None:
    report = await imported(house, catalog)
    assert (report.imported, report.duplicates) == (5, 2)
    found = (await catalog.list(CTX, c.ListRequest())).datasets
    assert sorted(d.name.casefold() for d in found) == ["playbooks"] * 3 + ["solo", "torn"]
    # The name means the preferred one: with a row count, then the newest.
    best = (await catalog.get(CTX, c.GetRequest("playbooks"))).dataset
    assert (best.name, best.row_count) == ("PLAYBOOKS", 5)
    assert best.updated_at == T0 + timedelta(days=2)
    unknown = next(d for d in found if d.name == "Playbooks")
    assert unknown.row_count is None
    again = await imported(house, catalog)
    assert (again.imported, again.version) == (0, report.version)


async def test_one_bad_manifest_hides_no_other(house: House, catalog: Catalog) -> None:
    """Window: one bad manifest hides the others (quarantine it, serve the rest)."""
    await imported(house, catalog)
    torn = (await catalog.get(CTX, c.GetRequest("torn"))).dataset
    assert (torn.status, torn.files) == (DatasetStatus.QUARANTINED, 1)
    assert (await catalog.get(CTX, c.GetRequest("solo"))).dataset.status is DatasetStatus.LIVE


async def test_dedupe_conserves_the_union_of_rows(house: House, catalog: Catalog) -> None:
    await imported(house, catalog)
    dry = await catalog.dedupe(CTX, DRY)
    assert not dry.applied
    assert (dry.datasets_before, dry.datasets_after) == (5, 3)
    (group,) = dry.groups
    assert (group.name, len(group.dropped_ids)) == ("PLAYBOOKS", 2)
    assert (group.files_conserved, group.rows_conserved) == (3, 1 + 2 + 3)
    assert (await catalog.dedupe(CTX, DRY)).plan == dry.plan
    done = await catalog.dedupe(CTX, c.PlanRequest(plan=dry.plan))
    assert done.applied
    assert done.groups == dry.groups
    (found,) = (await catalog.snapshot(CTX, c.SnapshotRequest(("playbooks",)))).datasets
    assert found.dataset.id == group.kept_id
    assert sorted(file.key for file in found.files) == [f"old/{at}.parquet" for at in range(3)]
    assert found.dataset.row_count == 6
    after = await catalog.dedupe(CTX, c.PlanRequest())
    assert (after.applied, after.groups, after.version) == (False, (), done.version)


async def test_a_name_means_a_live_dataset_before_a_quarantined_one(
    house: House, catalog: Catalog
) -> None:
    await imported(house, catalog)
    best = (await catalog.get(CTX, c.GetRequest("playbooks"))).dataset
    await commit(catalog, m.QuarantineDataset(best.id, "damaged"))
    found = (await catalog.get(CTX, c.GetRequest("playbooks"))).dataset
    assert (found.status, found.row_count) == (DatasetStatus.LIVE, 2)
    await commit(catalog, m.QuarantineDataset(best.id, ""))
    assert (await catalog.get(CTX, c.GetRequest("playbooks"))).dataset.id == best.id


async def test_a_stale_dedupe_plan_is_a_conflict(house: House, catalog: Catalog) -> None:
    await imported(house, catalog)
    plan = (await catalog.dedupe(CTX, DRY)).plan
    await catalog.drop(CTX, c.DropRequest("playbooks"))
    with pytest.raises(LakehouseError) as caught:
        await catalog.dedupe(CTX, c.PlanRequest(plan=plan))
    assert caught.value.kind is ErrorKind.CONFLICT


async def test_a_dropped_holder_gives_its_name_to_the_next(house: House, catalog: Catalog) -> None:
    await imported(house, catalog)
    rows = []
    for _ in range(3):
        rows.append((await catalog.get(CTX, c.GetRequest("playbooks"))).dataset.row_count)
        await catalog.drop(CTX, c.DropRequest("playbooks"))
    assert rows == [5, 2, None]
    with pytest.raises(LakehouseError):
        await catalog.get(CTX, c.GetRequest("playbooks"))


async def test_what_cannot_be_joined_is_left_and_reported(house: House, catalog: Catalog) -> None:
    await put_parquet(house, "a.parquet", parquet_bytes(2))
    await put_parquet(house, "b.parquet", parquet_bytes(other=[1.5]))
    await put_parquet(house, "c.parquet", parquet_bytes(2))
    datasets = (
        manifest("t", ("a.parquet",), 2, 1),
        manifest("t", ("b.parquet",), None, 2),
        manifest("t", ("c.parquet",), None, 3),
    )
    await catalog.import_datasets(CTX, c.ImportRequest(datasets))
    report = await catalog.dedupe(CTX, c.PlanRequest())
    assert report.skipped == ("t",)
    (group,) = report.groups
    # The same bytes under another key are the same rows: they do not count twice.
    assert (group.files_conserved, group.rows_conserved, len(group.dropped_ids)) == (1, 2, 1)
    assert len((await catalog.list(CTX, c.ListRequest())).datasets) == 2


async def test_row_changes_are_not_joined(house: House, catalog: Catalog) -> None:
    """Their keys hide rows of their own dataset, by a seq that is of it."""
    await imported(house, catalog)
    session = await open_session(catalog)
    state = (await catalog.list(CTX, c.ListRequest())).datasets
    one = next(each for each in state if each.name == "playbooks")
    change = [
        replace(file_of(session, one.id, name, 1), content=name, rows_hash="")
        for name in ("rows", "keys", "events")
    ]
    await commit(catalog, m.SetPrimaryKey(one.id, ("id",)), m.AddFiles(one.id, tuple(change)))
    report = await catalog.dedupe(CTX, DRY)
    assert report.groups == ()
    assert [each.casefold() for each in report.skipped] == ["playbooks: has row changes"]


async def test_dedupe_survives_a_restart_at_any_time(house: House) -> None:
    """Window: dedupe crashes midway: it is one commit, so there is no midway."""
    first = await house.open()
    await imported(house, first)
    dry = await first.dedupe(CTX, DRY)
    before = await house.store.list("_catalog/c/")
    await first.dedupe(CTX, c.PlanRequest(plan=dry.plan))
    after = await house.store.list("_catalog/c/")
    assert len(after) == len(before) + 1
    second = await house.open()
    assert not (await second.dedupe(CTX, DRY)).groups
    assert (await second.get(CTX, c.GetRequest("playbooks"))).dataset.row_count == 6


async def test_fsck_finds_damage_and_quarantines(house: House, catalog: Catalog) -> None:
    for at in range(5):
        ref = await put_parquet(house, f"raw/{at}.parquet", parquet_bytes(at + 1))
        await catalog.register(CTX, c.RegisterRequest(f"t{at}", (ref,), CARD))
    clean = await catalog.fsck(CTX, c.FsckRequest(deep=True))
    assert (clean.findings, clean.objects_checked) == ((), 5)
    await house.store.delete(["raw/0.parquet"])
    await house.store.put("raw/1.parquet", b"short")
    flipped = bytearray(await house.store.get("raw/2.parquet"))
    flipped[40] ^= 1
    await house.store.put("raw/2.parquet", bytes(flipped))
    await house.store.put("datasets/nobody/D9/x.parquet", b"x")
    shallow = await catalog.fsck(CTX, c.FsckRequest())
    assert [(f.kind, f.dataset) for f in shallow.findings] == [
        ("orphan", ""),
        ("dangling", "t0"),
        ("size", "t1"),
    ]
    deep = await catalog.fsck(CTX, c.FsckRequest(deep=True))
    assert [(f.kind, f.dataset) for f in deep.findings][1:] == [
        ("dangling", "t0"),
        ("size", "t1"),
        ("checksum", "t2"),
    ]
    assert (await catalog.get(CTX, c.GetRequest("t0"))).dataset.status is DatasetStatus.LIVE
    with pytest.raises(LakehouseError) as caught:
        await catalog.fsck(CTX, c.FsckRequest(dry_run=False, plan=deep.plan))
    assert caught.value.kind is ErrorKind.CONFLICT
    done = await catalog.fsck(CTX, c.FsckRequest(dry_run=False, deep=True, plan=deep.plan))
    assert (done.applied, done.quarantined) == (True, ("t0", "t1", "t2"))
    for at, status in enumerate(["quarantined"] * 3 + ["live"] * 2):
        assert (await catalog.get(CTX, c.GetRequest(f"t{at}"))).dataset.status.value == status
    # What is whole again is shown again; a checksum must be seen to be believed.
    flipped[40] ^= 1
    await house.store.put("raw/0.parquet", parquet_bytes(1))
    await house.store.put("raw/2.parquet", bytes(flipped))
    await catalog.fsck(CTX, c.FsckRequest(dry_run=False))
    statuses = [
        (await catalog.get(CTX, c.GetRequest(f"t{at}"))).dataset.status.value for at in range(3)
    ]
    assert statuses == ["live", "quarantined", "quarantined"]
    await catalog.fsck(CTX, c.FsckRequest(dry_run=False, deep=True))
    assert (await catalog.get(CTX, c.GetRequest("t2"))).dataset.status is DatasetStatus.LIVE


async def test_operator_calls_need_the_scope(catalog: Catalog) -> None:
    writer = Context(Principal("w", (Scope.WRITE,)), "r")
    for call in (
        catalog.dedupe(writer, DRY),
        catalog.fsck(writer, c.FsckRequest()),
        catalog.collect(writer, DRY),
        catalog.import_datasets(writer, c.ImportRequest(())),
    ):
        with pytest.raises(LakehouseError) as caught:
            await call
        assert caught.value.kind is ErrorKind.FORBIDDEN


async def written(house: House, session_id: str, dataset_id: str, name: str) -> DataFile:
    data = parquet_bytes()
    key = f"datasets/{session_id}/{dataset_id}/{name}.parquet"
    await house.store.put(key, data)
    import hashlib

    return DataFile(key, len(data), 3, hashlib.sha256(data).hexdigest())


async def open_session(catalog: Catalog) -> str:
    return (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id


async def end_session(catalog: Catalog, session_id: str) -> None:
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session_id, close=True))


async def keys_of(house: House) -> list[str]:
    return [meta.key.rsplit("/", 1)[1] for meta in await house.store.list("datasets/")]


async def test_collect_gives_up_first_and_deletes_later() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open()
    session_id = await open_session(catalog)
    kept, old, lost = [await written(house, session_id, "D1", n) for n in ("kept", "old", "lost")]
    first = await commit(catalog, *create("D1", "t", old))
    await commit(catalog, m.AddFiles("D1", (kept,)), m.RemoveFiles("D1", (old.key,)))
    await house.store.put("datasets/foreign.parquet", b"not ours")
    # The session lives: what it wrote may still be named.
    assert (await catalog.collect(CTX, DRY)).objects == ()
    await end_session(catalog, session_id)
    dry = await catalog.collect(CTX, DRY)
    assert dry.objects == (lost.key,)
    assert not dry.applied
    done = await catalog.collect(CTX, c.PlanRequest(plan=dry.plan))
    assert done.objects == (lost.key,)
    assert len(await keys_of(house)) == 4
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, m.AddFiles("D1", (lost,)))
    assert caught.value.kind is ErrorKind.CONFLICT
    clock.jump(3601)
    await collect_as_planned(catalog)
    assert sorted(await keys_of(house)) == ["foreign.parquet", "kept.parquet", "old.parquet"]
    # A month later the horizon passes the removal: version 1 can no longer be read.
    clock.jump(31 * DAY)
    report = await collect_as_planned(catalog)
    assert (report.objects, report.size_bytes) == ((old.key,), old.size_bytes)
    assert report.horizon > first
    with pytest.raises(LakehouseError) as caught:
        await catalog.get(CTX, c.GetRequest("t", c.AsOf(version=first)))
    assert caught.value.fields["horizon"] == report.horizon
    clock.jump(3601)
    await collect_as_planned(catalog)
    assert sorted(await keys_of(house)) == ["foreign.parquet", "kept.parquet"]
    state = catalog._core.ledger.state
    assert (len(state.ended), len(state.objects.condemned), len(state.dirty)) == (0, 0, 0)
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.files == 1
    again = await house.open()
    assert [f.key for f in (await again.files(CTX, c.PageRequest("t"))).files] == [kept.key]
    await house.close()


async def test_collect_purges_what_was_dropped_a_week_ago() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open()
    session_id = await open_session(catalog)
    for name in ("a", "b"):
        file = await written(house, session_id, f"D{name}", name)
        await commit(catalog, *create(f"D{name}", name, file))
    ref = await put_parquet(house, "raw/mine.parquet")
    await catalog.register(CTX, c.RegisterRequest("foreign", (ref,), CARD))
    await end_session(catalog, session_id)
    await catalog.drop(CTX, c.DropRequest("a"))
    await catalog.drop(CTX, c.DropRequest("foreign"))
    clock.jump(6 * DAY)
    assert (await collect_as_planned(catalog)).objects == ()
    await catalog.drop(CTX, c.DropRequest("b"))
    clock.jump(2 * DAY)
    report = await collect_as_planned(catalog)
    assert [key.rsplit("/", 1)[1] for key in report.objects] == ["a.parquet"]
    await catalog.restore(CTX, c.RestoreRequest("b"))
    with pytest.raises(LakehouseError):
        await catalog.restore(CTX, c.RestoreRequest("a"))
    clock.jump(3601)
    await collect_as_planned(catalog)
    assert await keys_of(house) == ["b.parquet"]
    assert await house.store.get("raw/mine.parquet")
    await house.close()


async def test_a_collect_plan_that_no_longer_holds_is_a_conflict() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open()
    session_id = await open_session(catalog)
    await written(house, session_id, "D1", "x")
    await end_session(catalog, session_id)
    plan = (await catalog.collect(CTX, DRY)).plan
    other = await open_session(catalog)
    await written(house, other, "D1", "y")
    await end_session(catalog, other)
    with pytest.raises(LakehouseError) as caught:
        await catalog.collect(CTX, c.PlanRequest(plan=plan))
    assert caught.value.kind is ErrorKind.CONFLICT
    with pytest.raises(LakehouseError):
        await catalog.collect(CTX, c.PlanRequest(plan="99999-x"))
    await house.close()


async def test_an_adopted_object_outlives_the_dataset_it_was_written_for() -> None:
    """Dedupe moves a native file into another dataset; purging the first must not take it."""
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open()
    ref = replace(await put_parquet(house, "raw/a.parquet", parquet_bytes(2)), copy=True)
    await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD))
    await put_parquet(house, "raw/b.parquet", parquet_bytes(3, start=50))
    newer = c.ImportedDataset("t", ("raw/b.parquet",), 3, T0 + timedelta(days=999), card=CARD)
    await catalog.import_datasets(CTX, c.ImportRequest((newer,)))
    report = await catalog.dedupe(CTX, c.PlanRequest())
    assert report.groups[0].rows_conserved == 5
    await catalog.close()
    catalog = await house.open()
    for _ in range(3):
        clock.jump(40 * DAY)
        await collect_as_planned(catalog)
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.row_count == 5
    found = await catalog.fsck(CTX, c.FsckRequest(deep=True))
    assert (found.findings, found.objects_checked) == ((), 2)
    await house.close()
