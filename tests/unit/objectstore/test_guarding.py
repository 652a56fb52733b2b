"""What a bucket in trouble may cost: deadlines, places, breaker, and nothing of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.model.health import BreakerState
from lakehouse.objectstore.answers import was_sent
from lakehouse.objectstore.buckets import Buckets, BucketSettings, ResilienceSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ByteRange, ObjectMeta
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.clocks import SeededIds
from support_peer import Peer, serving

CLOCK = SystemClock()


class Hanging(ForwardingStore):
    """A bucket that answers nothing from ``hang`` until ``answers`` is set."""

    def __init__(self, tag: str) -> None:
        super().__init__(MemoryStore(tag, CLOCK))
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0

    def hang(self) -> None:
        self.answers.clear()

    async def _wait(self) -> None:
        self.asked += 1
        await self.answers.wait()

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        await self._wait()
        return await self.inner.get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        meta = await self.inner.put(key, data, if_absent=if_absent)
        await self._wait()
        return meta

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        async for chunk in super().stream(key):
            await self._wait()
            yield chunk


class Rig:
    """Two buckets, of which one may hang."""

    def __init__(self, tag: str, **resilience: float) -> None:
        self.got: list[FailedAttempt] = []
        settings = ResilienceSettings(**resilience)  # type: ignore[arg-type]
        places = [BucketSettings(name, f"memory://{tag}-{name}") for name in ("ill", "well")]
        self.buckets = Buckets(places, CLOCK, SeededIds(2), self, settings)
        self.ill_bucket = Hanging(f"{tag}-ill")
        self.buckets._meters["ill"] = MeteredStore(self.ill_bucket)
        self.ill, self.well = self.buckets.get("ill"), self.buckets.get("well")

    def failed(self, attempt: FailedAttempt) -> None:
        self.got.append(attempt)

    async def prepare(self) -> None:
        for store in (self.ill, self.well):
            await store.put("key", b"x" * 100)


async def kind_of(call: object) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_an_attempt_has_a_deadline_and_a_late_put_is_not_known() -> None:
    rig = Rig("deadline", attempt_seconds=0.05, breaker_failures=0)
    await rig.prepare()
    rig.ill_bucket.hang()
    raw = rig.buckets._opened("ill")[0].inner
    error = await kind_of(raw.put("late", b"x", if_absent=True))
    assert error.kind is ErrorKind.TIMEOUT
    assert was_sent(error)
    # It took effect all the same, and the retrying wrapper finds its own bytes.
    asyncio.get_running_loop().call_later(0.12, rig.ill_bucket.answers.set)
    assert (await rig.ill.put("later", b"x", if_absent=True)).size_bytes == 1
    assert {one.error_kind for one in rig.got} == {"timeout"}
    health = rig.buckets.health("ill")
    assert health.in_flight == 0
    assert health.failures >= 2


async def test_the_deadline_grows_with_the_body() -> None:
    rig = Rig("body", attempt_seconds=0.05, bytes_per_second_min=1000, breaker_failures=0)
    await rig.prepare()
    rig.ill_bucket.hang()
    asyncio.get_running_loop().call_later(0.15, rig.ill_bucket.answers.set)
    # 300 bytes at 1,000 a second are 0.3 s more.
    await rig.ill.put("big", b"x" * 300)
    assert rig.got == []


async def test_a_whole_read_has_the_time_that_its_size_needs() -> None:
    with serving(Peer()) as peer:
        peer.slow_seconds = 5.0
        failed: list[FailedAttempt] = []

        class Sink:
            def failed(self, attempt: FailedAttempt) -> None:
                failed.append(attempt)

        settings = ResilienceSettings(attempt_seconds=0.3, breaker_failures=0)
        buckets = Buckets([peer.settings()], CLOCK, SeededIds(1), Sink(), settings)
        await buckets.get("peer").put("key", b"x")
        peer.script.append("slow")
        assert await buckets.get("peer").get("key") == b"x"
        assert [(one.error_kind, one.outcome) for one in failed] == [
            ("timeout", AttemptOutcome.RETRIED)
        ]
        # LIST goes by threads; those that a silent server holds are not waited for.
        peer.script += ["slow"] * 3
        found = await asyncio.gather(*(buckets.get("peer").list(limit=1) for _ in range(3)))
        assert [len(one) for one in found] == [1, 1, 1]
        await buckets.close()


async def test_another_cancels_before_the_deadline_does() -> None:
    rig = Rig("cancel", attempt_seconds=5.0)
    await rig.prepare()
    rig.ill_bucket.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await rig.ill.get("key")
    assert rig.got == []
    assert rig.buckets.health("ill").in_flight == 0


async def test_places_are_bounded_and_so_is_the_queue() -> None:
    rig = Rig("places", in_flight_max=2, waiting_max=3, attempt_seconds=5.0)
    await rig.prepare()
    rig.ill_bucket.hang()
    asked = rig.ill_bucket.asked
    tasks = [asyncio.ensure_future(rig.ill.get("key")) for _ in range(5)]
    await asyncio.sleep(0.02)
    health = rig.buckets.health("ill")
    assert (health.in_flight, health.waiting, rig.ill_bucket.asked - asked) == (2, 3, 2)
    error = await kind_of(rig.ill.get("key"))
    assert error.kind is ErrorKind.UNAVAILABLE
    assert not was_sent(error)
    assert error.fields["retry_after_seconds"] == 1
    assert [one.sent for one in rig.got] == [False]
    tasks[3].cancel()
    rig.ill_bucket.answers.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [len(one) if isinstance(one, bytes) else -1 for one in results] == [100] * 3 + [-1, 100]
    health = rig.buckets.health("ill")
    assert (health.in_flight, health.waiting) == (0, 0)


async def test_who_gives_up_waiting_for_a_place_sent_nothing() -> None:
    rig = Rig("queue", in_flight_max=1, attempt_seconds=30.0)
    await rig.prepare()
    rig.ill_bucket.hang()
    tasks = [asyncio.ensure_future(rig.ill.get("key")) for _ in range(2)]
    await asyncio.sleep(1.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted((one.sent, one.outcome) for one in rig.got) == [
        (False, AttemptOutcome.GIVEN_UP),
        (True, AttemptOutcome.GIVEN_UP),
    ]


async def test_a_place_that_never_comes_is_not_waited_for() -> None:
    rig = Rig("never", in_flight_max=1, attempt_seconds=0.05, bytes_per_second_min=100)
    await rig.prepare()
    rig.ill_bucket.hang()
    long = asyncio.ensure_future(rig.ill.get("key", ByteRange(0, 100)))
    await asyncio.sleep(0)
    error = await kind_of(rig.ill.get("key"))
    assert "no place" in error.message
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)


async def test_the_breaker_opens_refuses_at_once_and_closes_by_itself() -> None:
    rig = Rig(
        "breaker",
        breaker_failures=3,
        breaker_seconds=0.0,
        probe_seconds=0.2,
        attempt_seconds=0.03,
        in_flight_max=3,
    )
    await rig.prepare()
    rig.ill_bucket.hang()
    await asyncio.gather(*(rig.ill.get("key") for _ in range(9)), return_exceptions=True)
    assert rig.buckets.health("ill").breaker is BreakerState.OPEN
    rig.got.clear()
    asked = rig.ill_bucket.asked
    loop = asyncio.get_running_loop()
    began = loop.time()
    error = await kind_of(rig.ill.get("key"))
    assert loop.time() - began < 0.05
    assert error.kind is ErrorKind.UNAVAILABLE
    assert "breaker" in error.message
    assert (rig.ill_bucket.asked, [one.sent for one in rig.got]) == (asked, [False])
    assert rig.buckets.health("ill").unavailable_since is not None
    rig.ill_bucket.answers.set()
    while True:
        try:
            assert len(await rig.ill.get("key")) == 100
            break
        except LakehouseError:
            await asyncio.sleep(0.02)
    assert loop.time() - began < 2
    assert rig.buckets.health("ill").breaker is BreakerState.CLOSED
    assert rig.buckets.health("ill").unavailable_since is None


async def test_the_raw_handle_is_not_refused_and_what_it_finds_counts() -> None:
    rig = Rig(
        "raw", breaker_failures=1, breaker_seconds=0.0, probe_seconds=60.0, attempt_seconds=0.03
    )
    await rig.prepare()
    rig.ill_bucket.hang()
    await kind_of(rig.ill.get("key"))
    rig.ill_bucket.answers.set()
    await kind_of(rig.ill.get("key"))
    assert await rig.buckets.raw("ill").get("key")
    assert rig.buckets.health("ill").breaker is BreakerState.CLOSED
    assert await rig.ill.get("key")


async def test_a_bucket_that_hangs_costs_another_nothing() -> None:
    rig = Rig("beside", in_flight_max=8, waiting_max=8, attempt_seconds=10.0)
    await rig.prepare()
    loop = asyncio.get_running_loop()

    async def median(reads: int = 300) -> float:
        times = []
        for _ in range(reads):
            began = loop.time()
            await rig.well.get("key")
            times.append(loop.time() - began)
        return sorted(times)[reads // 2]

    idle = await median()
    rig.ill_bucket.hang()
    stuck = [asyncio.ensure_future(rig.ill.get("key")) for _ in range(200)]
    await asyncio.sleep(0.01)
    assert rig.buckets.health("ill").in_flight == 8
    # Generous, for the machine is not ours alone; a shared place would wait for ten seconds.
    assert await median() < 20 * idle + 0.01
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_a_slow_reader_and_a_slow_source_hold_no_place() -> None:
    rig = Rig("slow", in_flight_max=1, attempt_seconds=0.1)
    await rig.ill.put("key", b"x" * (17 << 20))
    chunks = rig.ill.stream("key")  # type: ignore[attr-defined]
    await anext(chunks)

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.06)
            yield b"x"

    upload = asyncio.ensure_future(rig.ill.put_stream("up", trickle()))  # type: ignore[attr-defined]
    await asyncio.sleep(0.15)
    assert len(await rig.ill.get("key", ByteRange(0, 5))) == 5
    assert sum([len(chunk) async for chunk in chunks]) == 9 << 20
    assert (await upload).size_bytes == 4
    assert rig.got == []


async def test_a_stream_that_falls_silent_is_cut_off_and_goes_on() -> None:
    rig = Rig("silent", attempt_seconds=0.05, bytes_per_second_min=1 << 40)
    await rig.ill.put("key", b"x" * (17 << 20))
    size = 0
    async for chunk in rig.ill.stream("key"):  # type: ignore[attr-defined]
        if not size:
            rig.ill_bucket.hang()
            asyncio.get_running_loop().call_later(0.08, rig.ill_bucket.answers.set)
        size += len(chunk)
    assert size == 17 << 20
    assert {(one.error_kind, one.outcome) for one in rig.got} == {
        ("timeout", AttemptOutcome.RETRIED)
    }


async def test_buckets_come_and_go() -> None:
    rig = Rig("come", attempt_seconds=5.0)
    await rig.prepare()
    new = BucketSettings("new", "memory://come-new")
    rig.buckets.add(new)
    rig.buckets.add(new)
    await rig.buckets.get("new").put("key", b"x")
    for wrong, kind in (
        (BucketSettings("new", "memory://other"), ErrorKind.ALREADY_EXISTS),
        (BucketSettings("more", "ftp://host"), ErrorKind.INVALID),
    ):
        with pytest.raises(LakehouseError) as caught:
            rig.buckets.add(wrong)
        assert caught.value.kind is kind
    assert rig.buckets.names() == ("ill", "well", "new")
    held, closed = rig.buckets.get("ill"), asyncio.Event()

    async def close() -> None:
        closed.set()

    rig.ill_bucket.close = close  # type: ignore[method-assign]
    rig.ill_bucket.hang()
    under_way = asyncio.ensure_future(held.get("key"))
    await asyncio.sleep(0.01)
    rig.buckets.remove("ill")
    with pytest.raises(LakehouseError) as caught:
        await held.get("key")
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.fields["what"] == "bucket"
    with pytest.raises(LakehouseError):
        rig.buckets.health("ill")
    assert not closed.is_set()
    rig.ill_bucket.answers.set()
    assert len(await under_way) == 100
    await asyncio.wait_for(closed.wait(), 5)
    rig.buckets.remove("new")
    with pytest.raises(LakehouseError):
        rig.buckets.remove("new")
    await rig.buckets.close()


async def test_a_bucket_has_bounds_of_its_own() -> None:
    own = BucketSettings("a", "memory://own-a", attempt_seconds=1.0, in_flight_max=2)
    buckets = Buckets([own, BucketSettings("b", "memory://own-b")], CLOCK, SeededIds(1))
    settings = [buckets._watch(name).settings for name in ("a", "b")]
    assert [(one.attempt_seconds, one.in_flight_max) for one in settings] == [(1.0, 2), (15.0, 64)]
