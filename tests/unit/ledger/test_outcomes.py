"""The three outcomes of a commit, fencing, take-over, damage: each seen from outside."""

from __future__ import annotations

import asyncio

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.ledger import Ledger, OpenOptions, WriterInfo, open_ledger, read_ledger
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.clocks import ManualClock, SeededIds
from lakehouse.testing.simulation.machine import World, WorldMachine, add_token
from lakehouse.testing.stores import Fault, FaultStore, RecordingStore

SETTINGS = LedgerSettings(append_budget_seconds=1.0, backoff_seconds=0.1, backoff_seconds_max=0.2)
A = WriterInfo("a", "127.0.0.1:1")
B = WriterInfo("b", "127.0.0.1:2")


class Place:
    """A memory bucket with faults, and a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore("outcomes", self.clock)
        self.faults = FaultStore(self.memory)
        self.record = RecordingStore(self.faults)

    async def open(self, writer: WriterInfo = A, **options: object) -> Ledger[World]:
        made = OpenOptions(**{"settings": SETTINGS, **options})  # type: ignore[arg-type]
        ids = SeededIds(ord(writer.writer_id))
        opening = open_ledger(self.record, WorldMachine(), writer, self.clock, ids, made)
        return await self.run(opening)

    async def run(self, call: object) -> object:  # the result type is the caller's business
        """Await ``call`` while time goes by."""
        task = asyncio.ensure_future(call)  # type: ignore[arg-type]
        for _ in range(400):
            if task.done():
                break
            await asyncio.sleep(0.001)
            await self.clock.advance(0.05)
        return await task


async def refused(call: object) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call  # type: ignore[misc]
    return caught.value


@pytest.fixture
def place() -> Place:
    return Place()


async def test_a_lost_reply_is_settled_by_reading_back(place: Place) -> None:
    ledger = await place.open()
    place.faults.inject("put", Fault.AFTER)
    done = await place.run(ledger.commit(add_token("t")))
    assert (done.seq, dict(ledger.state.tokens)) == (1, {"t": 1})
    await place.run(ledger.close())


async def test_unknown_then_settled_then_answered_by_its_key(place: Place) -> None:
    ledger = await place.open()
    for _ in range(40):
        place.faults.inject("put", Fault.BEFORE, ErrorKind.TIMEOUT)
    error = await refused(place.run(ledger.commit(add_token("t", "k", "b"))))
    assert error.kind is ErrorKind.UNKNOWN
    assert error.fields["commit_state"] == "unknown"
    assert ledger.settling
    assert dict(ledger.state.tokens) == {}
    other = await refused(ledger.commit(add_token("u")))
    assert (other.kind, other.fields["retry_after_seconds"]) == (ErrorKind.UNAVAILABLE, 1)
    again = await refused(ledger.commit(add_token("t", "k", "b")))
    assert again.kind is ErrorKind.UNKNOWN
    while ledger.settling:
        await place.run(asyncio.sleep(0))
        await place.clock.advance(0.2)
    done = await place.run(ledger.commit(add_token("t", "k", "b")))
    assert (done.seq, done.replayed, dict(ledger.state.tokens)) == (1, True, {"t": 1})
    await place.run(ledger.close())


async def test_memory_is_never_ahead_of_the_floor_check(place: Place) -> None:
    ledger = await place.open()
    for _ in range(3):
        place.faults.inject("list", Fault.BEFORE)
    task = asyncio.ensure_future(ledger.commit(add_token("t")))
    await asyncio.sleep(0.05)
    assert len([key for key in place.memory._keys if "/c/" in key]) == 2
    assert (ledger.seq, dict(ledger.state.tokens)) == (0, {})
    await place.run(task)
    assert ledger.seq == 1
    await place.run(ledger.close())


async def test_a_refusal_by_the_store_is_definite_and_harms_nobody(place: Place) -> None:
    ledger = await place.open()
    place.faults.inject("put", Fault.BEFORE, ErrorKind.FORBIDDEN)
    error = await refused(place.run(ledger.commit(add_token("t"))))
    assert error.kind is ErrorKind.FORBIDDEN
    assert (await place.run(ledger.commit(add_token("u")))).seq == 1
    await place.run(ledger.close())


async def test_success_at_or_below_the_floor_is_none(place: Place) -> None:
    ledger = await place.open()
    await place.memory.put("_catalog/floor/9999999999999900", b"")
    error = await refused(place.run(ledger.commit(add_token("t"))))
    # It may have been in time and collected since; the writer is fenced in either case.
    assert error.kind is ErrorKind.UNKNOWN
    assert dict(ledger.state.tokens) == {}
    assert (await refused(ledger.commit(add_token("u")))).kind is ErrorKind.FENCED
    await place.run(ledger.close())


async def test_the_watch_notices_a_take_over_within_a_second(place: Place) -> None:
    first = await place.open(A)
    second = await place.open(B)
    await place.run(asyncio.sleep(0))
    await place.clock.advance(1.1)
    await asyncio.sleep(0.01)
    error = await refused(first.check_authority())
    assert (error.kind, error.fields["holder"]) == (ErrorKind.FENCED, "b")
    await second.check_authority()
    await place.run(first.close())
    await place.run(second.close())


async def test_after_a_sleep_no_answer_without_a_look_at_the_chain(place: Place) -> None:
    first = await place.open(A)
    second = await place.open(B)
    place.clock._move_to(place.clock._monotonic_us + 60_000_000)  # as after SIGSTOP: no timer ran
    assert (await refused(first.check_authority())).kind is ErrorKind.FENCED
    await place.run(first.close())
    await place.run(second.close())


async def test_after_a_sleep_without_the_bucket_no_answer_at_all(place: Place) -> None:
    ledger = await place.open(A)
    place.clock._move_to(place.clock._monotonic_us + 60_000_000)
    place.faults.inject("list", Fault.BEFORE)
    assert (await refused(ledger.check_authority())).retryable
    await ledger.check_authority()
    await place.run(ledger.close())


async def test_a_holder_that_answers_is_named_and_kept(place: Place) -> None:
    asked: list[str] = []

    async def alive(holder: WriterInfo) -> bool:
        asked.append(holder.endpoint)
        return True

    ledger = await place.open(A)
    error = await refused(place.open(B, probe_holder=alive))
    assert error.kind is ErrorKind.CONFLICT
    assert (error.fields["holder"], error.fields["endpoint"]) == ("a", "127.0.0.1:1")
    assert asked == ["127.0.0.1:1"]
    await ledger.check_authority()
    forced = await place.open(B, probe_holder=alive, take_over=True)
    assert forced.epoch == ledger.epoch + 1
    await place.run(ledger.close())
    await place.run(forced.close())


async def test_a_silent_holder_is_asked_three_times_then_replaced(place: Place) -> None:
    asked: list[float] = []

    async def silent(holder: WriterInfo) -> bool:
        asked.append(place.clock.monotonic())
        return False

    first = await place.open(A)
    second = await place.open(B, probe_holder=silent)
    assert len(asked) == 3
    assert asked[2] - asked[0] > 1.99
    await place.run(first.close())
    await place.run(second.close())


async def test_nobody_is_asked_after_a_seal(place: Place) -> None:
    async def never(holder: WriterInfo) -> bool:
        raise AssertionError("asked")

    await place.run((await place.open(A)).close())
    second = await place.open(B, probe_holder=never)
    await place.run(second.close())


@pytest.mark.parametrize("harm", ["gap", "flip", "swap"])
async def test_damage_refuses_and_names_the_slot(place: Place, harm: str) -> None:
    ledger = await place.open()
    for number in range(5):
        await place.run(ledger.commit(add_token(f"t{number}")))
    key, other = (f"_catalog/c/{9999999999999999 - n}.json" for n in (3, 2))
    data = await place.memory.get(key)
    if harm == "gap":
        await place.memory.delete([key])
    elif harm == "flip":
        await place.memory.put(key, data.replace(b"t2", b"t9"))
    else:
        await place.memory.put(key, await place.memory.get(other))
    before = list(place.memory._keys)
    for call in (place.open(B), read_ledger(place.memory, WorldMachine())):
        error = await refused(call)
        assert (error.kind, error.fields["slot"]) == (ErrorKind.CORRUPT, 3)
    assert place.memory._keys == before, "something was written to a damaged chain"
    await place.run(ledger.close())


async def test_an_empty_place_has_no_ledger(place: Place) -> None:
    error = await refused(read_ledger(place.memory, WorldMachine()))
    assert error.kind is ErrorKind.NOT_FOUND


async def test_a_bucket_that_lost_the_newest_record_stops_the_writer(place: Place) -> None:
    ledger = await place.open()
    await place.run(ledger.commit(add_token("t")))
    await place.memory.delete(["_catalog/c/9999999999999998.json"])
    await place.clock.advance(1.1)
    await asyncio.sleep(0.01)
    error = await refused(ledger.commit(add_token("u")))
    assert (error.kind, error.fields["slot"]) == (ErrorKind.CORRUPT, 1)
    await place.run(ledger.close())


async def test_an_outage_of_the_bucket_does_not_stop_reading(place: Place) -> None:
    ledger = await place.open()
    for _ in range(60):
        place.faults.inject("list", Fault.BEFORE)
    for _ in range(50):
        await place.clock.advance(0.2)
        await ledger.check_authority()
    await place.run(ledger.close())
