"""Whether the primary answers, known without waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lakehouse.appendlog.layout import LogLayout
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, to_datetime
from lakehouse.model.health import BucketHealth
from lakehouse.objectstore.guarding import GuardedStore
from lakehouse.objectstore.health import BucketWatch
from lakehouse.objectstore.port import ObjectMeta, ObjectStore
from lakehouse.objectstore.settings import ResilienceSettings
from lakehouse.objectstore.wrapping import ForwardingStore

LAYOUT: Final = LogLayout("_errors/bucket_errors")
WAIT_SECONDS: Final = 0.05
"""How long an answer about the primary is waited for; one that comes later serves the next."""

_HEARD: Final = timedelta(seconds=1)
# Shorter: an operator looks whether it is back.
_FAILED: Final = timedelta(seconds=0.25)
_ASK_SECONDS: Final = 5.0
_PROVE_SECONDS: Final = 2.5
# Short, for what waits for an answer that does not come is not written when the primary is back;
# and no breaker, for who asks again are a flush and a reader, both with pauses of their own.
_OWN: Final = ResilienceSettings(attempt_seconds=2.0, breaker_failures=0)


@dataclass(frozen=True, slots=True)
class Primary:
    """``down_since``: the first failure since it last answered, None while it answers or nobody
    knows otherwise; ``sure``: somebody heard of it, or failed to, just now."""

    down_since: datetime | None = None
    sure: bool = True


Prove = Callable[[], Awaitable[object]]


class ProvenStore(ForwardingStore):
    """Writes and deletes nothing before ``prove`` returned once: it raises while it is not known
    that this is the place it should be. ``batches``: those of the log it is known to have written.
    """

    def __init__(self, inner: ObjectStore, prove: Prove) -> None:
        super().__init__(inner)
        self.batches = 0
        self._prove = prove
        self._proven = False

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectMeta:
        await self._check()
        meta = await self.inner.put(key, data, if_absent=if_absent)
        self.batches += key.startswith(LAYOUT.slots)
        return meta

    async def delete(self, keys: Sequence[str]) -> None:
        await self._check()
        await self.inner.delete(keys)

    async def _check(self) -> None:
        if self._proven:
            return
        try:
            # Its reads have the patience of others, who wait for a bucket; a flush comes again.
            async with asyncio.timeout(_PROVE_SECONDS):
                await self._prove()
        except (LakehouseError, TimeoutError) as error:
            # Definitely not written, whatever kept it from being proven.
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "nothing is written where no store of ours is known to be",
                cause=str(error) or "no answer in time",
            ) from error
        self._proven = True


class Reach:
    """The journal's own handle of the primary, counted, and what is known of it.

    Attributes:
        store: as given; what fails of it is counted and goes into no journal.
        newest: number of the newest batch when the primary was last asked, -1 for an empty log.
    """

    def __init__(
        self, store: ObjectStore, health: Callable[[], BucketHealth], clock: Clock, prove: Prove
    ) -> None:
        self._own = BucketWatch("primary", clock, _OWN)
        self.store = ProvenStore(GuardedStore(store, self._own), prove)
        self.newest = -1
        self._health = health
        self._clock = clock
        self._asking: asyncio.Task[None] | None = None
        self._asked = to_datetime(0)

    @property
    def failures(self) -> int:
        """Own requests that failed since the start."""
        return self._own.health().failures

    async def look(self) -> Primary:
        """How the primary fares; it is asked unless it was just now, for ``WAIT_SECONDS``."""
        sure = self._is_fresh()
        if not self._is_asked():
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="is the primary there")
            done, _ = await asyncio.wait([self._asking], timeout=WAIT_SECONDS)
            sure = sure or bool(done)
        both = self._both()
        answered = max((one.last_success_at for one in both if one.last_success_at), default=None)
        since = [
            one.unavailable_since
            for one in both
            if one.unavailable_since is not None
            and one.last_error_at is not None
            and (answered is None or answered < one.last_error_at)
        ]
        return Primary(min(since, default=None), sure)

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _both(self) -> tuple[BucketHealth, BucketHealth]:
        return self._own.health(), self._health()

    def _is_fresh(self) -> bool:
        """Whether somebody heard of it, or failed to, just now."""
        now = to_datetime(self._clock.now_us())
        heard = [one.last_success_at for one in self._both() if one.last_success_at is not None]
        return any(now - at < _HEARD for at in heard) or self._failed(now)

    def _is_asked(self) -> bool:
        """Whether asking again would tell nothing new."""
        now = to_datetime(self._clock.now_us())
        return now - self._asked < _HEARD or self._failed(now)

    def _failed(self, now: datetime) -> bool:
        failed = [one.last_error_at for one in self._both() if one.last_error_at is not None]
        return any(now - at < _FAILED for at in failed)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                found = await self.store.list(LAYOUT.slots, limit=1)
            self.newest = LAYOUT.slot_number(found[0].key) if found else -1
            self._asked = to_datetime(self._clock.now_us())
        except (LakehouseError, TimeoutError):
            return  # counted, and known from now on
