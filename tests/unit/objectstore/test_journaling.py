"""What a failed attempt is, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import SystemClock
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.objectstore.answers import StoreError
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.operations import Operation, current_operation, operation
from lakehouse.testing.clocks import SeededIds
from lakehouse.testing.stores import Fault, FaultStore
from support_peer import Peer, serving

CLOCK = SystemClock()


class Sink:
    def __init__(self) -> None:
        self.got: list[FailedAttempt] = []

    def failed(self, attempt: FailedAttempt) -> None:
        self.got.append(attempt)

    def told(self) -> list[tuple[int, AttemptOutcome, bool]]:
        return [(one.attempt, one.outcome, one.final) for one in self.got]


class Rig:
    """One bucket whose adapter fails as told."""

    def __init__(self, tag: str) -> None:
        self.sink, self.ids = Sink(), SeededIds(4)
        settings = BucketSettings("one", f"memory://journaling-{tag}")
        self.buckets = Buckets([settings], CLOCK, self.ids, self.sink)
        meter = self.buckets._meter("one")
        self.faults = FaultStore(meter.inner)
        self.buckets._meters["one"] = MeteredStore(self.faults)
        self.store, self.raw = self.buckets.get("one"), self.buckets.raw("one")


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.node.name)


RETRIED, FAILED = AttemptOutcome.RETRIED, AttemptOutcome.FAILED
RESCUED, GIVEN_UP = AttemptOutcome.RESCUED, AttemptOutcome.GIVEN_UP


async def test_a_retried_attempt_is_told_at_once_and_a_failure_at_the_end(rig: Rig) -> None:
    await rig.store.put("key", b"x")
    rig.faults.inject("get", Fault.BEFORE)
    assert await rig.store.get("key") == b"x"
    assert rig.sink.told() == [(1, RETRIED, False)]
    for _ in range(6):
        rig.faults.inject("get", Fault.BEFORE, ErrorKind.TIMEOUT)
    with pytest.raises(LakehouseError):
        await rig.store.get("key")
    assert rig.sink.told()[1:] == [(n, RETRIED, False) for n in range(1, 6)] + [(6, FAILED, True)]
    first, *others = rig.sink.got
    assert {one.op_id for one in others} != {first.op_id}
    assert len({one.op_id for one in others}) == 1
    assert {one.error_kind for one in others} == {"timeout"}
    health = rig.buckets.health("one")
    assert (health.failures, health.retries) == (7, 6)
    assert health.unavailable_since is not None


async def test_ordinary_answers_are_no_failures(rig: Rig) -> None:
    await rig.store.put("key", b"x", if_absent=True)
    for call in (
        rig.store.get("none"),
        rig.store.head("none"),
        rig.store.put("key", b"y", if_absent=True),
        rig.store.put("../x", b"y"),
        rig.raw.get("../x"),
    ):
        with pytest.raises(LakehouseError):
            await call
    assert rig.sink.got == []
    assert rig.buckets.health("one").failures == 0


async def test_on_whose_behalf_it_was(rig: Rig) -> None:
    rig.faults.inject("put", Fault.BEFORE, ErrorKind.FORBIDDEN)
    with act_as("ann", "req-1"), pytest.raises(LakehouseError):
        await rig.store.put("key", b"x")
    rig.faults.inject("delete", Fault.BEFORE, ErrorKind.FORBIDDEN)
    with pytest.raises(LakehouseError):
        await rig.raw.delete(["a", "b"])
    named, own = rig.sink.got
    assert (named.actor, named.request_id, named.bucket, named.key) == (
        "ann",
        "req-1",
        "one",
        "key",
    )
    assert (own.actor, own.request_id, own.operation, own.key) == ("", "", "delete", "a")
    assert (named.attempt, named.final, named.error_kind) == (1, True, "forbidden")
    assert own.latency_ms >= 0
    assert rig.buckets.health("one").unavailable_since is None


async def test_one_loop_s_attempts_share_an_operation_on_the_raw_handle(rig: Rig) -> None:
    for _ in range(2):
        rig.faults.inject("put", Fault.BEFORE)
    with operation(rig.ids) as within:
        for _ in range(2):
            with pytest.raises(LakehouseError):
                await rig.raw.put("slot", b"x", if_absent=True)
        await rig.raw.put("slot", b"x", if_absent=True)
    assert rig.sink.told() == [(1, RETRIED, False), (2, RETRIED, False)]
    assert {one.op_id for one in rig.sink.got} == {within.id}


async def test_a_cancelled_wait_between_attempts_was_given_up(rig: Rig) -> None:
    for _ in range(6):
        rig.faults.inject("get", Fault.BEFORE)
    task = asyncio.ensure_future(rig.store.get("key"))
    while len(rig.sink.got) < 3:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.sink.told()[-1] == (len(rig.sink.got), GIVEN_UP, True)


async def test_bytes_that_are_wrong_are_a_failed_attempt(rig: Rig) -> None:
    await rig.store.put("key", b"x")
    wrong = LakehouseError(ErrorKind.CORRUPT, "not what the catalog says")

    async def read() -> None:
        with operation(rig.ids) as within:
            await rig.store.get("key")
            within.refuse(wrong)
            within.refuse(wrong)
            await rig.store.get("key")
            within.refuse(wrong)
            raise wrong

    with pytest.raises(LakehouseError):
        await read()
    assert rig.sink.told() == [(1, RETRIED, False), (2, FAILED, True)]
    assert {one.error_kind for one in rig.sink.got} == {"corrupt"}
    assert rig.sink.got[0].reason == "not what the catalog says"


async def test_a_rescued_read_says_so(rig: Rig) -> None:
    for _ in range(6):
        rig.faults.inject("get", Fault.BEFORE)
    with operation(rig.ids) as within:
        with pytest.raises(LakehouseError):
            await rig.store.get("key")
        within.rescued()
    assert rig.sink.told()[-1] == (6, RESCUED, True)


async def test_a_source_s_failure_is_not_the_bucket_s(rig: Rig) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise LakehouseError(ErrorKind.UNAVAILABLE, "the caller's connection broke")

    for store in (rig.store, rig.raw):
        with pytest.raises(LakehouseError):
            await store.put_stream("key", broken())  # type: ignore[attr-defined]
    assert rig.sink.got == []
    assert rig.buckets.health("one").failures == 0


async def test_a_reader_who_goes_early_breaks_nothing(rig: Rig) -> None:
    await rig.store.put("key", b"x" * (9 << 20))
    chunks = rig.store.stream("key")  # type: ignore[attr-defined]
    assert await anext(chunks)
    assert current_operation() is None
    await chunks.aclose()
    assert rig.sink.got == []


async def test_what_the_server_said_travels_to_the_journal_alone() -> None:
    sink = Sink()
    with serving(Peer()) as peer:
        buckets = Buckets([peer.settings()], CLOCK, SeededIds(1), sink)
        store = buckets.raw("peer")
        body = b"<Error><Code>SlowDown</Code><RequestId>tx-77</RequestId></Error>"
        peer.script += [(503, "", body), (503, "", body)]
        with pytest.raises(LakehouseError) as caught:
            await store.get("key")
        with pytest.raises(LakehouseError):
            await store.list()
        peer.script += ["reset", "short", (403, "AccessDenied", b""), (404, "NoSuchBucket", b"")]
        for _ in range(4):
            with pytest.raises(LakehouseError):
                await store.get("key")
        peer.script += [(416, "InvalidRange", b""), (412, "PreconditionFailed", b"")]
        for call in (store.get("key"), store.put("key", b"x", if_absent=True)):
            with pytest.raises(LakehouseError):
                await call
        await buckets.close()
    seen = [(one.error_kind, one.http_status, one.store_request_id) for one in sink.got]
    assert seen == [
        ("unavailable", 503, "tx-77"),
        ("unavailable", 503, "peer-2"),
        ("unavailable", 0, ""),
        ("unavailable", 0, ""),
        ("forbidden", 403, ""),
        ("not_found", 404, ""),
    ]
    assert "tx-77" not in f"{caught.value} {caught.value.fields}"
    assert isinstance(caught.value, StoreError)


async def test_operations_that_ended_take_nothing_in(rig: Rig) -> None:
    """A task that outlives the operation it was made in works for itself."""
    rig.faults.inject("get", Fault.BEFORE)
    with operation(rig.ids) as within:
        task = asyncio.ensure_future(rig.raw.get("key"))
    with pytest.raises(LakehouseError):
        await task
    assert rig.sink.told() == [(1, FAILED, True)]
    assert rig.sink.got[0].op_id != within.id


async def test_a_coroutine_that_is_thrown_away_is_no_error(rig: Rig) -> None:
    async def work() -> None:
        with Operation(rig.ids):
            await asyncio.sleep(10)

    coroutine = work()
    coroutine.send(None)
    coroutine.close()
    assert current_operation() is None
