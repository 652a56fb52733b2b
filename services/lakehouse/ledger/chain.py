"""Slots of the chain: finding the newest, reading one, and occupying the next one.

``Append`` is the only loop in the project that repeats a conditional write. It sends the same bytes
until the slot is taken, by these bytes or by another's, and then looks at the floor: only a success
above the floor is one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Generic, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger import floor
from lakehouse.ledger.access import Access
from lakehouse.ledger.record import Encoded, Record, decode, fill
from lakehouse.model.failures import AttemptOutcome
from lakehouse.objectstore.operations import current_operation, operation

R = TypeVar("R")

_SAMPLES: Final = 128
_SAMPLES_MIN: Final = 16
_HEDGE_UNKNOWN_SECONDS: Final = 2.0
_BIG_BYTES: Final = 64 * 1024


class Outcome(StrEnum):
    """What became of an append. ``FENCED``: certainly not in the chain, another record is.
    ``LOST``: fenced, but it may be in the chain all the same. ``UNSETTLED``: not known yet."""

    COMMITTED = "committed"
    FENCED = "fenced"
    LOST = "lost"
    UNSETTLED = "unsettled"


class _Attempt(StrEnum):
    DONE = "done"
    EXISTS = "exists"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Slot:
    """A record as read: ``data`` are its exact bytes."""

    record: Record
    data: bytes


async def newest(access: Access) -> int | None:
    """The number of the newest slot, ``None`` for an empty chain. One LIST of one key."""
    found = await access.store.list(access.layout.slots, limit=1)
    return access.layout.slot_number(found[0].key) if found else None


async def parse(access: Access, n: int, data: bytes) -> Slot:
    """The record in ``data``, verified, with its body object if it has one."""
    if len(data) > _BIG_BYTES:
        record = await run_blocking(decode, data, access.layout, n)
    else:
        record = decode(data, access.layout, n)
    if record.body is not None:
        body = await access.get(record.body.key)
        record = await run_blocking(fill, record, body, access.layout)
    return Slot(record, data)


async def read_slot(access: Access, n: int) -> Slot:
    """Record ``n`` from its slot, verified. Raises ``not_found``, ``corrupt``."""
    return await access.read(access.layout.slot(n), partial(parse, access, n))


async def read_slots(access: Access, numbers: Sequence[int]) -> list[Slot | None]:
    """As ``read_slot`` for each of ``numbers``, ``None`` for an empty slot."""
    return await access.side_by_side([partial(read_slot, access, n) for n in numbers])


class Latencies:
    """Recent times of writes, to tell a slow one."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def p99(self) -> float | None:
        """``None`` until there is enough to go by."""
        if len(self._seconds) < _SAMPLES_MIN:
            return None
        return sorted(self._seconds)[int(len(self._seconds) * 0.99)]


@dataclass(frozen=True, slots=True)
class Claim(Generic[R]):
    """The bytes ``data`` for slot ``n``; ``read`` makes sense of a slot's bytes (raises if it
    cannot) and ``is_mine`` tells whether they are those of this claim."""

    n: int
    data: bytes
    read: Callable[[bytes], R]
    is_mine: Callable[[R], bool]


def record_claim(access: Access, encoded: Encoded) -> Claim[Record]:
    """The claim of a ledger record on its slot."""
    record = encoded.record
    return Claim(
        record.n,
        encoded.data,
        lambda data: decode(data, access.layout, record.n),
        lambda found: is_mine(found, record),
    )


