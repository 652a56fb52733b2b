"""Commits of one writer: order, groups, refusals, keys, requests, outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger, read_ledger
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token
from lakehouse.testing.stores import RecordingStore

CLOCK = SystemClock()
A = WriterInfo("a", "127.0.0.1:1")


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore(MemoryStore("test", CLOCK))


async def opened(store: object, writer: WriterInfo = A, **numbers: float) -> Ledger[World]:
    settings = LedgerSettings(**numbers)  # type: ignore[arg-type]
    options = OpenOptions(settings=settings)
    return await open_ledger(store, WorldMachine(), writer, CLOCK, SeededIds(), options)  # type: ignore[arg-type]


@pytest.fixture
async def ledger(store: RecordingStore) -> AsyncIterator[Ledger[World]]:
    made = await opened(store)
    yield made
    await made.close()


async def test_commit_is_one_put_and_one_list_of_one_key(
    ledger: Ledger[World], store: RecordingStore
) -> None:
    store.reset()
    done = await ledger.commit(add_token("a"))
    assert store.log == [
        ("put", "_catalog/c/9999999999999998.json"),
        ("list", "_catalog/floor/"),
    ]
    assert (done.seq, done.answer, ledger.seq) == (1, {"token": "a", "seq": 1}, 1)
    assert done.state is ledger.state


async def test_concurrent_commits_share_records(
    ledger: Ledger[World], store: RecordingStore
) -> None:
    store.reset()
    done = await asyncio.gather(*(ledger.commit(add_token(f"t{i}")) for i in range(600)))
    assert [item.seq for item in done] == list(range(1, 601))
    assert store.counts["put"] <= 5
    assert dict(ledger.state.tokens) == {f"t{i}": 1 for i in range(600)}
    assert [item.state.seq for item in done] == [item.seq for item in done]


async def test_replay_gives_the_same_state(store: RecordingStore) -> None:
    ledger = await opened(store)
    for i in range(10):
        await ledger.commit(add_token(f"t{i}"))
    state, epoch = ledger.state, ledger.epoch
    again = await opened(store, WriterInfo("b"))
    assert (again.state, again.seq, again.epoch) == (state, 10, epoch + 1)
    with pytest.raises(LakehouseError) as caught:
        await ledger.commit(add_token("late"))
    assert caught.value.kind is ErrorKind.FENCED
    assert caught.value.fields["holder"] == "b"
    await ledger.close()
    await again.close()
    assert await read_ledger(store, WorldMachine()) == (state, 10)
