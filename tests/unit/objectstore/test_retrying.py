"""Retries: bounded, and the three outcomes of a write kept apart."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.retry import Backoff
from lakehouse.objectstore.answers import StoreError
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.port import ByteRange, ObjectMeta
from lakehouse.objectstore.retrying import DEFAULT_BACKOFF, RetryingStore
from lakehouse.testing.clocks import ManualClock, SeededIds
from lakehouse.testing.stores import Fault, FaultRates, FaultStore, RecordingStore


class Sleepless(ManualClock):
    """Time passes by the waits themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.advance(seconds)


class Rig:
    """``retrying(recording(faults(memory)))`` and handles on each."""

    def __init__(self, backoff: Backoff = DEFAULT_BACKOFF) -> None:
        self.clock = Sleepless()
        self.memory = MemoryStore("retrying", SystemClock())
        self.faults = FaultStore(self.memory)
        self.wire = RecordingStore(self.faults)
        self.store = RetryingStore(self.wire, self.clock, SeededIds(5), backoff)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def kind_of(awaitable: object) -> ErrorKind:
    with pytest.raises(LakehouseError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.kind


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("kind", [ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.EXHAUSTED])
async def test_every_operation_survives_two_failures(
    rig: Rig, fault: Fault, kind: ErrorKind
) -> None:
    for operation in ("put", "get", "head", "list", "delete"):
        for _ in range(2):
            rig.faults.inject(operation, fault, kind)
    await rig.store.put("key", b"data")
    assert await rig.store.get("key") == b"data"
    assert (await rig.store.head("key")).size_bytes == 4
    assert [meta.key for meta in await rig.store.list()] == ["key"]
    await rig.store.delete(["key"])
    assert await rig.memory.list() == []
    assert rig.wire.counts == dict.fromkeys(("put", "get", "head", "list", "delete"), 3)
    assert len(rig.clock.waits) == 10


async def test_what_will_not_change_is_not_tried_again(rig: Rig) -> None:
    assert await kind_of(rig.store.get("missing")) is ErrorKind.NOT_FOUND
    await rig.store.put("key", b"1", if_absent=True)
    assert await kind_of(rig.store.put("key", b"2", if_absent=True)) is ErrorKind.ALREADY_EXISTS
    assert await kind_of(rig.store.put("../x", b"2")) is ErrorKind.INVALID
    assert rig.wire.counts == {"get": 1, "put": 2}
    assert rig.clock.waits == []


async def test_it_gives_up_within_its_budget() -> None:
    rig = Rig(Backoff(attempts_max=100, budget_seconds=2.0, base_seconds=0.1))
    for _ in range(100):
        rig.faults.inject("get", Fault.BEFORE, ErrorKind.TIMEOUT)
    with pytest.raises(LakehouseError) as caught:
        await rig.store.get("key")
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert sum(rig.clock.waits) <= 2.0
    assert caught.value.fields["attempts"] == len(rig.clock.waits) + 1 >= 4


# -- conditional puts ---------------------------------------------------------------------------


async def test_our_own_lost_success_is_success(rig: Rig) -> None:
    rig.faults.inject("put", Fault.AFTER, ErrorKind.TIMEOUT)
    meta = await rig.store.put("key", b"ours", if_absent=True)
    assert (meta.key, meta.size_bytes) == ("key", 4)
    assert await rig.memory.get("key") == b"ours"


async def test_after_doubt_anothers_object_is_still_refused(rig: Rig) -> None:
    await rig.memory.put("key", b"theirs")
    rig.faults.inject("put", Fault.BEFORE)
    assert await kind_of(rig.store.put("key", b"ours", if_absent=True)) is ErrorKind.ALREADY_EXISTS
    assert await rig.memory.get("key") == b"theirs"


async def test_without_doubt_even_the_same_bytes_are_refused(rig: Rig) -> None:
    await rig.memory.put("key", b"same")
    rig.faults.inject("put", Fault.BEFORE, ErrorKind.EXHAUSTED)  # refused: surely not done
    assert await kind_of(rig.store.put("key", b"same", if_absent=True)) is ErrorKind.ALREADY_EXISTS


async def test_a_late_effect_of_our_own_is_success(rig: Rig) -> None:
    rig.faults.inject("put", Fault.DELAYED)

    class Late(Sleepless):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            await rig.faults.settle()

    store = RetryingStore(rig.wire, Late(), SeededIds(1))
    assert (await store.put("key", b"ours", if_absent=True)).size_bytes == 4
    assert await rig.memory.get("key") == b"ours"


async def test_doubt_that_cannot_be_settled_is_unknown(rig: Rig) -> None:
    rig.faults.inject("put", Fault.AFTER)
    for _ in range(50):
        rig.faults.inject("get", Fault.BEFORE)
    assert await kind_of(rig.store.put("key", b"ours", if_absent=True)) is ErrorKind.UNKNOWN


@pytest.mark.parametrize("if_absent", [True, False])
async def test_a_refusal_after_doubt_is_unknown(rig: Rig, if_absent: bool) -> None:
    rig.faults.inject("put", Fault.AFTER)
    rig.faults.inject("put", Fault.BEFORE, ErrorKind.FORBIDDEN)
    put = rig.store.put("key", b"x", if_absent=if_absent)
    assert await kind_of(put) is ErrorKind.UNKNOWN


async def test_doubt_outlives_attempts_that_were_never_sent(rig: Rig) -> None:
    class Opens(MemoryStore):
        """Its first answer is lost; from then on a breaker refuses."""

        async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
            if not self.told:
                self.told = True
                await super().put(key, data, if_absent=if_absent)
                raise StoreError(ErrorKind.TIMEOUT, "no answer")
            error = StoreError(ErrorKind.UNAVAILABLE, "the breaker is open")
            error.sent = False
            raise error

        told = False

    store = RetryingStore(Opens("opens", rig.clock), rig.clock, SeededIds(5))
    assert await kind_of(store.put("k", b"1")) is ErrorKind.UNKNOWN


async def test_a_refusal_at_once_is_itself(rig: Rig) -> None:
    rig.faults.inject("put", Fault.BEFORE, ErrorKind.FORBIDDEN)
    assert await kind_of(rig.store.put("key", b"x")) is ErrorKind.FORBIDDEN


@pytest.mark.parametrize("seed", range(40))
async def test_under_random_faults_success_means_done(seed: int) -> None:
    """Of rivals for one key at most one is told it won, and then the object is its own."""
    memory = MemoryStore("random", SystemClock())
    rates = FaultRates(before=0.2, after=0.2, delayed=0.1, truncated=0.1)
    faults = FaultStore(memory, seed, rates)
    store = RetryingStore(faults, Sleepless(), SeededIds(seed))
    winners: list[bytes] = []
    unknown: list[bytes] = []
    for rival in range(4):
        body = b"rival %d" % rival
        try:
            await store.put("key", body, if_absent=True)
            winners.append(body)
        except LakehouseError as error:
            if error.kind is not ErrorKind.ALREADY_EXISTS:
                unknown.append(body)
        await faults.settle(1)
    assert len(winners) <= 1
    found = await memory.get("key") if await memory.list() else None
    if winners:
        assert found == winners[0]
    else:
        assert found is None or found in unknown


# -- streams ------------------------------------------------------------------------------------


async def test_a_broken_stream_goes_on_where_it_stood(rig: Rig) -> None:
    data = bytes(range(256)) * 200_000
    await rig.memory.put("key", data)
    rig.faults.inject("get", Fault.BEFORE)
    rig.faults.inject("get", Fault.TRUNCATED)
    rig.faults.inject("get", Fault.BEFORE)
    got = b"".join([chunk async for chunk in rig.store.stream("key")])
    assert got == data
    assert len(rig.clock.waits) == 3


async def test_a_truncated_read_is_repeated(rig: Rig) -> None:
    await rig.memory.put("key", b"0123456789")
    rig.faults.inject("get", Fault.TRUNCATED)
    assert await rig.store.get("key", ByteRange(2, 4)) == b"23"
    assert rig.wire.counts["get"] == 2


async def test_damage_that_is_no_truncation_is_not_repeated(rig: Rig) -> None:
    rig.faults.inject("get", Fault.BEFORE, ErrorKind.CORRUPT)
    assert await kind_of(rig.store.get("key")) is ErrorKind.CORRUPT
    assert rig.wire.counts["get"] == 1


async def test_a_streamed_write_is_sent_once(rig: Rig) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    rig.faults.inject("put_stream", Fault.BEFORE)
    assert await kind_of(rig.store.put_stream("key", chunks())) is ErrorKind.UNAVAILABLE
    assert rig.wire.counts == {"put": 1}


async def test_metadata_of_a_settled_put_is_the_objects(rig: Rig) -> None:
    rig.faults.inject("put", Fault.AFTER)
    meta = await rig.store.put("key", b"x", if_absent=True)
    assert meta == await rig.memory.head("key")
    assert isinstance(meta, ObjectMeta)
