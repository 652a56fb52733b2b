"""Wrapper stores for tests and benchmarks: faults from a seed, latency, a record of requests."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, ObjectStore, OpenedObject
from lakehouse.objectstore.wrapping import ForwardingStore

R = TypeVar("R")


class Fault(StrEnum):
    """What may happen to one request."""

    BEFORE = "before"
    """An error, and nothing was done."""
    AFTER = "after"
    """An error, though it was done."""
    DELAYED = "delayed"
    """An error at once, and the effect comes later (``FaultStore.settle``, or by itself)."""
    TRUNCATED = "truncated"
    """A read whose reply ended early: ``corrupt``, as adapters that check lengths report it."""


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Probability of each fault a request, each in [0, 1], together at most 1."""

    before: float = 0.0
    after: float = 0.0
    delayed: float = 0.0
    truncated: float = 0.0


class FaultStore(ForwardingStore):
    """Injects faults drawn from a seed, or queued one by one with ``inject``.

    Args:
        inner: the store behind.
        seed: the same seed and the same requests give the same faults.
        rates: probabilities; none by default.
    """

    def __init__(self, inner: ObjectStore, seed: int = 0, rates: FaultRates = FaultRates()) -> None:
        super().__init__(inner)
        self._random = random.Random(seed)
        self._rates = rates
        self._queued: list[tuple[str, Fault, ErrorKind]] = []
        self._late: list[Callable[[], Awaitable[object]]] = []
        self.injected: Counter[str] = Counter()

    def inject(self, operation: str, fault: Fault, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> None:
        """Let the next request of ``operation`` (get put head list delete, * any) fail so."""
        self._queued.append((operation, fault, kind))

    async def settle(self, count: int | None = None) -> int:
        """Let ``count`` delayed effects (all by default) happen now, in order; returns how many."""
        due = self._late[:count] if count is not None else self._late[:]
        del self._late[: len(due)]
        for effect in due:
            try:
                await effect()
            except LakehouseError:
                continue  # a late conditional put that lost: nobody is there to be told
        return len(due)

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self._do("get", key, lambda: self.inner.get(key, byte_range), write=False)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        return await self._do("put", key, lambda: self.inner.put(key, data, if_absent=if_absent))

    async def head(self, key: str) -> ObjectMeta:
        return await self._do("head", key, lambda: self.inner.head(key), write=False)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._do("delete", ",".join(keys), lambda: self.inner.delete(keys))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self._do(
            "list",
            prefix,
            lambda: self.inner.list(prefix, start_after=start_after, limit=limit),
            write=False,
        )

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        fault, kind = self._draw("get", write=False)
        if fault in (Fault.BEFORE, Fault.AFTER, Fault.DELAYED):
            raise self._error("get", key, fault, kind)
        async for chunk in super().stream(key):
            if fault is Fault.TRUNCATED:
                yield chunk[: len(chunk) // 2]
                raise self._error("get", key, fault, kind)
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        fault, kind = self._draw("get", write=False)
        if fault in (Fault.BEFORE, Fault.AFTER, Fault.DELAYED):
            raise self._error("get", key, fault, kind)
        opened = await super().open(key, byte_range)
        if fault is Fault.TRUNCATED:
            broken = self._error("get", key, fault, kind)
            return replace(opened, chunks=_cut_short(opened.chunks, broken))
        return opened

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        call = partial(super().browse, prefix, after=after, limit=limit, folders=folders)
        return await self._do("list", prefix, call, write=False)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        """Fails by ``inject("put_stream", ...)`` only: no retry could hide it."""
        fault, kind = self._draw("put_stream", write=True)
        if fault is None:
            return await super().put_stream(key, chunks)
        if fault is Fault.AFTER:
            await super().put_stream(key, chunks)
        raise self._error("put_stream", key, fault, kind)

    async def _do(
        self, operation: str, key: str, call: Callable[[], Awaitable[R]], *, write: bool = True
    ) -> R:
        fault, kind = self._draw(operation, write=write)
        if fault is None:
            return await call()
        if fault is Fault.AFTER:
            await call()
        elif fault is Fault.DELAYED and write:
            self._late.append(call)
        raise self._error(operation, key, fault, kind)

    def _draw(self, operation: str, *, write: bool) -> tuple[Fault | None, ErrorKind]:
        for place, (wanted, fault, kind) in enumerate(self._queued):
            if wanted in ("*", operation):
                del self._queued[place]
                return fault, kind
        if operation == "put_stream":
            return None, ErrorKind.UNAVAILABLE
        dice = self._random.random()
        kind = ErrorKind.TIMEOUT if self._random.random() < 0.5 else ErrorKind.UNAVAILABLE
        rates = self._rates
        for fault, rate in (
            (Fault.BEFORE, rates.before),
            (Fault.AFTER, rates.after),
            (Fault.DELAYED, rates.delayed if write else 0.0),
            (Fault.TRUNCATED, rates.truncated if operation == "get" else 0.0),
        ):
            if dice < rate:
                return fault, kind
            dice -= rate
        return None, kind

    def _error(self, operation: str, key: str, fault: Fault, kind: ErrorKind) -> LakehouseError:
        self.injected[fault.value] += 1
        if fault is Fault.TRUNCATED:
            kind = ErrorKind.CORRUPT
        return LakehouseError(
            kind,
            "injected fault",
            operation=operation,
            key=key[:120],
            fault=fault.value,
            truncated=fault is Fault.TRUNCATED,
        )


async def _cut_short(chunks: AsyncIterator[bytes], broken: LakehouseError) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk[: len(chunk) // 2]
        raise broken


class LatencyStore(ForwardingStore):
    """Adds a wait to every request, on the given clock.

    Args:
        put_seconds: before each put; deletes take as long.
        get_seconds: before each get and head.
        list_seconds: before each list; None means as long as a get.
    """

    def __init__(
        self,
        inner: ObjectStore,
        clock: Clock,
        put_seconds: float = 0.0,
        get_seconds: float = 0.0,
        list_seconds: float | None = None,
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._put = put_seconds
        self._get = get_seconds
        self._list = get_seconds if list_seconds is None else list_seconds

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        await self._clock.sleep(self._get)
        return await self.inner.get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        await self._clock.sleep(self._put)
        return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        await self._clock.sleep(self._get)
        return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._clock.sleep(self._put)
        await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        await self._clock.sleep(self._list)
        return await self.inner.list(prefix, start_after=start_after, limit=limit)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        await self._clock.sleep(self._get)
        async for chunk in super().stream(key):
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        await self._clock.sleep(self._get)
        return await super().open(key, byte_range)

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        await self._clock.sleep(self._list)
        return await super().browse(prefix, after=after, limit=limit, folders=folders)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        await self._clock.sleep(self._put)
        return await super().put_stream(key, chunks)


class RecordingStore(ForwardingStore):
    """Remembers each request in ``log`` as (operation, key or prefix), also those that failed."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.log: list[tuple[str, str]] = []

    @property
    def counts(self) -> dict[str, int]:
        """Requests by operation since the start or the last ``reset``."""
        return dict(Counter(operation for operation, _ in self.log))

    def reset(self) -> None:
        """Forget what was recorded."""
        self.log.clear()

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        self.log.append(("get", key))
        return await self.inner.get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self.log.append(("put", key))
        return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        self.log.append(("head", key))
        return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        self.log.extend(("delete", key) for key in keys)
        await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        self.log.append(("list", prefix))
        return await self.inner.list(prefix, start_after=start_after, limit=limit)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        self.log.append(("get", key))
        async for chunk in super().stream(key):
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        self.log.append(("get", key))
        return await super().open(key, byte_range)

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        self.log.append(("list", prefix))
        return await super().browse(prefix, after=after, limit=limit, folders=folders)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        self.log.append(("put", key))
        return await super().put_stream(key, chunks)
