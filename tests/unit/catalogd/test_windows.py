"""The catalog's windows of the ledger page, each by its name, and what an operation costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.catalogd.settings import CatalogSettings
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model import changes as m
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.stores import Fault, FaultStore
from support_catalog import (
    CARD,
    CTX,
    House,
    build_house,
    commit,
    create,
    file_of,
    key_ctx,
    parquet_bytes,
    put_parquet,
)

# The watch for a take-over lists a key every second: kept out of what is counted here.
QUIET = replace(LedgerSettings(), fence_check_seconds=3600.0)


def faulty(house: House) -> FaultStore:
    """Put a fault store under the ledger of catalogs opened from now on."""
    store = FaultStore(house.buckets.raw("primary"))

    def raw(name: str) -> ObjectStore:
        return store

    house.buckets.raw = raw  # type: ignore[method-assign]
    return store


async def test_two_catalogs_at_once(house: House) -> None:
    """Window: two catalogd at once: the second takes over, the first is fenced and says so."""
    first = await house.open()
    await commit(first, *create("D1", "t"))
    second = await house.open(take_over=True)
    assert (await second.get(CTX, c.GetRequest("t"))).dataset.id == "D1"
    with pytest.raises(LakehouseError) as caught:
        await commit(first, *create("D2", "u"))
    assert caught.value.kind is ErrorKind.FENCED
    with pytest.raises(LakehouseError) as caught:
        await first.get(CTX, c.GetRequest("t"))
    assert caught.value.kind is ErrorKind.FENCED
    assert not first.readiness().ready
    assert "taken over" in first.readiness().reasons[0]
    await commit(second, *create("D2", "u"))


async def test_memory_is_never_ahead_of_the_bucket(house: House) -> None:
    """Window: memory ahead of the bucket: what is not durable is not seen."""
    store = faulty(house)
    settings = replace(LedgerSettings(), append_budget_seconds=0.2, backoff_seconds=0.01)
    catalog = await house.open(ledger=settings)
    for _ in range(200):
        store.inject("put", Fault.BEFORE)
    with pytest.raises(LakehouseError) as caught:
        await catalog.commit(key_ctx("k"), c.CommitRequest(create("D1", "t")))
    assert caught.value.kind is ErrorKind.UNKNOWN
    with pytest.raises(LakehouseError) as caught:
        await catalog.get(CTX, c.GetRequest("t"))
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert not catalog.readiness().ready


async def test_a_put_that_times_out_is_settled(house: House) -> None:
    """Window: PUT times out: done though it said not; the retry with the key has one effect."""
    store = faulty(house)
    catalog = await house.open()
    for at in range(10):
        store.inject("put", Fault.AFTER if at % 2 else Fault.BEFORE, ErrorKind.TIMEOUT)
        request = c.CommitRequest(create(f"D{at}", f"t{at}"))
        done = await catalog.commit(key_ctx(f"k{at}"), request)
        assert (await catalog.commit(key_ctx(f"k{at}"), request)).version == done.version
    assert len((await catalog.list(CTX, c.ListRequest())).datasets) == 10
    again = await house.open()
    assert len((await again.list(CTX, c.ListRequest())).datasets) == 10


async def test_a_client_that_goes_away_cancels_nothing(house: House, catalog: Catalog) -> None:
    """Window: client disconnects mid-commit."""
    request = c.CommitRequest(create("D1", "t"))
    task = asyncio.create_task(catalog.commit(key_ctx("k"), request))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = await catalog.commit(key_ctx("k"), request)
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.version == done.version == 1


async def test_a_deadline_that_passes_says_unknown(house: House) -> None:
    store = faulty(house)
    catalog = await house.open()
    for _ in range(3):
        store.inject("put", Fault.BEFORE)
    ctx = replace(key_ctx("k"), deadline=SystemClock().monotonic() + 0.01)
    request = c.CommitRequest(create("D1", "t"))
    with pytest.raises(LakehouseError) as caught:
        await catalog.commit(ctx, request)
    assert caught.value.kind is ErrorKind.UNKNOWN
    assert caught.value.fields["commit_state"] == "unknown"
    done = await catalog.commit(key_ctx("k"), request)
    assert done.version == 1


async def test_a_full_queue_says_so(house: House) -> None:
    """Window: one slow PUT stalls all: the queue has an end, and its end an answer."""
    settings = replace(LedgerSettings(), queue_max=8)
    catalog = await house.open(ledger=settings)
    calls = [commit(catalog, *create(f"D{at}", f"t{at}")) for at in range(200)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in answers if isinstance(each, LakehouseError)]
    assert refused
    assert {error.kind for error in refused} == {ErrorKind.UNAVAILABLE}
    found = (await catalog.list(CTX, c.ListRequest(limit=1000))).datasets
    assert len(found) == 200 - len(refused)


async def counted(house: House, call: object) -> dict[str, int]:
    before = dict(house.buckets.footprint("primary").requests)
    await call  # type: ignore[misc]
    after = house.buckets.footprint("primary").requests
    found = {each: after[each] - before.get(each, 0) for each in after}
    return {each: count for each, count in found.items() if count}


@pytest.mark.parametrize("datasets", [10, 1000])
async def test_requests_do_not_grow_with_the_datasets(datasets: int) -> None:
    house = await build_house()
    catalog = await house.open(ledger=QUIET)
    session_id = (await catalog.session(CTX, c.SessionRequest("w", "r"))).session_id
    step = 100
    for start in range(0, datasets, step):
        some = range(start, min(start + step, datasets))
        await commit(catalog, *[each for at in some for each in create(f"D{at}", f"set {at}")])
    new = create("N", "new", file_of(session_id, "N", "a"))
    assert await counted(house, commit(catalog, *new)) == {"put": 1, "list": 1}
    foreign = await put_parquet(house, "raw/a.parquet", parquet_bytes())
    request = c.RegisterRequest("foreign", (foreign,), CARD)
    cost = {"put": 1, "list": 1, "head": 1, "get": 1}
    assert await counted(house, catalog.register(CTX, request)) == cost
    for call in (
        catalog.get(CTX, c.GetRequest("new")),
        catalog.list(CTX, c.ListRequest(query="set")),
        catalog.snapshot(CTX, c.SnapshotRequest(("new", "foreign"))),
        catalog.files(CTX, c.PageRequest("new")),
        catalog.versions(CTX, c.PageRequest("new")),
        catalog.status(CTX, c.StatusRequest()),
    ):
        assert await counted(house, call) == {}
    change = c.UpdateCardRequest("new", owner="bob")
    assert await counted(house, catalog.update_card(CTX, change)) == {"put": 1, "list": 1}
    await house.close()


async def test_a_group_shares_its_commit(house: House) -> None:
    catalog = await house.open(ledger=QUIET)

    async def many() -> None:
        await asyncio.gather(*(commit(catalog, *create(f"D{at}", f"t{at}")) for at in range(64)))

    cost = await counted(house, many())
    assert cost["put"] <= 3
    assert cost["put"] == cost["list"]


async def test_cold_start_costs_few_requests() -> None:
    """At most 20 requests after a clean stop, however many datasets there are."""
    house = await build_house()
    catalog = await house.open(ledger=QUIET)
    for start in range(0, 3000, 500):
        some = range(start, start + 500)
        await commit(catalog, *[each for at in some for each in create(f"D{at}", f"set {at}")])
    await catalog.close()
    cost = await counted(house, house.open(ledger=QUIET))
    assert sum(cost.values()) <= 20, cost
    await house.close()


def test_settings_have_defaults_of_the_design() -> None:
    settings = CatalogSettings()
    assert (settings.session_seconds, settings.undrop_seconds, settings.history_seconds) == (
        60,
        7 * 24 * 3600,
        30 * 24 * 3600,
    )


async def test_a_drop_waits_for_the_name(catalog: Catalog) -> None:
    """A refusal that rests on a queued predecessor is true once that one is durable."""
    await commit(catalog, *create("D1", "t"))
    answers = await asyncio.gather(
        catalog.drop(CTX, c.DropRequest("t")),
        commit(catalog, *create("D2", "t")),
        commit(catalog, *create("D3", "t")),
        commit(catalog, m.RenameDataset("D2", "u")),
        commit(catalog, *create("D4", "t")),
        return_exceptions=True,
    )
    assert isinstance(answers[2], LakehouseError)
    assert answers[2].kind is ErrorKind.ALREADY_EXISTS
    assert sum(isinstance(each, Exception) for each in answers) == 1
    assert (await catalog.get(CTX, c.GetRequest("t"))).dataset.id == "D4"
    assert (await catalog.get(CTX, c.GetRequest("u"))).dataset.id == "D2"
