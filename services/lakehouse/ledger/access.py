"""A ledger's way to its store: the handles it needs together, and patience for safe requests.

Safe here means that doing it twice is doing it once: reads, deletes, and writes of objects that are
named by their content. Appending to the chain is not safe; ``chain`` has its own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from lakehouse.errors import RETRYABLE, ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.operations import operation
from lakehouse.objectstore.port import ObjectStore

T = TypeVar("T")

CONCURRENT_READS: Final = 32
# A reply that contradicts itself was damaged on the way; damage at rest is found by checksums.
_TRANSIENT: Final = RETRYABLE | {ErrorKind.CORRUPT}


@dataclass(frozen=True, slots=True)
class Access:
    """``store`` must not retry conditional writes by itself (``Buckets.raw``)."""

    store: ObjectStore
    layout: Layout
    clock: Clock
    ids: Ids
    settings: LedgerSettings

    def backoff_seconds(self, attempt: int) -> float:
        """Exponential from ``backoff_seconds`` with full jitter; ``attempt`` counts from 0."""
        ceiling = self.settings.backoff_seconds * 2.0 ** min(attempt, 16)
        return min(ceiling, self.settings.backoff_seconds_max) * (0.5 + self.ids.uniform() / 2)

    async def patiently(self, request: Callable[[], Awaitable[T]]) -> T:
        """The reply to a safe ``request``, repeated on transient errors within the budget."""
        deadline = self.clock.monotonic() + self.settings.append_budget_seconds
        attempt = 0
        with operation(self.ids) as within:
            while True:
                try:
                    return await request()
                except LakehouseError as error:
                    if error.kind is ErrorKind.CORRUPT:
                        within.refuse(error)
                    if error.kind not in _TRANSIENT or self.clock.monotonic() >= deadline:
                        raise
                await self.clock.sleep(self.backoff_seconds(attempt))
                attempt += 1

    async def get(self, key: str) -> bytes:
        return await self.patiently(lambda: self.store.get(key))

    async def read(self, key: str, check: Callable[[bytes], Awaitable[T]]) -> T:
        """What ``check`` makes of the object, which raises ``corrupt`` for bytes that it must not
        have. Those are read once more: it may have been the way here that damaged them."""
        with operation(self.ids) as within:
            try:
                return await check(await self.get(key))
            except LakehouseError as error:
                if error.kind is not ErrorKind.CORRUPT:
                    raise
                within.refuse(error)
            try:
                return await check(await self.get(key))
            except LakehouseError as error:
                if error.kind is ErrorKind.CORRUPT:
                    within.refuse(error)
                raise

    async def list_keys(self, prefix: str, start_after: str = "", limit: int = 1000) -> list[str]:
        """Keys in order; see ``ObjectStore.list``."""
        found = await self.patiently(
            lambda: self.store.list(prefix, start_after=start_after, limit=limit)
        )
        return [meta.key for meta in found]

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self.patiently(lambda: self.store.delete(keys))

    async def put_named(self, key: str, data: bytes) -> None:
        """Write an object whose key follows from its content; one that is there is this one."""
        try:
            await self.patiently(lambda: self.store.put(key, data, if_absent=True))
        except LakehouseError as error:
            if error.kind is not ErrorKind.ALREADY_EXISTS:
                raise

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The objects in the order of ``keys``, ``None`` where there is none."""
        return await self.side_by_side([partial(self.get, key) for key in keys])

    async def side_by_side(self, reads: Sequence[Callable[[], Awaitable[T]]]) -> list[T | None]:
        """What ``reads`` return in their order, some at a time; ``None`` for ``not_found``."""
        gate = asyncio.Semaphore(CONCURRENT_READS)

        async def one(read: Callable[[], Awaitable[T]]) -> T | None:
            async with gate:
                try:
                    return await read()
                except LakehouseError as error:
                    if error.kind is ErrorKind.NOT_FOUND:
                        return None
                    raise

        tasks = [asyncio.ensure_future(one(read)) for read in reads]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
