"""Commits of one writer: order, groups, refusals, keys, requests, outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.ledger.layout import Layout, number_of
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger, read_ledger
from lakehouse.ledger.machine import Entry, Proposal, Verdict
from lakehouse.ledger.record import decode
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
    ids = SeededIds(ord(writer.writer_id))
    return await open_ledger(store, WorldMachine(), writer, CLOCK, ids, options)  # type: ignore[arg-type]


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


async def test_the_loop_goes_on_while_a_group_is_decided(
    ledger: Ledger[World], store: RecordingStore
) -> None:
    turns = 0
    seen: list[int] = []

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def proposal(number: int) -> Proposal[World]:
        plain = add_token(f"t{number}")

        def decide(state: World, seq: int) -> Verdict:
            seen.append(turns)
            return plain.decide(state, seq)

        return Proposal(decide)

    store.reset()
    counting = asyncio.ensure_future(count_turns())
    done = await asyncio.gather(*(ledger.commit(proposal(i)) for i in range(64)))
    counting.cancel()
    assert store.counts["put"] <= 2
    assert [item.seq for item in done] == list(range(1, 65))
    assert max(seen.count(turn) for turn in seen) <= 8


async def test_a_large_change_is_applied_in_order(ledger: Ledger[World]) -> None:
    tokens = ["a", "b" * 100_000, "c", "d" * 200_000, "e"]
    done = await asyncio.gather(*(ledger.commit(add_token(token)) for token in tokens))
    assert [item.seq for item in done] == [1, 2, 3, 4, 5]
    assert [item.answer["token"] for item in done] == tokens
    assert dict(ledger.state.tokens) == dict.fromkeys(tokens, 1)
    # Each answer has the state right after it, not one of its neighbours'.
    assert [len(item.state.tokens) for item in done] == [1, 2, 3, 4, 5]


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


async def test_one_key_one_effect_one_answer(ledger: Ledger[World]) -> None:
    proposal = add_token("t", "k", "body")
    first, joined = await asyncio.gather(ledger.commit(proposal), ledger.commit(proposal))
    again = await ledger.commit(proposal)
    assert (first.seq, joined.seq, again.seq) == (1, 1, 1)
    assert [done.replayed for done in (first, joined, again)] == [False, True, True]
    assert first.answer == joined.answer == again.answer
    assert dict(ledger.state.tokens) == {"t": 1}


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_one_key_with_another_body_is_422(ledger: Ledger[World], meanwhile: bool) -> None:
    first = asyncio.ensure_future(ledger.commit(add_token("t", "k", "body")))
    await asyncio.sleep(0)
    if not meanwhile:
        await first
    with pytest.raises(LakehouseError) as caught:
        await ledger.commit(add_token("t", "k", "other"))
    assert (caught.value.kind, caught.value.http_status) == (ErrorKind.INVALID, 422)
    await first


async def test_errors_and_no_ops_are_not_remembered(ledger: Ledger[World]) -> None:
    with pytest.raises(LakehouseError, match="conflict"):
        await ledger.commit(add_token("refuse", "k", "b"))
    nothing: Proposal[World] = Proposal(lambda state, seq: Verdict((), {"n": 1}), "k", "b")
    done = await ledger.commit(nothing)
    assert (done.no_op, done.seq, done.answer) == (True, 0, {"n": 1})
    assert (await ledger.commit(add_token("t", "k", "b"))).seq == 1


async def test_an_answer_outlives_a_restart_and_a_collection(store: RecordingStore) -> None:
    numbers = {"fold_records": 4, "records_kept": 2}
    ledger = await opened(store, **numbers)
    for number in range(30):
        await ledger.commit(add_token(f"t{number}", f"k{number}", "b"))
    collected = await ledger.collect_records()
    assert collected.floor > 20
    await ledger.close()
    again = await opened(store, **numbers)
    for number in (0, 10, 29):
        done = await again.commit(add_token(f"t{number}", f"k{number}", "b"))
        assert (done.seq, done.replayed) == (number + 1, True)
        assert done.answer == {"token": f"t{number}", "seq": number + 1}
    assert again.keys_remembered == 30
    await again.close()


async def test_a_refusal_waits_for_the_commit_it_rests_on(
    ledger: Ledger[World], store: RecordingStore
) -> None:
    def once(state: World, seq: int) -> Verdict:
        if "t" in state.tokens:
            raise LakehouseError(ErrorKind.CONFLICT, "is there")
        return Verdict(({"op": "token", "token": "t"},))

    order: list[str] = []

    async def ask(name: str) -> None:
        try:
            await ledger.commit(Proposal(once))
        except LakehouseError:
            assert "t" in ledger.state.tokens
            name += " refused"
        order.append(name)

    blocker = asyncio.ensure_future(ledger.commit(add_token("first")))
    await asyncio.gather(ask("a"), ask("b"), ask("c"))
    await blocker
    assert order == ["a", "b refused", "c refused"]


async def test_a_caller_that_goes_away_cancels_nothing(ledger: Ledger[World]) -> None:
    call = asyncio.ensure_future(ledger.commit(add_token("t")))
    await asyncio.sleep(0)
    call.cancel()
    await ledger.commit(add_token("u"))
    assert dict(ledger.state.tokens) == {"t": 1, "u": 1}


async def test_a_full_queue_is_a_definite_no(store: RecordingStore) -> None:
    ledger = await opened(store, queue_max=3)
    calls = [ledger.commit(add_token(f"t{number}")) for number in range(5)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in results if isinstance(result, LakehouseError)]
    assert len(errors) == 2
    assert {error.kind for error in errors} == {ErrorKind.UNAVAILABLE}
    assert errors[0].fields["retry_after_seconds"] == 1
    assert ledger.seq == 3
    await ledger.close()


async def test_one_broken_proposal_does_not_stop_the_others(ledger: Ledger[World]) -> None:
    def broken(state: World, seq: int) -> Verdict:
        raise ZeroDivisionError

    unjson: Proposal[World] = Proposal(lambda state, seq: Verdict(({"op": object()},)))
    results = await asyncio.gather(
        ledger.commit(Proposal(broken)),
        ledger.commit(unjson),
        ledger.commit(add_token("t")),
        return_exceptions=True,
    )
    assert [getattr(result, "kind", None) for result in results] == [
        ErrorKind.INTERNAL,
        ErrorKind.INVALID,
        None,
    ]


async def test_large_commits_go_through_a_body(store: RecordingStore) -> None:
    ledger = await opened(store, inline_bytes_max=1000)
    store.reset()
    await ledger.commit(add_token("x" * 5000))
    assert [operation for operation, _ in store.log] == ["put", "put", "list"]
    again = await opened(store, WriterInfo("b"))
    assert again.state == ledger.state
    await ledger.close()
    await again.close()


async def test_time_and_seq_rise_strictly(store: RecordingStore) -> None:
    ledger = await opened(store)
    await asyncio.gather(*(ledger.commit(add_token(f"t{number}")) for number in range(20)))
    await ledger.close()
    times: list[int] = []

    class Watching(WorldMachine):
        def apply(self, state: World, entry: Entry) -> World:
            times.append(entry.ts_us)
            return super().apply(state, entry)

    keys = [key for operation, key in store.log if operation == "put" and "/c/" in key]
    for key in keys:
        record = decode(await store.get(key), Layout(), number_of(key, ".json"))
        for commit in record.commits:
            Watching().apply(World(), commit.entry)
    assert times == sorted(set(times))
    assert len(times) == 20


async def test_opening_after_a_clean_stop_takes_few_requests(store: RecordingStore) -> None:
    ledger = await opened(store)
    for number in range(100):
        await ledger.commit(add_token(f"t{number}", f"k{number}", "b"))
    await ledger.close()
    store.reset()
    again = await opened(store)
    assert len(store.log) <= 10, store.log
    assert again.seq == 100
    await again.close()


async def test_collection_keeps_the_newest_and_reading_goes_on(store: RecordingStore) -> None:
    ledger = await opened(store, fold_records=8, records_kept=5)
    for number in range(60):
        await ledger.commit(add_token(f"t{number}"))
    plan = await ledger.collect_records(dry_run=True)
    assert await store.list("_catalog/floor/") == []
    done = await ledger.collect_records()
    assert done.floor - plan.floor in (0, 1)  # naming the checkpoint may take a record
    assert done.packed_records == done.floor + 1
    slots = [number_of(meta.key, ".json") for meta in await store.list("_catalog/c/")]
    assert min(slots) == done.floor + 1
    assert len(slots) >= 5
    assert (await read_ledger(store, WorldMachine()))[1] == 60
    assert await ledger.collect_records() is not None
    await ledger.close()


async def test_many_unfolded_records_make_commits_wait(store: RecordingStore) -> None:
    ledger = await opened(store, fold_records=4, unfolded_records_max=6)
    for number in range(40):
        await ledger.commit(add_token(f"t{number}"))
        assert ledger.unfolded_records <= 6
    await ledger.close()


async def test_closing_twice_is_closing_once(store: RecordingStore) -> None:
    ledger = await opened(store)
    await asyncio.gather(ledger.close(), ledger.close())
    await ledger.close()
    with pytest.raises(LakehouseError, match="unavailable"):
        await ledger.commit(add_token("t"))
    kinds = [operation for operation, _ in store.log if operation == "put"]
    assert len(kinds) == 2  # the open record and the seal
