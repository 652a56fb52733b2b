"""The one place that takes slots: puts a batch into the next free one and knows what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from lakehouse.appendlog.batch import (
    HEADER_BYTES,
    Body,
    Encoded,
    Header,
    Position,
    encode,
    read_header,
)
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.objects import LogObjects
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import chain, floor
from lakehouse.ledger.access import Access
from lakehouse.ledger.chain import Append, Claim, Latencies, Outcome
from lakehouse.objectstore.port import ByteRange

_DAMAGED_READS: Final = 3
_LOOKS: Final = 8


@dataclass(frozen=True, slots=True)
class _Found:
    """What lies in a slot; no header: it cannot be read, and is somebody's all the same."""

    header: Header | None


class SlotWriter:
    """Writes one batch at a time. ``at`` is the newest batch known, ``None`` before the first look.

    ``settling`` is true while nobody knows whether a batch is in the log.
    """

    def __init__(self, access: Access, layout: LogLayout, writer: str) -> None:
        self.at: Position | None = None
        self.settling = False
        self._access = access
        self._layout = layout
        self._objects = LogObjects(access, layout)
        self._writer = writer
        self._latencies = Latencies()

    async def look(self) -> Position:
        """The newest batch: one LIST of one key and one ranged GET. Transient errors are raised."""
        for _ in range(_LOOKS):
            newest = await chain.newest(self._access)
            if newest is None:
                await self._refuse_lost()
                self.at = Position()
                return self.at
            try:
                self.at = await self._position(newest)
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
                continue  # it was the newest, long ago: this process slept
            return self.at
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "the newest batch of the log cannot be found",
            url=self._access.store.url,
        )

    async def _refuse_lost(self) -> None:
        """Raise ``corrupt`` if an empty log is not a new one: compaction and retention always leave
        the newest batch."""
        collected = await floor.read_floor(self._access)
        if collected >= 0 and await chain.newest(self._access) is None:
            raise LakehouseError(
                ErrorKind.CORRUPT,
                "the newest batches of the log are missing",
                missing=self._layout.slots,
                floor=collected,
                hint="restore the log's folder from a backup, or move what is left of it away",
            )

    async def _position(self, n: int) -> Position:
        key = self._layout.slot(n)
        try:
            data = await self._access.store.get(key, ByteRange(0, HEADER_BYTES))
            return Position.of(read_header(data, key))
        except LakehouseError as error:
            if error.kind not in (ErrorKind.CORRUPT, ErrorKind.INVALID):
                raise
            # One bad batch stops no log: times go on from the clock.
            return Position(n)

    async def write(
        self,
        body: Body,
        budget_seconds: float | None,
        on_unknown: Callable[[], None],
        before_put: Callable[[int], Awaitable[None]] | None = None,
        aimed_at: int | None = None,
    ) -> Header:
        """Have ``body`` in the log once; its header says where.

        ``on_unknown`` is called when the budget is spent and the outcome is open: the batch is
        settled all the same, and only then this returns. ``before_put`` hears of each slot before
        it is tried; ``aimed_at`` is the slot that a process before this one last heard of so: what
        it sent may be there, or arrive yet. Raises what the store refused with (``forbidden`` ..),
        ``unavailable`` if nothing was sent, ``unknown`` if retention was past the slot before
        anybody could look.
        """
        while True:
            try:
                before = self.at
                if before is None:
                    before = await self._access.patiently(self.look)
            except LakehouseError as error:
                if error.retryable:
                    raise LakehouseError(
                        ErrorKind.UNAVAILABLE, "the log cannot be reached", cause=str(error)
                    ) from error
                raise
            if aimed_at is not None and before.n >= aimed_at:
                # Somebody's by now: only this tells whether what was sent before got there.
                found = await self._sent_before(aimed_at, body.put_id)
                if found is not None:
                    return found
                aimed_at = None
            encoded = encode(body, before, self._writer, self._access.clock.now_us())
            if before_put is not None:
                await before_put(encoded.header.n)
            append = Append(self._access, self._claim(encoded), self._latencies)
            outcome = await append.run(budget_seconds)
            if outcome is Outcome.UNSETTLED:
                on_unknown()
                outcome = await self._settle(append)
            if outcome is Outcome.COMMITTED:
                self.at = Position.of(encoded.header)
                return encoded.header
            self.at = None
            settled = await self._settled(encoded.header.n, body.put_id, on_unknown)
            if settled is not None:
                return settled

    async def find(self, n: int, put_id: str) -> Header | None:
        """The batch ``put_id`` if it is at ``n``; ``None`` if it certainly is not.

        Raises ``unknown`` if retention has given up that part of the log.
        """
        while True:
            try:
                data = await self._access.get(self._layout.slot(n))
                found: Header | None = read_header(data, self._layout.slot(n))
            except LakehouseError as error:
                if error.kind not in (ErrorKind.NOT_FOUND, ErrorKind.CORRUPT):
                    raise
                found = None
            # What was read in a slot counts only if the slot was above the floor afterwards.
            if n > await self._access.patiently(lambda: floor.read_floor(self._access)):
                return found if found is not None and found.put_id == put_id else None
            merged = await self._objects.header_at(n)
            if merged is not None:
                return merged if merged.put_id == put_id else None
            if n <= await self._objects.retained():
                raise LakehouseError(
                    ErrorKind.UNKNOWN,
                    "the outcome of the append is not known: that part of the log is gone",
                    commit_state="unknown",
                )
            raise LakehouseError(
                ErrorKind.CORRUPT, "a batch of the log is missing", key=self._layout.slot(n)
            )

    async def _sent_before(self, n: int, put_id: str) -> Header | None:
        """Whether the batch is at ``n``, where a process that died had sent it."""
        try:
            return await self.find(n, put_id)
        except LakehouseError as error:
            if error.kind not in (ErrorKind.UNKNOWN, ErrorKind.CORRUPT):
                raise
            return None  # nobody can tell any more; readers know the events by their ids

    async def _settled(self, n: int, put_id: str, on_unknown: Callable[[], None]) -> Header | None:
        """Whether the batch is in the log although its slot seems another's; asks until it can."""
        self.settling = True
        try:
            while True:
                try:
                    return await self.find(n, put_id)
                except LakehouseError as error:
                    if not error.retryable or error.kind is ErrorKind.UNKNOWN:
                        raise
                on_unknown()
                await self._access.clock.sleep(self._access.settings.backoff_seconds_max)
        finally:
            self.settling = False

    async def _settle(self, append: Append[_Found]) -> Outcome:
        """Nothing else is done until the slot is somebody's."""
        self.settling = True
        try:
            return await append.settle()
        finally:
            self.settling = False

    def _claim(self, encoded: Encoded) -> Claim[_Found]:
        key, put_id = self._layout.slot(encoded.header.n), encoded.header.put_id
        damaged = 0

        def read(data: bytes) -> _Found:
            nonlocal damaged
            try:
                return _Found(read_header(data, key))
            except LakehouseError:
                damaged += 1
                if damaged < _DAMAGED_READS:
                    raise  # on the way, perhaps: it is read again
                return _Found(None)

        return Claim(encoded.header.n, encoded.data, read, lambda found: is_mine(found, put_id))


def is_mine(found: _Found, put_id: str) -> bool:
    """True if the batch in the slot is the one that was sent."""
    return found.header is not None and found.header.put_id == put_id
