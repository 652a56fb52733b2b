"""Damage at rest: what the chain keeps twice is replayed, what it does not is refused by name."""

from __future__ import annotations

import logging

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.ledger.layout import Layout, number_of
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger, read_ledger
from lakehouse.ledger.parquet import from_parquet
from lakehouse.ledger.record import decode
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token

CLOCK = SystemClock()
# Small numbers, so that a few commits make checkpoints and packs.
SETTINGS = LedgerSettings(fold_records=4, records_kept=2, inline_bytes_max=64)
COMMITS = 30


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("damage", CLOCK)


async def opened(store: MemoryStore) -> Ledger[World]:
    options = OpenOptions(settings=SETTINGS)
    return await open_ledger(
        store, WorldMachine(), WriterInfo("a", ""), CLOCK, SeededIds(1), options
    )


async def grown(store: MemoryStore, *, collect: bool = True) -> World:
    """A closed ledger of ``COMMITS`` commits, some packed, and its state."""
    ledger = await opened(store)
    for i in range(COMMITS):
        await ledger.commit(add_token(f"t{i}"))
        if collect and i % 10 == 9:
            await ledger.collect_records()
    state = ledger.state
    await ledger.close()
    return state


async def keys(store: MemoryStore, folder: str) -> list[str]:
    return [meta.key for meta in await store.list(f"_catalog/{folder}/")]


async def checkpoints(store: MemoryStore) -> list[str]:
    """Keys of the roots."""
    return [key for key in await keys(store, "k") if "/root-" in key]


async def named(store: MemoryStore) -> str:
    """Key of the root that the newest record names."""
    newest = (await keys(store, "c"))[0]
    record = decode(await store.get(newest), Layout(), number_of(newest, ".json"))
    assert record.checkpoint is not None
    return record.checkpoint.key


async def flip(store: MemoryStore, key: str) -> None:
    data = bytearray(await store.get(key))
    data[len(data) // 2] ^= 1
    await store.put(key, bytes(data))


async def whole(store: MemoryStore, state: World, caplog: pytest.LogCaptureFixture) -> str:
    """Open, check that nothing is lost, write, heal, open again without a word; what was said."""
    with caplog.at_level(logging.WARNING, "lakehouse.ledger"):
        ledger = await opened(store)
    said = ledger.damage
    assert said
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    assert (ledger.state, ledger.seq) == (state, COMMITS)
    done = await ledger.commit(add_token("after"))
    assert done.seq == COMMITS + 1
    await ledger.collect_records()
    await ledger.close()
    caplog.clear()
    again = await opened(store)
    assert again.damage == ""
    assert again.state == done.state
    await again.close()
    assert not caplog.records
    return said


async def refused(store: MemoryStore) -> LakehouseError:
    before = await keys(store, "c")
    with pytest.raises(LakehouseError) as caught:
        await opened(store)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert await keys(store, "c") == before
    return caught.value


async def test_collection_keeps_two_checkpoints_and_every_record(store: MemoryStore) -> None:
    await grown(store)
    ledger = await opened(store)
    await ledger.commit(add_token("more"))
    await ledger.collect_records()
    assert len(await checkpoints(store)) >= 2
    assert len(await keys(store, "p")) >= 2
    assert len(await keys(store, "c")) < COMMITS
    await ledger.close()


@pytest.mark.parametrize("kind", ["root", "other", "missing root"])
async def test_a_damaged_checkpoint_is_stepped_over(
    store: MemoryStore, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = await grown(store)
    newest = await named(store)
    rows = from_parquet(await store.get(newest)).to_pylist()
    part = next(row["key"] for row in rows if row["kind"] == "part")
    if kind == "missing root":
        await store.delete([newest])
    else:
        await flip(store, newest if kind == "root" else part)
    assert (await read_ledger(store, WorldMachine()))[0] == state
    said = await whole(store, state, caplog)
    assert said.startswith(part if kind == "other" else newest)
    # A part that did not change is one object of two checkpoints.
    assert kind == "other" or "the checkpoint at record" in said


@pytest.mark.parametrize("collect", [True, False])
async def test_without_any_checkpoint_all_records_are_replayed(
    store: MemoryStore, collect: bool, caplog: pytest.LogCaptureFixture
) -> None:
    state = await grown(store, collect=collect)
    assert bool(await keys(store, "p")) is collect
    for key in await checkpoints(store):
        await flip(store, key)
    assert "the first record on" in await whole(store, state, caplog)


async def test_a_damaged_pack_is_no_matter_while_a_checkpoint_is_whole(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    state = await grown(store)
    await flip(store, (await keys(store, "p"))[0])
    ledger = await opened(store)
    assert (ledger.damage, ledger.state) == ("", state)
    await ledger.close()
    await flip(store, await named(store))
    ledger = await opened(store)
    assert ledger.damage
    assert ledger.state == state
    await ledger.close()


async def test_checkpoints_and_a_pack_damaged_are_refused_by_name(store: MemoryStore) -> None:
    await grown(store)
    newest = await named(store)
    for key in await checkpoints(store):
        await flip(store, key)
    pack = (await keys(store, "p"))[0]
    await flip(store, pack)
    error = await refused(store)
    assert error.fields["key"] == pack
    assert error.fields["checkpoint"] == newest
    assert "backup" in str(error.fields["hint"])
    await flip(store, pack)
    ledger = await opened(store)
    assert ledger.seq == COMMITS
    await ledger.close()


async def test_a_missing_record_behind_damaged_checkpoints_is_refused(store: MemoryStore) -> None:
    await grown(store, collect=False)
    for key in await checkpoints(store):
        await store.delete([key])
    gone = (await keys(store, "c"))[5]
    await store.delete([gone])
    assert (await refused(store)).fields["key"] == gone
