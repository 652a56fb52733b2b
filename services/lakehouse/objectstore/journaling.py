"""Each failed attempt at a bucket, once, with the operation it belongs to and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.acting import acting
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.kit.ids import Ids
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.objectstore.answers import StoreError, is_ordinary, was_sent
from lakehouse.objectstore.failures import FailureSink
from lakehouse.objectstore.health import BucketWatch
from lakehouse.objectstore.operations import Operation, current_operation, outcome_of
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, ObjectStore, OpenedObject
from lakehouse.objectstore.sources import Source
from lakehouse.objectstore.wrapping import ForwardingStore

_REASON_MAX: Final = 300


class JournalingStore(ForwardingStore):
    """Hands each failed attempt to ``sink`` when it is known what came of it.

    What is an ordinary answer is no failure (``answers.is_ordinary``). An attempt that its caller
    gives up counts if it had no answer for the operation's patience. Attempts outside of any
    operation are operations of one attempt.

    Args:
        watch: the bucket's name, and where retries are counted.
    """

    def __init__(
        self, inner: ObjectStore, watch: BucketWatch, sink: FailureSink, clock: Clock, ids: Ids
    ) -> None:
        super().__init__(inner)
        self.watch = watch
        self.sink = sink
        self.clock = clock
        self.ids = ids

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        with Attempt(self, "get", key):
            return await self.inner.get(key, byte_range)

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        with Attempt(self, "put", key):
            return await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectMeta:
        with Attempt(self, "head", key):
            return await self.inner.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        with Attempt(self, "delete", keys[0] if keys else ""):
            await self.inner.delete(keys)

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        with Attempt(self, "list", prefix):
            return await self.inner.list(prefix, start_after=start_after, limit=limit)

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        with Attempt(self, "list", prefix):
            return await super().browse(prefix, after=after, limit=limit, folders=folders)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        attempt = Attempt(self, "get", key)
        async for chunk in attempt.over(super().stream(key)):
            yield chunk

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        with Attempt(self, "get", key) as attempt:
            opened = await super().open(key, byte_range)
        return replace(opened, chunks=attempt.over(opened.chunks))

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> ObjectMeta:
        source = Source(chunks, self.clock)
        with Attempt(self, "put", key, source):
            return await super().put_stream(key, source)


class Attempt:
    """One attempt, as a context manager around the request.

    Args:
        source: of a streamed write; what it raises is its own failure and not the bucket's.
    """

    __slots__ = ("_at", "_key", "_number", "_operation", "_own", "_source", "_store", "_what")

    def __init__(
        self, store: JournalingStore, what: str, key: str, source: Source | None = None
    ) -> None:
        self._store = store
        self._what = what
        self._key = key
        self._source = source
        self._at = 0.0
        self._join()

    def _join(self) -> None:
        found = current_operation()
        self._own = found is None
        self._operation = Operation(self._store.ids) if found is None else found
        self._number = 0

    def __enter__(self) -> Self:
        if self._operation.closed:
            self._join()
        if self._number == 0:
            operation, watch = self._operation, self._store.watch
            if operation.begin(watch.name):
                watch.retries += 1
            self._number = operation.attempts
        self._at = self._store.clock.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        operation = self._operation
        if error is None:
            operation.last = self
            return
        operation.last = None
        self._failed(error)
        if self._own:
            operation.close(outcome_of(error))

    async def over(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks; whatever fails of them fails this attempt, which begins here if it has not.

        The time between chunks is the reader's, and so is what ends the reading early.
        """
        while True:
            with self, self._operation.running():
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk

    def refuse(self, error: LakehouseError) -> None:
        """The answer came, and it was not what it must be."""
        self._hold(error.kind, error.message, error)

    def _failed(self, error: BaseException) -> None:
        source = self._source
        if source is not None and source.failure is error:
            return
        if isinstance(error, LakehouseError):
            if not is_ordinary(error):
                self._hold(error.kind, error.message, error)
        elif isinstance(error, asyncio.CancelledError):
            silence = self._store.clock.monotonic() - self._at
            if source is not None:
                silence = min(silence, source.silence())
            if silence >= self._operation.patience_seconds:
                reason = "given up by its caller without an answer"
                self._hold(ErrorKind.TIMEOUT, reason, error)
        elif isinstance(error, Exception):
            self._hold(ErrorKind.INTERNAL, type(error).__name__, error)

    def _hold(self, kind: ErrorKind, reason: str, error: BaseException) -> None:
        store, who = self._store, acting()
        cause = error.fields.get("cause") if isinstance(error, LakehouseError) else None
        answer = error if isinstance(error, StoreError) else None
        retried = isinstance(error, Exception)
        outcome = AttemptOutcome.RETRIED if retried else AttemptOutcome.GIVEN_UP
        failed = FailedAttempt(
            id=store.ids.ulid(),
            at=to_datetime(store.clock.now_us()),
            bucket=store.watch.name,
            operation=self._what,
            key=self._key,
            error_kind=kind.value,
            reason=(f"{reason}: {cause}" if cause else reason)[:_REASON_MAX],
            http_status=answer.status if answer is not None else 0,
            store_request_id=answer.request_id if answer is not None else "",
            latency_ms=round((store.clock.monotonic() - self._at) * 1_000, 3),
            op_id=self._operation.id,
            attempt=self._number,
            final=False,
            outcome=outcome,
            sent=was_sent(error),
            actor=who.actor,
            request_id=who.request_id,
        )
        self._operation.hold(store.sink, failed)
