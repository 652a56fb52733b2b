"""Retries with a bounded budget that keep the three outcomes of a write apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.retry import Backoff
from lakehouse.model.refs import check_key
from lakehouse.objectstore.answers import was_done_perhaps, was_sent
from lakehouse.objectstore.arguments import PART_BYTES
from lakehouse.objectstore.operations import (
    Operation,
    current_operation,
    operation,
    outcome_of,
    spread,
    stepwise,
)
from lakehouse.objectstore.port import ByteRange, Level, ObjectMeta, ObjectStore, OpenedObject
from lakehouse.objectstore.wrapping import ForwardingStore

R = TypeVar("R")

DEFAULT_BACKOFF: Final = Backoff()


class RetryingStore(ForwardingStore):
    """Repeats what failed in passing, with the same bytes.

    Reads, lists, deletes and plain puts are simply sent again: they have the same effect twice as
    once. A conditional put that meets its own earlier, ambiguous attempt reads the object back:
    the same bytes are success. A write whose attempts were ambiguous and then refused for another
    reason raises ``unknown``. A truncated read is repeated as well. ``put_stream`` is sent once:
    its chunks are gone.

    The ledger does not use this: its records carry a put id of their own.
    """

    def __init__(
        self, inner: ObjectStore, clock: Clock, ids: Ids, backoff: Backoff = DEFAULT_BACKOFF
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._ids = ids
        self._backoff = backoff

    async def get(self, key: str, byte_range: ByteRange | None = None) -> bytes:
        return await self._read(lambda: self.inner.get(key, byte_range))

    async def head(self, key: str) -> ObjectMeta:
        return await self._read(lambda: self.inner.head(key))

    async def list(
        self, prefix: str = "", *, start_after: str = "", limit: int = 1000
    ) -> list[ObjectMeta]:
        return await self._read(
            lambda: self.inner.list(prefix, start_after=start_after, limit=limit)
        )

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        # Before anything is sent, so that a refusal leaves no doubt.
        check_key(key)
        attempts = _Attempts(self._clock, self._ids, self._backoff)
        with operation(self._ids):
            while True:
                try:
                    return await self.inner.put(key, data, if_absent=if_absent)
                except LakehouseError as error:
                    if error.kind is ErrorKind.ALREADY_EXISTS and attempts.ambiguous:
                        return await self._settle(key, data, error)
                    await attempts.after(error)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            check_key(key)
        attempts = _Attempts(self._clock, self._ids, self._backoff)
        with operation(self._ids):
            while True:
                try:
                    return await self.inner.delete(keys)
                except LakehouseError as error:
                    await attempts.after(error)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """As the port; after a failure it goes on by ranged reads from where it stood.

        An object that is overwritten meanwhile could be mixed: whoever streams checks a hash.
        """
        attempts = _Attempts(self._clock, self._ids, self._backoff, writes=False)
        done = 0
        with spread(self._ids) as within:
            while True:
                source = super().stream(key) if done == 0 else self._rest(key, done)
                try:
                    async for chunk in stepwise(within, source):
                        if chunk:
                            done += len(chunk)
                            attempts = _Attempts(
                                self._clock, self._ids, self._backoff, writes=False
                            )
                        yield chunk
                    return
                except LakehouseError as error:
                    await attempts.after(error)

    async def _rest(self, key: str, start: int) -> AsyncIterator[bytes]:
        size = (await self.inner.head(key)).size_bytes
        for at in range(start, size, PART_BYTES):
            yield await self.inner.get(key, ByteRange(at, min(size, at + PART_BYTES)))

    async def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedObject:
        """As the port; chunks that fail go on by another read of what is left, while the object
        is the same. Raises ``conflict`` where it was replaced."""
        call = partial(super().open, key, byte_range)
        within = current_operation() or Operation(self._ids)
        try:
            with within.running():
                opened = await self._read(call)
        except BaseException as error:
            within.close(outcome_of(error))
            raise
        return replace(opened, chunks=self._resumed(opened, within))

    async def browse(
        self, prefix: str = "", *, after: str = "", limit: int = 1000, folders: bool = False
    ) -> Level:
        call = partial(super().browse, prefix, after=after, limit=limit, folders=folders)
        return await self._read(call)

    async def _resumed(self, opened: OpenedObject, within: Operation) -> AsyncIterator[bytes]:
        attempts = _Attempts(self._clock, self._ids, self._backoff, writes=False)
        at, source = opened.start, opened.chunks
        try:
            while True:
                try:
                    async for chunk in stepwise(within, source):
                        at += len(chunk)
                        if chunk:
                            attempts = _Attempts(
                                self._clock, self._ids, self._backoff, writes=False
                            )
                        yield chunk
                    within.close(None)
                    return
                except LakehouseError as error:
                    await attempts.after(error)
                source = self._left_of(opened, at)
        except BaseException as error:
            within.close(outcome_of(error))
            raise

    async def _left_of(self, opened: OpenedObject, at: int) -> AsyncIterator[bytes]:
        if at >= opened.end:
            return
        key, was = opened.meta.key, opened.meta
        again = await super().open(key, ByteRange(at, opened.end))
        if (again.meta.etag, again.meta.size_bytes) != (was.etag, was.size_bytes):
            raise LakehouseError(
                ErrorKind.CONFLICT, "the object was replaced while it was read", key=key
            )
        async for chunk in again.chunks:
            yield chunk

    async def _read(self, call: Callable[[], Awaitable[R]]) -> R:
        attempts = _Attempts(self._clock, self._ids, self._backoff, writes=False)
        with operation(self._ids):
            while True:
                try:
                    return await call()
                except LakehouseError as error:
                    await attempts.after(error)

    async def _settle(self, key: str, data: bytes, taken: LakehouseError) -> ObjectMeta:
        """Whose object is it that an earlier attempt of ours may have made?"""
        try:
            found = await self.get(key)
            if found == data:
                return await self.head(key)
        except LakehouseError as error:
            raise LakehouseError(
                ErrorKind.UNKNOWN,
                "the outcome of the write is not known: the object could not be read back",
                key=key,
                cause=str(error),
            ) from error
        raise taken


class _Attempts:
    """The attempts of one operation: counts them, waits between them, or gives up."""

    def __init__(self, clock: Clock, ids: Ids, backoff: Backoff, *, writes: bool = True) -> None:
        self._clock = clock
        self._ids = ids
        self._backoff = backoff
        self._writes = writes
        self._started = clock.monotonic()
        self._count = 0
        self.ambiguous = False

    async def after(self, error: LakehouseError) -> None:
        """Wait before the next attempt, or raise what the operation comes to."""
        self._count += 1
        if not (was_sent(error) or self._writes):
            # Somebody else may have the bytes: waiting is for those who have no choice.
            raise error
        if was_done_perhaps(error):
            self.ambiguous = True
        elif not (error.retryable or error.fields.get("truncated") is True):
            if error.kind is not ErrorKind.ALREADY_EXISTS:
                self._raise_unknown(error)
            raise error
        elapsed = self._clock.monotonic() - self._started
        delay = self._backoff.next_delay(self._count, elapsed, self._ids.uniform())
        if delay is None:
            if not was_done_perhaps(error):
                # That nothing was sent is true of the last attempt only.
                self._raise_unknown(error)
            error.fields.setdefault("attempts", self._count)
            raise error
        await self._clock.sleep(delay)

    def _raise_unknown(self, error: LakehouseError) -> None:
        """Raise ``unknown`` in place of a refusal, where an earlier attempt may have been done."""
        if self.ambiguous and self._writes:
            raise LakehouseError(
                ErrorKind.UNKNOWN,
                "the outcome of the write is not known: a later attempt was refused",
                attempts=self._count,
                cause=str(error),
            ) from error
