"""Card, rename, drop, restore, purge; sessions; status and readiness."""

from __future__ import annotations

import asyncio

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import changes as m
from lakehouse.model.dataset import DatasetStatus
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.testing.clocks import ManualClock
from support_catalog import CTX, House, build_house, commit, create, file_of, key_ctx


async def kind_of(call: object) -> ErrorKind:
    with pytest.raises(LakehouseError) as caught:
        await call  # type: ignore[misc]
    return caught.value.kind


async def test_card_fields_that_are_given_replace(catalog: Catalog) -> None:
    await commit(catalog, *create("D1", "t"))
    request = c.UpdateCardRequest(
        "T", owner="bob", tags=("a",), source_system="crm", freshness_sla_seconds=60
    )
    card = (await catalog.update_card(CTX, request)).dataset.card
    assert (card.owner, card.description, card.tags) == ("bob", "people we know", ("a",))
    assert (card.lineage.source_system, card.freshness_sla_seconds) == ("crm", 60)
    same = await catalog.update_card(CTX, request)
    assert same.dataset.version == (await catalog.get(CTX, c.GetRequest("t"))).dataset.version
    bad = c.UpdateCardRequest("t", sensitivity="secret")
    assert await kind_of(catalog.update_card(CTX, bad)) is ErrorKind.INVALID
    old = c.UpdateCardRequest("t", owner="x", expected_version=1)
    assert await kind_of(catalog.update_card(CTX, old)) is ErrorKind.CONFLICT


async def test_rename_keeps_the_dataset(catalog: Catalog) -> None:
    await commit(catalog, *create("D1", "t"), *create("D2", "other"))
    done = await catalog.rename(CTX, c.RenameRequest("t", " Tea "))
    assert (done.dataset.id, done.dataset.name) == ("D1", "Tea")
    assert await kind_of(catalog.get(CTX, c.GetRequest("t"))) is ErrorKind.NOT_FOUND
    again = await catalog.rename(CTX, c.RenameRequest("TEA", "TEA"))
    assert again.dataset.name == "TEA"
    taken = catalog.rename(CTX, c.RenameRequest("tea", "Other"))
    assert await kind_of(taken) is ErrorKind.ALREADY_EXISTS
    assert await kind_of(catalog.rename(CTX, c.RenameRequest("tea", "a/b"))) is ErrorKind.INVALID
    await commit(catalog, *create("D3", "t"))


async def test_drop_and_restore(catalog: Catalog, session: str) -> None:
    a = file_of(session, "D1", "a")
    before = await commit(catalog, *create("D1", "t", a))
    await catalog.drop(CTX, c.DropRequest("t", expected_version=before))
    assert await kind_of(catalog.get(CTX, c.GetRequest("t"))) is ErrorKind.NOT_FOUND
    old = await catalog.get(CTX, c.GetRequest("t", c.AsOf(version=before)))
    assert old.dataset.status is DatasetStatus.LIVE
    await commit(catalog, *create("D2", "T"))
    assert await kind_of(catalog.restore(CTX, c.RestoreRequest("t"))) is ErrorKind.ALREADY_EXISTS
    back = await catalog.restore(CTX, c.RestoreRequest("t", "t2"))
    assert (back.dataset.id, back.dataset.name, back.dataset.row_count) == ("D1", "t2", 5)
    (found,) = (await catalog.snapshot(CTX, c.SnapshotRequest(("t2",)))).datasets
    assert [file.key for file in found.files] == [a.key]
    assert await kind_of(catalog.restore(CTX, c.RestoreRequest("t2"))) is ErrorKind.NOT_FOUND


async def test_restore_takes_the_last_dropped(catalog: Catalog) -> None:
    for dataset_id in ("D2", "D1"):
        await commit(catalog, *create(dataset_id, "t"))
        await catalog.drop(CTX, c.DropRequest("t"))
    assert (await catalog.restore(CTX, c.RestoreRequest("t"))).dataset.id == "D1"


async def test_purge_is_final(catalog: Catalog, session: str) -> None:
    version = await commit(catalog, *create("D1", "t", file_of(session, "D1", "a")))
    writer = Context(Principal("w", (Scope.WRITE,)), "r")
    purge = c.DropRequest("t", purge=True)
    assert await kind_of(catalog.drop(writer, purge)) is ErrorKind.FORBIDDEN
    await catalog.drop(CTX, purge)
    assert await kind_of(catalog.restore(CTX, c.RestoreRequest("t"))) is ErrorKind.NOT_FOUND
    old = catalog.get(CTX, c.GetRequest("t", c.AsOf(version=version)))
    assert await kind_of(old) is ErrorKind.NOT_FOUND
    await commit(catalog, *create("D2", "t"))
    await catalog.drop(CTX, c.DropRequest("t"))
    await catalog.drop(CTX, purge)
    assert not (await catalog.list(CTX, c.ListRequest(include_dropped=True))).datasets


