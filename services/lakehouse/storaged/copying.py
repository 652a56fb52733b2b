"""One object into the rescue bucket: verified on the way, put if absent, within a bandwidth."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.model.dataset import DataFile, stats_key
from lakehouse.objectstore.answers import was_done_perhaps, was_sent
from lakehouse.objectstore.operations import operation
from lakehouse.objectstore.port import ObjectStore, StreamingReads, StreamingWrites
from lakehouse.objectstore.rescue import STREAM_ABOVE_BYTES, KnownObject, rescue_key

__all__ = ["Copying", "Pace", "Stores", "known_objects"]


class Stores(Protocol):
    """Buckets by name."""

    def get(self, name: str) -> ObjectStore: ...


def known_objects(file: DataFile) -> Iterator[KnownObject]:
    """The objects that live and go with ``file`` and whose content the catalog knows."""
    yield KnownObject(file.bucket, file.key, file.size_bytes, file.sha256)
    if file.stats_sha256:
        yield KnownObject(file.bucket, stats_key(file.key), 0, file.stats_sha256)


class Pace:
    """Spreads bytes over time: at most ``bytes_per_second`` of them, 0 is no bound."""

    def __init__(self, clock: Clock, bytes_per_second: int) -> None:
        self._clock = clock
        self._rate = bytes_per_second
        self._next = clock.monotonic()

    async def take(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` more are due."""
        if self._rate <= 0:
            return
        start = max(self._next, self._clock.monotonic())
        self._next = start + size_bytes / self._rate
        await self._clock.sleep(max(0.0, start - self._clock.monotonic()))


class Copying:
    """Copies and removes objects of the rescue bucket; knows nothing of when and why.

    Args:
        stores: the buckets, with retries.
        rescue: the rescue bucket's name.

    ``unsettled_at``: when (monotonic) a put of a copy last ended so that nobody knows whether it
    took effect, or will yet; None where none did.
    """

    def __init__(self, stores: Stores, rescue: str, pace: Pace, clock: Clock, ids: Ids) -> None:
        self._ids = ids
        self._stores = stores
        self._rescue = rescue
        self._pace = pace
        self._clock = clock
        self.unsettled_at: float | None = None

    @property
    def store(self) -> ObjectStore:
        """The rescue bucket."""
        return self._stores.get(self._rescue)

    async def copy(self, wanted: KnownObject, *, doubtful: bool = False) -> None:
        """See to it that the object's copy is there; nothing is overwritten. ``doubtful``: it may
        well be there, so that is asked before its own bucket is read.

        Raises what its own bucket raises, ``corrupt`` if the bytes there are not those that are
        known: they are not copied. A copy with other bytes than those is removed first: an object
        of somebody else may have been registered again, with another content.
        """
        key = rescue_key(wanted.bucket, wanted.key)
        source, target = self._stores.get(wanted.bucket), self.store
        large = wanted.size_bytes > STREAM_ABOVE_BYTES
        if large and isinstance(source, StreamingReads) and isinstance(target, StreamingWrites):
            if not await self._stands(wanted, key):
                unread: list[LakehouseError] = []
                with self._settling(unread):
                    await target.put_stream(key, self._checked(source, wanted, unread))
            return
        if doubtful and await self._stands(wanted, key):
            return
        await self._pace.take(wanted.size_bytes)
        # One operation: bytes that are not the object's are a failed attempt like any other.
        with operation(self._ids) as within:
            data = await source.get(wanted.key)
            try:
                _check(wanted, (await run_blocking(hashlib.sha256, data)).hexdigest())
            except LakehouseError as error:
                within.refuse(error)
                raise
        try:
            with self._settling():
                await target.put(key, data, if_absent=True)
        except LakehouseError as error:
            if error.kind is not ErrorKind.ALREADY_EXISTS:
                raise
            if not await self._stands(wanted, key):
                with self._settling():
                    await target.put(key, data, if_absent=True)

    @contextmanager
    def _settling(self, unread: Sequence[LakehouseError] = ()) -> Iterator[None]:
        """Remember a put that may take effect after its end, but not one that failed because its
        bytes could not be had (``unread``)."""
        try:
            yield
        except (LakehouseError, asyncio.CancelledError) as error:
            known = isinstance(error, LakehouseError) and not was_done_perhaps(error)
            if not (known or error in unread) and was_sent(error):
                self.unsettled_at = self._clock.monotonic()
            raise

    async def is_right(self, wanted: KnownObject) -> bool:
        """Whether the copy has the bytes it must have; all of it is read. Raises ``not_found``."""
        key = rescue_key(wanted.bucket, wanted.key)
        digest, store = hashlib.sha256(), self.store
        if wanted.size_bytes > STREAM_ABOVE_BYTES and isinstance(store, StreamingReads):
            async for chunk in store.stream(key):
                await self._pace.take(len(chunk))
                await run_blocking(digest.update, chunk)
        else:
            await self._pace.take(wanted.size_bytes)
            digest.update(await store.get(key))
        return digest.hexdigest() == wanted.sha256

    async def remove(self, copies: list[str]) -> None:
        """Delete copies by their keys in the rescue bucket; those that are not there are gone."""
        if copies:
            await self.store.delete(copies)

    async def _stands(self, wanted: KnownObject, key: str) -> bool:
        """Whether the right copy is there. One that is not the right one is removed."""
        ours = wanted.key.startswith("datasets/")
        try:
            # What a session wrote is never written again: a copy of its size is its copy.
            found = await self.store.head(key)
            same = wanted.size_bytes in (0, found.size_bytes)
            if same and (ours or await self.is_right(wanted)):
                return True
        except LakehouseError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return False
            raise
        await self.remove([key])
        return False

    async def _checked(
        self, source: StreamingReads, wanted: KnownObject, unread: list[LakehouseError]
    ) -> AsyncIterator[bytes]:
        """The object's chunks; raises after the last one if they are not what is known, and so
        keeps the copy from appearing. What it raises is put into ``unread``."""
        digest = hashlib.sha256()
        try:
            async for chunk in source.stream(wanted.key):
                await self._pace.take(len(chunk))
                await run_blocking(digest.update, chunk)
                yield chunk
                await asyncio.sleep(0)
            _check(wanted, digest.hexdigest())
        except LakehouseError as error:
            unread.append(error)
            raise


def _check(wanted: KnownObject, found: str) -> None:
    if found != wanted.sha256:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "an object is not what the catalog says it is, so it is not copied",
            bucket=wanted.bucket,
            key=wanted.key,
            sha256_expected=wanted.sha256,
            sha256_found=found,
        )
