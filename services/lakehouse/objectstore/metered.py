"""Counting requests and bytes by operation: the basis of footprints and request-count tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit import tracing
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import Distribution
from lakehouse.kit.tracing import OpenSpan, SpanKind
from lakehouse.objectstore.arguments import LIST_LIMIT_MAX, PART_BYTES
from lakehouse.objectstore.operations import current_operation
from lakehouse.objectstore.port import (
    ByteRange,
    Level,
    ObjectMeta,
    ObjectStore,
    OpenedObject,
    StoreFootprint,
)
from lakehouse.objectstore.wrapping import ForwardingStore

OPERATIONS: Final = ("get", "put", "head", "list", "delete")

# What a store answers in the ordinary course; not a sign of a bucket in trouble.
_ORDINARY: Final = frozenset({ErrorKind.NOT_FOUND, ErrorKind.ALREADY_EXISTS, ErrorKind.INVALID})
_CANCELLED: Final = "cancelled"
_OURS: Final = ("datasets", "rescue", "store.json")


class MeteredStore(ForwardingStore):
    """Counts attempts, also failed ones, as a store would bill them.

    ``last_error`` is the last answer that speaks of trouble (kind and message), "" while there is
    none; a success after it leaves it, so that an operator sees what happened last. Every attempt
    passes here, so here is also where its time is taken and its span, if this process traces.

    Args:
        clock: None takes no times.
        name: the bucket's, for spans.
    """

    def __init__(self, inner: ObjectStore, clock: Clock | None = None, name: str = "") -> None:
        super().__init__(inner)
        self.clock = clock
        self.name = name
        self.seconds = {op: Distribution() for op in OPERATIONS}
        """How long answered attempts took, by operation; streamed reads up to their first bytes."""
        self.troubles: dict[tuple[str, str], int] = {}
        """Attempts that failed in no ordinary way, by operation and kind of error."""
        self._requests = dict.fromkeys(OPERATIONS, 0)
        self._bytes_read = 0
        self._bytes_written = 0
        self.last_error = ""

    def footprint(self) -> StoreFootprint:
        """The counters since this wrapper was made."""
        return StoreFootprint(dict(self._requests), self._bytes_read, self._bytes_written)

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        self._requests["get"] += 1
        with _Attempt(self, "get", key) as attempt:
            data = await self.inner.get(key, byte_range)
            attempt.size_bytes = len(data)
        self._bytes_read += len(data)
        return data

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        self._requests["put"] += 1
        self._bytes_written += len(data)
        with _Attempt(self, "put", key) as attempt:
            attempt.size_bytes = len(data)
            return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        self._requests["head"] += 1
        with _Attempt(self, "head", key):
            return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        self._requests["delete"] += -(-len(keys) // LIST_LIMIT_MAX)
        with _Attempt(self, "delete", keys[0] if keys else ""):
            await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        self._requests["list"] += 1
        with _Attempt(self, "list", prefix):
            return await self.inner.list(prefix, start_after=start_after, limit=limit)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        self._requests["get"] += 1
        async for chunk in self._counted(super().stream(key), _Attempt(self, "get", key)):
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        self._requests["get"] += 1
        with _Attempt(self, "get", key):
            opened = await super().open(key, byte_range)
        # The rest is the same request: it is neither timed nor counted again.
        rest = _Attempt(self, "get", key, answered=True)
        return replace(opened, chunks=self._counted(opened.chunks, rest))

    async def _counted(
        self, chunks: AsyncIterator[bytes], attempt: _Attempt
    ) -> AsyncIterator[bytes]:
        with attempt:
            async for chunk in chunks:
                attempt.answered()
                attempt.size_bytes += len(chunk)
                self._bytes_read += len(chunk)
                yield chunk

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        self._requests["list"] += 1
        with _Attempt(self, "list", prefix):
            return await super().browse(prefix, after=after, limit=limit, folders=folders)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        sent = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal sent
            async for chunk in chunks:
                sent += len(chunk)
                yield chunk

        try:
            with _Attempt(self, "put", key, answered=True):
                return await super().put_stream(key, counted())
        finally:
            parts = -(-sent // PART_BYTES)
            # One part is a plain put; more are a start, the parts, and a completion.
            self._requests["put"] += parts + 2 if parts > 1 else 1
            self._bytes_written += sent


class _Attempt:
    """One attempt from its beginning to its answer, or to what came in its place.

    A class, for a generator takes twice the time, and this is on the way of every request.
    """

    __slots__ = ("_began", "_key", "_op", "_open", "_span", "_store", "size_bytes")

    def __init__(self, store: MeteredStore, op: str, key: str, *, answered: bool = False) -> None:
        self._store = store
        self._op = op
        self._key = key
        self._open = not answered
        self._span: OpenSpan | None = None
        self.size_bytes = 0

    def __enter__(self) -> _Attempt:
        clock = self._store.clock
        self._began = clock.monotonic() if clock is not None else 0.0
        if tracing.tracer is not None:
            about = _about(self._store.name, self._op, self._key)
            self._span = tracing.tracer.begin(f"bucket {self._op}", SpanKind.CLIENT, about)
        return self

    def answered(self) -> None:
        """The first bytes are here: what follows takes as long as its reader does."""
        clock = self._store.clock
        if self._open and clock is not None:
            self._store.seconds[self._op].observe(clock.monotonic() - self._began)
        self._open = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.answered()
        elif not isinstance(error, GeneratorExit):
            self._failed(error)
        if self._span is not None:
            # A reader that has seen enough is no failure.
            left = isinstance(error, GeneratorExit)
            self._span.end(None if left else error, {"lakehouse.bytes": self.size_bytes})

    def _failed(self, error: BaseException) -> None:
        store, what = self._store, _CANCELLED
        if isinstance(error, LakehouseError):
            if error.kind in _ORDINARY:
                self.answered()
                return
            what = error.kind.value
            store.last_error = str(error)
        key = (self._op, what)
        store.troubles[key] = store.troubles.get(key, 0) + 1


def _about(bucket: str, op: str, key: str) -> Mapping[str, str | int]:
    """Of a key only the part that is ours: the rest may be a name that somebody chose."""
    first, _, _ = key.partition("/")
    operation = current_operation()
    return {
        "lakehouse.bucket": bucket,
        "lakehouse.operation": op,
        "lakehouse.prefix": first if first.startswith("_") or first in _OURS else "",
        "lakehouse.attempt": 1 if operation is None else max(1, operation.attempts),
    }
