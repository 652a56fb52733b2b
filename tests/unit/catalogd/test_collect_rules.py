"""Each rule of collection by itself: what is not to go, and what is not to be forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lakehouse.catalogd import collect
from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model.changes import AddFiles, DropDataset, RemoveFiles
from lakehouse.model.dataset import DataFile
from lakehouse.testing.clocks import ManualClock
from support_catalog import CTX, House, build_house, commit, create, file_of

DAY = 86_400
NOW = LedgerSettings(reader_retention_seconds=0.0)


async def opened(house: House) -> tuple[Catalog, str]:
    """A catalog that keeps no history, and a session on it."""
    catalog = await house.open(history_seconds=0.0, undrop_seconds=0.0, ledger=NOW)
    session = await catalog.session(CTX, c.SessionRequest("w", "ingestd"))
    return catalog, session.session_id


async def put(house: House, *files: DataFile) -> None:
    for file in files:
        await house.store.put(file.key, b"x" * file.size_bytes)


async def end(catalog: Catalog, session: str) -> None:
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session, close=True))


async def collect_all(catalog: Catalog, times: int = 3) -> None:
    for _ in range(times):
        await catalog.collect(CTX, c.PlanRequest())


async def left(house: House) -> set[str]:
    found = [*await house.store.list("datasets/"), *await house.store.list("data/")]
    return {meta.key.rpartition("/")[2] for meta in found}


async def test_a_file_that_was_removed_and_added_again_stays(house: House) -> None:
    catalog, session = await opened(house)
    file = file_of(session, "d1", "a")
    await put(house, file)
    await commit(catalog, *create("d1", "people", file))
    await end(catalog, session)
    await commit(catalog, RemoveFiles("d1", (file.key,)))
    await commit(catalog, AddFiles("d1", (file,)))
    await commit(catalog, *create("d2", "other"))
    await collect_all(catalog)
    assert await left(house) == {"a.parquet"}


async def test_a_foreign_object_is_never_deleted(house: House) -> None:
    catalog, session = await opened(house)
    foreign = replace(file_of(session, "d1", "e"), key="data/2024/d1/e.parquet", external=True)
    await put(house, foreign)
    await commit(catalog, *create("d1", "people", foreign))
    await end(catalog, session)
    await commit(catalog, RemoveFiles("d1", (foreign.key,)))
    await commit(catalog, *create("d2", "other"))
    await collect_all(catalog)
    assert await left(house) == {"e.parquet"}
    await commit(catalog, DropDataset("d1"))
    await commit(catalog, *create("d3", "third"))
    await collect_all(catalog)
    assert await left(house) == {"e.parquet"}


@pytest.mark.parametrize("writer_drops", [True, False])
async def test_an_object_that_another_dataset_took_over_stays(
    house: House, writer_drops: bool
) -> None:
    """Removed from one of two datasets that name it, whichever it was written for."""
    catalog, session = await opened(house)
    file = file_of(session, "d1", "a")
    await put(house, file)
    await commit(catalog, *create("d1", "one", file))
    await commit(catalog, *create("d2", "two", file))
    await end(catalog, session)
    await commit(catalog, RemoveFiles("d1" if writer_drops else "d2", (file.key,)))
    await commit(catalog, *create("d3", "other"))
    await collect_all(catalog)
    assert await left(house) == {"a.parquet"}


async def test_an_ended_session_is_swept_until_no_late_write_can_come() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    settings = LedgerSettings(reader_retention_seconds=3600.0)
    catalog = await house.open(ledger=settings)
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    await end(catalog, session)
    await collect_all(catalog)
    late = file_of(session, "d1", "late")
    await put(house, late)
    clock.jump(3601)
    await collect_all(catalog)
    clock.jump(3601)
    await collect_all(catalog)
    assert await left(house) == set()
    await house.close()


async def test_an_object_that_was_given_up_is_not_named_again(house: House) -> None:
    """Purged, but not yet condemned: a session that lives does not bring it back."""
    catalog, session = await opened(house)
    file = file_of(session, "d1", "a")
    await put(house, file)
    await commit(catalog, *create("d1", "one", file))
    await catalog.drop(CTX, c.DropRequest("one", purge=True))
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, *create("d2", "two", file))
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.message == "the object was given up"


async def test_what_one_collection_cannot_take_is_taken_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, session = await opened(house)
    files = [file_of(session, "d1", f"f{at}") for at in range(6)]
    await put(house, *files)
    await commit(catalog, *create("d1", "people", *files[:5]))
    await end(catalog, session)
    await collect_all(catalog)  # the session is forgotten: its folder is not listed again
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    kept = file_of(session, "d1", "kept")
    await put(house, kept)
    await commit(catalog, AddFiles("d1", (kept,), replace=True))
    monkeypatch.setattr(collect, "_KEYS_MAX", 2)
    for _ in range(2):
        report = await catalog.collect(CTX, c.PlanRequest())
        assert len(report.objects) == 2
    catalog = await house.open(history_seconds=0.0, ledger=NOW, take_over=True)
    await collect_all(catalog, 4)
    assert await left(house) - {"f5.parquet"} == {"kept.parquet"}


async def test_a_clock_that_leapt_gives_nothing_up() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open(ledger=NOW)
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    file = file_of(session, "d1", "a")
    await put(house, file)
    await commit(catalog, *create("d1", "people", file))
    await catalog.drop(CTX, c.DropRequest("people"))
    await end(catalog, session)
    clock.jump(40 * DAY)
    with pytest.raises(LakehouseError, match="clock") as caught:
        await catalog.collect(CTX, c.PlanRequest())
    assert caught.value.kind is ErrorKind.CONFLICT
    assert await left(house) == {"a.parquet"}
    restored = await catalog.restore(CTX, c.RestoreRequest("people"))
    assert restored.dataset.files == 1
    await house.close()


async def test_a_store_that_was_idle_for_long_is_collected() -> None:
    """Both times went on together: nothing leapt."""
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open(ledger=NOW, collect_seconds=0.0, session_seconds=1e9)
    await commit(catalog, *create("d1", "people"))
    await catalog.drop(CTX, c.DropRequest("people"))
    clock._move_to(clock._monotonic_us + 40 * DAY * 1_000_000)
    await catalog.collect(CTX, c.PlanRequest())
    listed = await catalog.list(CTX, c.ListRequest(include_dropped=True))
    assert listed.datasets == ()
    await house.close()


async def digest_conflicts(catalog: Catalog, digest: str) -> bool:
    from lakehouse.model.changes import DigestAbsent, SetCard
    from support_catalog import CARD

    try:
        await commit(catalog, SetCard("d1", CARD), needs=(DigestAbsent("d1", digest),))
    except LakehouseError as error:
        return error.kind is ErrorKind.CONFLICT
    return False


async def test_a_content_whose_files_were_removed_can_come_again(
    catalog: Catalog, session: str
) -> None:
    one, two, three = (file_of(session, "d1", name) for name in "abc")
    await commit(catalog, *create("d1", "people", one, digest="A"))
    await commit(catalog, AddFiles("d1", (two, three), content_digest="B"))
    await commit(catalog, RemoveFiles("d1", (one.key, two.key)))
    assert not await digest_conflicts(catalog, "A")
    assert await digest_conflicts(catalog, "B")


async def test_a_compaction_keeps_what_was_ingested_until_its_files_are_removed(
    catalog: Catalog, session: str
) -> None:
    one, two, packed = (file_of(session, "d1", name) for name in "abp")
    other = file_of(session, "d1", "z")
    await commit(catalog, *create("d1", "people", one, digest="A"))
    await commit(catalog, AddFiles("d1", (two,), content_digest="B"))
    await commit(
        catalog,
        RemoveFiles("d1", (one.key, two.key), operation="compact"),
        AddFiles("d1", (packed,), operation="compact"),
    )
    await commit(catalog, AddFiles("d1", (other,), content_digest="C"))
    assert await digest_conflicts(catalog, "A")
    assert await digest_conflicts(catalog, "B")
    await commit(catalog, RemoveFiles("d1", (packed.key,)))
    assert not await digest_conflicts(catalog, "A")
    assert not await digest_conflicts(catalog, "B")
    assert await digest_conflicts(catalog, "C")


async def test_a_replace_that_a_collection_forgot_is_still_seen(house: House) -> None:
    catalog, session = await opened(house)
    old, new = file_of(session, "d1", "a"), file_of(session, "d1", "b")
    await put(house, old, new)
    await commit(catalog, *create("d1", "people", old))

    async def shown() -> list[str]:
        answer = await catalog.snapshot(CTX, c.SnapshotRequest(("people",)))
        return [file.key for file in answer.datasets[0].files]

    assert await shown() == [old.key]
    await commit(catalog, AddFiles("d1", (new,), replace=True))
    await commit(catalog, *create("d2", "other"))
    await collect_all(catalog)
    assert await shown() == [new.key]
