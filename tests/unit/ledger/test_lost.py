"""A chain that lost records is not continued: that would make the loss last."""

from __future__ import annotations

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token

CLOCK = SystemClock()
SETTINGS = LedgerSettings(fold_records=4, records_kept=2, inline_bytes_max=8)
OBJECT = f"datasets/{'0' * 26}/people/{'1' * 26}.parquet"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("lost", CLOCK)


async def opened(store: MemoryStore, seen: tuple[int, str] | None = None) -> Ledger[World]:
    options = OpenOptions(settings=SETTINGS, objects="datasets/", seen=seen)
    return await open_ledger(
        store, WorldMachine(), WriterInfo("a", ""), CLOCK, SeededIds(1), options
    )


async def grown(store: MemoryStore, commits: int = 12) -> tuple[int, str]:
    ledger = await opened(store)
    for i in range(commits):
        await ledger.commit(add_token(f"t{i}"))
    await ledger.collect_records()
    await ledger.close()
    return ledger.position


async def keys(store: MemoryStore, folder: str) -> list[str]:
    return [meta.key for meta in await store.list(folder)]


async def refused(store: MemoryStore, seen: tuple[int, str] | None = None) -> LakehouseError:
    before = await keys(store, "")
    with pytest.raises(LakehouseError) as caught:
        await opened(store, seen)
    assert await keys(store, "") == before
    return caught.value


@pytest.mark.parametrize("left", ["k", "p", "floor", "b"])
async def test_no_records_but_what_came_of_them(store: MemoryStore, left: str) -> None:
    await grown(store)
    folder = f"_catalog/{left}/"
    kept = await keys(store, folder)
    assert kept
    await store.delete([key for key in await keys(store, "_catalog/") if key not in kept])
    error = await refused(store)
    assert error.kind is ErrorKind.CORRUPT
    assert error.fields["missing"] == "_catalog/c/"
    assert str(error.fields["found"]).startswith(folder)
    assert "backup" in str(error.fields["hint"])


async def test_no_catalog_but_data(store: MemoryStore) -> None:
    await store.put(OBJECT, b"x")
    error = await refused(store)
    assert (error.kind, error.fields["found"]) == (ErrorKind.CORRUPT, OBJECT)


async def test_somebody_elses_files_are_no_sign_of_a_loss(store: MemoryStore) -> None:
    await store.put("datasets/2024/people/all.parquet", b"x")
    await (await opened(store)).close()


async def test_a_chain_that_ends_before_what_was_seen(store: MemoryStore) -> None:
    seen = await grown(store)
    await store.delete((await keys(store, "_catalog/c/"))[:1])
    error = await refused(store, seen)
    assert error.kind is ErrorKind.CONFLICT
    assert (error.fields["newest_record"], error.fields["seen_record"]) == (seen[0] - 1, seen[0])
    assert "node.accept_older" in str(error.fields["hint"])
    await (await opened(store)).close()
    # It has grown past that number since, with another history.
    assert (await refused(store, seen)).kind is ErrorKind.CONFLICT


async def test_nothing_left_of_what_was_seen(store: MemoryStore) -> None:
    seen = await grown(store)
    await store.delete(await keys(store, "_catalog/"))
    assert (await refused(store, seen)).kind is ErrorKind.CONFLICT


async def test_a_chain_that_went_on_is_opened(store: MemoryStore) -> None:
    seen = await grown(store)
    await (await opened(store, seen)).close()
    collected = await grown(store, 40)
    assert Layout().slot(seen[0]) not in await keys(store, "_catalog/c/")
    ledger = await opened(store, seen)
    assert ledger.position[0] > collected[0]
    await ledger.close()
