"""Every failed attempt is journaled exactly once, with its number and what came of it.

Random operations over a store that fails, hangs, cuts off and refuses at random, cancelled at
random, on a clock of our own. A spy below the journal writes down each attempt of each operation;
what the journal must say follows from that alone.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.objectstore.answers import is_ordinary, was_sent
from lakehouse.objectstore.guarding import GuardedStore
from lakehouse.objectstore.health import BucketWatch
from lakehouse.objectstore.journaling import JournalingStore
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.operations import PATIENCE_SECONDS
from lakehouse.objectstore.port import ByteRange, ObjectMeta, OpenedObject
from lakehouse.objectstore.retrying import RetryingStore
from lakehouse.objectstore.settings import ResilienceSettings
from lakehouse.objectstore.wrapping import ForwardingStore
from lakehouse.testing.clocks import ManualClock, SeededIds

R = TypeVar("R")

SEEDS = range(40)
OPERATIONS = 30
DATA = bytes(range(200))


@dataclass(slots=True)
class Seen:
    """One attempt as the spy saw it; ``error`` None for an answer."""

    error: BaseException | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Book:
    attempts: dict[str, list[Seen]] = field(default_factory=dict)
    ends: dict[str, BaseException | None] = field(default_factory=dict)


class Troubled(ForwardingStore):
    """The bucket: answers late, wrongly or not at all."""

    def __init__(self, inner: MemoryStore, dice: random.Random, clock: ManualClock) -> None:
        super().__init__(inner)
        self.dice = dice
        self.clock = clock
        self.count = itertools.count()

    async def trouble(self) -> None:
        if self.dice.random() < 0.3:
            await self.clock.sleep(self.dice.choice([0.01, 0.3, 2.0, 9.0]))
        roll = self.dice.random()
        if roll < 0.35:
            kind = self.dice.choice(
                [
                    ErrorKind.UNAVAILABLE,
                    ErrorKind.UNAVAILABLE,
                    ErrorKind.TIMEOUT,
                    ErrorKind.EXHAUSTED,
                    ErrorKind.FORBIDDEN,
                    ErrorKind.CORRUPT,
                    ErrorKind.NOT_FOUND,
                ]
            )
            truncated = self.dice.random() < 0.5
            raise LakehouseError(kind, f"trouble {next(self.count)}", truncated=truncated)

    async def some(self, call: Callable[[], Awaitable[R]]) -> R:
        if self.dice.random() < 0.2:
            await call()
            await self.trouble()
        await self.trouble()
        return await call()

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self.some(lambda: self.inner.get(key, byte_range))

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self.some(lambda: self.inner.put(key, data, if_absent=if_absent))

    async def head(self, key: str) -> ObjectMeta:
        return await self.some(lambda: self.inner.head(key))

    async def delete(self, keys: Sequence[str]) -> None:
        await self.some(lambda: self.inner.delete(keys))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self.some(lambda: self.inner.list(prefix, limit=limit))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        await self.trouble()
        data = await self.inner.get(key)
        for at in range(0, len(data), 50):
            await self.trouble()
            yield data[at : at + 50]

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        await self.trouble()
        opened = await super().open(key, byte_range)

        async def pieces() -> AsyncIterator[bytes]:
            async for chunk in opened.chunks:
                for at in range(0, len(chunk), 50):
                    await self.trouble()
                    yield chunk[at : at + 50]

        return OpenedObject(opened.meta, opened.start, opened.end, pieces())


class Spy(ForwardingStore):
    """Below the journal: what crosses here is what happened."""

    def __init__(self, inner: GuardedStore, book: Book, clock: ManualClock) -> None:
        super().__init__(inner)
        self.book = book
        self.clock = clock

    async def one(self, key: str, call: Awaitable[R]) -> R:
        seen, began = Seen(), self.clock.monotonic()
        self.book.attempts.setdefault(key.rstrip("/"), []).append(seen)
        try:
            return await call
        except BaseException as error:
            seen.error, seen.seconds = error, self.clock.monotonic() - began
            raise

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self.one(key, self.inner.get(key, byte_range))

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self.one(key, self.inner.put(key, data, if_absent=if_absent))

    async def head(self, key: str) -> ObjectMeta:
        return await self.one(key, self.inner.head(key))

    async def delete(self, keys: Sequence[str]) -> None:
        await self.one(keys[0], self.inner.delete(keys))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self.one(prefix, self.inner.list(prefix, limit=limit))

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        seen = Seen()
        self.book.attempts.setdefault(key, []).append(seen)
        async for chunk in self.each(seen, super().stream(key)):
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        opened = await self.one(key, super().open(key, byte_range))
        seen = self.book.attempts[key][-1]
        return OpenedObject(opened.meta, opened.start, opened.end, self.each(seen, opened.chunks))

    async def each(self, seen: Seen, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        while True:
            began = self.clock.monotonic()
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except BaseException as error:
                seen.error, seen.seconds = error, self.clock.monotonic() - began
                raise
            yield chunk

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        return await self.one(key, super().put_stream(key, chunks))


class Sink:
    def __init__(self) -> None:
        self.got: list[FailedAttempt] = []

    def failed(self, attempt: FailedAttempt) -> None:
        self.got.append(attempt)


class World:
    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock, self.ids = ManualClock(), SeededIds(seed)
        self.book, self.sink = Book(), Sink()
        memory = MemoryStore(f"journal-{seed}", self.clock)
        self.memory = memory
        # In half of the worlds a breaker and few places refuse some attempts unsent.
        settings = ResilienceSettings(
            breaker_failures=seed % 2 * 4,
            breaker_seconds=0.0,
            in_flight_max=3 if seed % 4 == 1 else 64,
            waiting_max=2,
        )
        watch = BucketWatch("bucket", self.clock, settings)
        spy = Spy(
            GuardedStore(Troubled(memory, self.dice, self.clock), watch), self.book, self.clock
        )
        journal = JournalingStore(spy, watch, self.sink, self.clock, self.ids)
        self.store = RetryingStore(journal, self.clock, self.ids)

    async def operate(self, key: str) -> None:
        what = self.dice.choice(
            ["get", "put", "create", "head", "delete", "list", "stream", "open", "put_stream"]
        )
        if what in ("get", "head", "stream", "open"):
            await self.memory.put(key, DATA)
        store = self.store
        match what:
            case "get":
                await store.get(key)
            case "put" | "create":
                await store.put(key, DATA, if_absent=what == "create")
            case "head":
                await store.head(key)
            case "delete":
                await store.delete([key])
            case "list":
                await store.list(key + "/")
            case "stream":
                assert b"".join([chunk async for chunk in store.stream(key)]) == DATA
            case "open":
                opened = await store.open(key)
                assert b"".join([chunk async for chunk in opened.chunks]) == DATA
            case _:
                await store.put_stream(key, _two_halves())

    async def run(self) -> None:
        tasks = {}
        for number in range(OPERATIONS):
            tasks[f"key-{number}"] = asyncio.ensure_future(self.operate(f"key-{number}"))
        while not all(task.done() for task in tasks.values()):
            await self.clock.advance(self.dice.choice([0.02, 0.1, 0.7, 3.0]))
            if self.dice.random() < 0.15:
                self.dice.choice(list(tasks.values())).cancel()
        for key, task in tasks.items():
            gone = asyncio.CancelledError() if task.cancelled() else None
            self.book.ends[key] = gone or task.exception()


async def _two_halves() -> AsyncIterator[bytes]:
    yield DATA[:100]
    await asyncio.sleep(0)
    yield DATA[100:]


def expected(attempts: list[Seen], end: BaseException | None) -> list[tuple[object, ...]]:
    """(number, kind, final, outcome, sent) of each attempt that counts as failed."""
    found: list[tuple[object, ...]] = []
    for number, seen in enumerate(attempts, 1):
        error, last = seen.error, number == len(attempts)
        sent = True
        if isinstance(error, asyncio.CancelledError):
            if seen.seconds < PATIENCE_SECONDS:
                continue
            kind, sent = ErrorKind.TIMEOUT, was_sent(error)
        elif isinstance(error, LakehouseError) and not is_ordinary(error):
            kind, sent = error.kind, was_sent(error)
        else:
            continue
        outcome, final = AttemptOutcome.RETRIED, False
        if last:
            assert end is not None
            cancelled = isinstance(end, asyncio.CancelledError)
            outcome = AttemptOutcome.GIVEN_UP if cancelled else AttemptOutcome.FAILED
            final = True
        found.append((number, kind.value, final, outcome, sent))
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_failed_attempt_once_with_its_number_and_fate(seed: int) -> None:
    world = World(seed)
    await world.run()
    journaled: dict[str, list[FailedAttempt]] = {}
    for one in world.sink.got:
        journaled.setdefault(one.key.rstrip("/"), []).append(one)
    assert set(journaled) <= set(world.book.attempts)
    for key, attempts in world.book.attempts.items():
        told = sorted(journaled.get(key, []), key=lambda one: one.attempt)
        assert [
            (one.attempt, one.error_kind, one.final, one.outcome, one.sent) for one in told
        ] == expected(attempts, world.book.ends[key]), key
        assert len({one.op_id for one in told}) <= 1
    assert len({one.id for one in world.sink.got}) == len(world.sink.got)
    operations = {one.op_id: one.key.rstrip("/") for one in world.sink.got}
    assert len(set(operations.values())) == len(operations)


async def test_the_worlds_have_everything_in_them() -> None:
    """A model test that meets nothing proves nothing."""
    seen: list[FailedAttempt] = []
    for seed in SEEDS[:12]:
        world = World(seed)
        await world.run()
        seen += world.sink.got
    assert {one.outcome for one in seen} == set(AttemptOutcome) - {AttemptOutcome.RESCUED}
    assert {one.operation for one in seen} == {"get", "put", "head", "list", "delete"}
    assert {one.sent for one in seen} == {True, False}
    assert max(one.attempt for one in seen) >= 5
    assert {"unavailable", "timeout", "exhausted", "forbidden", "corrupt"} == {
        one.error_kind for one in seen
    }