async def test_drop_and_recreate_under_a_stale_handle(catalog: Catalog, session: str) -> None:
    """Window: drop and re-create under a stale handle: the id is the handle, not the name."""
    at = await commit(catalog, *create("D1", "t", file_of(session, "D1", "a")))
    await catalog.drop(CTX, c.DropRequest("t"))
    await commit(catalog, *create("D2", "t"))
    late = m.AddFiles("D1", (file_of(session, "D1", "b"),))
    assert await kind_of(commit(catalog, late)) is ErrorKind.CONFLICT
    need = (m.DatasetAt("D1", at),)
    assert await kind_of(commit(catalog, late, needs=need)) is ErrorKind.CONFLICT
    expected = c.DropRequest("t", expected_version=at)
    assert await kind_of(catalog.drop(CTX, expected)) is ErrorKind.CONFLICT
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.files == 0


async def test_quarantine_hides_only_itself(catalog: Catalog, session: str) -> None:
    for at in (1, 2):
        await commit(catalog, *create(f"D{at}", f"t{at}", file_of(session, f"D{at}", "a")))
    await commit(catalog, m.QuarantineDataset("D1", "bad bytes"))
    found = (await catalog.get(CTX, c.GetRequest("t1"))).dataset
    assert found.status is DatasetStatus.QUARANTINED
    with pytest.raises(LakehouseError) as caught:
        await catalog.snapshot(CTX, c.SnapshotRequest(("t1",)))
    assert (caught.value.kind, caught.value.fields["reason"]) == (ErrorKind.CONFLICT, "bad bytes")
    assert len((await catalog.snapshot(CTX, c.SnapshotRequest(("t2",)))).datasets) == 1
    await catalog.drop(CTX, c.DropRequest("t1"))
    back = await catalog.restore(CTX, c.RestoreRequest("t1"))
    assert back.dataset.status is DatasetStatus.QUARANTINED
    await commit(catalog, m.QuarantineDataset("D1", ""))
    assert (await catalog.get(CTX, c.GetRequest("t1"))).dataset.status is DatasetStatus.LIVE


async def test_sessions_open_beat_and_close(catalog: Catalog) -> None:
    request = c.SessionRequest("w1", "ingestd")
    opened = await catalog.session(key_ctx("s"), request)
    assert (await catalog.session(key_ctx("s"), request)).session_id == opened.session_id
    beat = c.SessionRequest("w1", "ingestd", opened.session_id)
    assert (await catalog.session(CTX, beat)).version == opened.version
    close = c.SessionRequest("w1", "ingestd", opened.session_id, close=True)
    closed = await catalog.session(CTX, close)
    assert closed.version == opened.version + 1
    assert (await catalog.session(CTX, close)).version == closed.version
    assert await kind_of(catalog.session(CTX, beat)) is ErrorKind.CONFLICT
    assert await kind_of(catalog.session(CTX, c.SessionRequest("", ""))) is ErrorKind.INVALID


async def test_an_object_of_an_ended_session_is_never_named(catalog: Catalog, session: str) -> None:
    a, b = file_of(session, "D1", "a"), file_of(session, "D1", "b")
    await commit(catalog, *create("D1", "t", a))
    await catalog.session(CTX, c.SessionRequest("w", "r", session, close=True))
    assert await kind_of(commit(catalog, m.AddFiles("D1", (b,)))) is ErrorKind.CONFLICT
    # One that a retained version names may be named again.
    await commit(catalog, m.RemoveFiles("D1", (a.key,)))
    await commit(catalog, m.AddFiles("D1", (a,)))
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.row_count == 5


async def test_a_silent_session_ends_after_a_minute() -> None:
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open()
    quiet = await catalog.session(CTX, c.SessionRequest("quiet", "r"))
    loud = await catalog.session(CTX, c.SessionRequest("loud", "r"))
    for _ in range(8):
        await clock.advance(10)
        await catalog.session(CTX, c.SessionRequest("loud", "r", loud.session_id))
    beat = c.SessionRequest("quiet", "r", quiet.session_id)
    # The commit that ends it runs partly in a thread, which manual time does not wait for.
    state = catalog._core.ledger
    for _ in range(500):
        if quiet.session_id not in state.state.objects.sessions:
            break
        await asyncio.sleep(0.01)
    assert await kind_of(catalog.session(CTX, beat)) is ErrorKind.CONFLICT
    await catalog.session(CTX, c.SessionRequest("loud", "r", loud.session_id))
    await catalog.close()
    # After a start a session has its minute again: nobody could be heard meanwhile.
    second = await house.open()
    await clock.advance(50)
    await second.session(CTX, c.SessionRequest("loud", "r", loud.session_id))
    await house.close()


async def test_status_and_readiness(house: House, catalog: Catalog) -> None:
    await commit(catalog, *create("D1", "t"), m.PutDocument("k", "i", "{}"))
    status = await catalog.status(CTX, c.StatusRequest())
    assert (status.version, status.datasets, status.documents, status.epoch) == (1, 1, 1, 1)
    assert status.idempotency_seconds == 24 * 3600
    assert len(status.store_id) == 26
    ready = catalog.readiness()
    assert ready.ready
    assert ready.details["version"] == "1"
    await catalog.close()
    assert not catalog.readiness().ready
    assert "closing" in catalog.readiness().reasons[0]
    assert await kind_of(commit(catalog, *create("D2", "u"))) is ErrorKind.UNAVAILABLE


async def test_a_bucket_that_is_no_store_is_left_alone() -> None:
    """Window: a typo in the config that looks like an empty store."""
    house = await build_house()
    await house.store.delete(["store.json"])
    assert await kind_of(house.open()) is ErrorKind.NOT_FOUND
    assert await house.store.list() == []
    await house.close()