class Append(Generic[R]):
    """One record on its way into one slot. ``run`` may be called again after ``UNSETTLED``."""

    def __init__(self, access: Access, claim: Claim[R], latencies: Latencies) -> None:
        self._access = access
        self._claim = claim
        self._latencies = latencies
        self._n = claim.n
        self._ambiguous = False
        self._occupied = False
        self._refusal: LakehouseError | None = None
        self.other: R | None = None

    async def run(self, budget_seconds: float | None) -> Outcome:
        """Occupy the slot, then check the floor. ``None`` as budget: as long as it takes.

        Raises LakehouseError ``forbidden``, ``invalid`` or ``not_found`` if the store refused and
        the record is certainly not in the chain.
        """
        clock, ids = self._access.clock, self._access.ids
        deadline = None if budget_seconds is None else clock.monotonic() + budget_seconds
        attempt = 0
        # A write that its hedge overtook was without an answer for at least so long.
        with operation(ids, self._access.settings.hedge_seconds_min) as within:
            while True:
                outcome = await self._once(deadline)
                if outcome is not Outcome.UNSETTLED:
                    return outcome
                if deadline is not None and clock.monotonic() >= deadline:
                    within.close(AttemptOutcome.FAILED)
                    return outcome
                await clock.sleep(self._access.backoff_seconds(attempt))
                attempt += 1

    async def settle(self) -> Outcome:
        """Go on until the slot is somebody's, whatever the store answers meanwhile."""
        while True:
            try:
                outcome = await self.run(None)
            except LakehouseError:
                await self._access.clock.sleep(self._access.settings.backoff_seconds_max)
                continue
            if outcome is not Outcome.UNSETTLED:
                return outcome

    async def _once(self, deadline: float | None) -> Outcome:
        if not self._occupied:
            result = await self._put(deadline)
            if result is _Attempt.FAILED:
                return Outcome.UNSETTLED
            if result is _Attempt.EXISTS:
                return await self._read_back()
            self._occupied = True
        return await self._check_floor()

    def _refused(self) -> Outcome:
        return Outcome.LOST if self._ambiguous else Outcome.FENCED

    async def _check_floor(self) -> Outcome:
        try:
            collected = await floor.read_floor(self._access)
        except LakehouseError:
            # The slot may be ours by now: whatever the error is, it refuses nothing.
            self._ambiguous = True
            return Outcome.UNSETTLED
        if self._n > collected:
            return Outcome.COMMITTED
        # Either the slot had been collected before this record came, or it came in time, was
        # carried on by another writer and collected since (this process slept): no telling.
        return Outcome.LOST

    async def _read_back(self) -> Outcome:
        """Whose the slot is; if it is gone again, whether it is worth another attempt."""
        key = self._access.layout.slot(self._n)
        try:
            found = self._claim.read(await self._access.store.get(key))
        except LakehouseError as error:
            if error.kind is ErrorKind.CORRUPT and (within := current_operation()) is not None:
                within.refuse(error)
            if error.kind is not ErrorKind.NOT_FOUND:
                return Outcome.UNSETTLED
            outcome = await self._check_floor()
            return Outcome.UNSETTLED if outcome is Outcome.COMMITTED else outcome
        if self._claim.is_mine(found):
            self._occupied = True
            return await self._check_floor()
        self.other = found
        return self._refused()

    async def _put(self, deadline: float | None) -> _Attempt:
        """One write; a second one of the same bytes beside it if the first is slow."""
        clock = self._access.clock
        started = clock.monotonic()
        writes = [asyncio.ensure_future(self._write())]
        timer = asyncio.ensure_future(clock.sleep(self._hedge_seconds()))
        hedged = False
        try:
            while True:
                await asyncio.wait([*writes, timer], return_when=asyncio.FIRST_COMPLETED)
                results = [write.result() for write in writes if write.done()]
                writes = [write for write in writes if not write.done()]
                if _Attempt.DONE in results:
                    self._latencies.add(clock.monotonic() - started)
                    return _Attempt.DONE
                if _Attempt.EXISTS in results:
                    # With another of ours under way it may well be ours: reading back tells.
                    return _Attempt.EXISTS
                if not writes:
                    if self._refusal is not None and not self._ambiguous:
                        raise self._refusal
                    return _Attempt.FAILED
                if timer.done():
                    if hedged:
                        self._ambiguous = True
                        return _Attempt.FAILED
                    hedged = True
                    writes.append(asyncio.ensure_future(self._write()))
                    timer = asyncio.ensure_future(clock.sleep(self._patience_seconds(deadline)))
        finally:
            # What is still under way carries the same bytes to the same slot: it may arrive.
            self._ambiguous = self._ambiguous or bool(writes)
            for task in (*writes, timer):
                task.cancel()

    async def _write(self) -> _Attempt:
        key = self._access.layout.slot(self._n)
        try:
            await self._access.store.put(key, self._claim.data, if_absent=True)
        except LakehouseError as error:
            if error.kind is ErrorKind.ALREADY_EXISTS:
                return _Attempt.EXISTS
            if error.kind in (ErrorKind.FORBIDDEN, ErrorKind.INVALID, ErrorKind.NOT_FOUND):
                self._refusal = error
                return _Attempt.REFUSED
            self._ambiguous = True
            return _Attempt.FAILED
        return _Attempt.DONE

    def _hedge_seconds(self) -> float:
        settings = self._access.settings
        p99 = self._latencies.p99()
        if p99 is None:
            return max(_HEDGE_UNKNOWN_SECONDS, settings.hedge_seconds_min)
        return max(p99 * settings.hedge_factor, settings.hedge_seconds_min)

    def _patience_seconds(self, deadline: float | None) -> float:
        """How long to wait for two writes before both count as failed."""
        patience = self._access.settings.append_budget_seconds
        if deadline is not None:
            patience = min(patience, deadline - self._access.clock.monotonic())
        return max(patience, 0.0)


def is_mine(found: Record, sent: Record) -> bool:
    """True if ``found`` is the record that was sent: its put id tells, and who made the id."""
    return (found.put_id, found.writer) == (sent.put_id, sent.writer)
