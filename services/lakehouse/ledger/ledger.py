"""A ledger of a state machine: open (take over), commit (group), read, fold, collect, close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import Clock, SystemClock
from lakehouse.kit.figures import Readout
from lakehouse.kit.ids import Ids, SystemIds
from lakehouse.ledger.access import Access
from lakehouse.ledger.authority import Authority
from lakehouse.ledger.collect import Collected, Collector
from lakehouse.ledger.committer import Committer
from lakehouse.ledger.figures import keys_remembered, standing
from lakehouse.ledger.fold import Folder
from lakehouse.ledger.history import History
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.machine import Committed, Machine, Proposal
from lakehouse.ledger.opening import View, read_view, take_over
from lakehouse.ledger.options import OpenOptions
from lakehouse.ledger.record import WriterInfo
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.port import ObjectStore

__all__ = [
    "Collected",
    "Ledger",
    "LedgerHandle",
    "OpenOptions",
    "WriterInfo",
    "open_ledger",
    "read_ledger",
]

log = logging.getLogger(__name__)

S = TypeVar("S")

DEFAULT_OPTIONS: Final = OpenOptions()


class LedgerHandle(Protocol, Generic[S]):
    """What catalogd holds. Implemented by ``Ledger`` in this module (see ``open_ledger``)."""

    @property
    def state(self) -> S:
        """The last durable state; never ahead of the bucket."""
        ...

    @property
    def seq(self) -> int: ...

    @property
    def record(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    async def commit(self, proposal: Proposal[S]) -> Committed[S]: ...

    async def check_authority(self) -> None:
        """Raise ``fenced`` if another epoch is in the chain; cheap unless a check is due."""
        ...

    async def close(self) -> None:
        """Settle, fold, seal. Idempotent."""
        ...


class Ledger(Generic[S]):
    """The writing end of a chain, from ``open_ledger``. Belongs to one event loop."""

    def __init__(
        self, access: Access, machine: Machine[S], writer: WriterInfo, view: View[S]
    ) -> None:
        self._access = access
        self._history = History(access, view.packs)
        self._committer = Committer(access, machine, writer, view.head, view.keys, self._history)
        self._folder = Folder(access, machine, self._committer, self._history, view.manifest)
        self._committer.before_record = self._folder.room
        self._committer.after_record = self._folder.consider
        self._collector = Collector(access, self._committer, self._folder, self._history)
        self._collecting = asyncio.Lock()
        self._authority = Authority(access, self._committer)
        self._closing: asyncio.Task[None] | None = None
        self.damage: Final = view.damage
        """What was found damaged at the opening and replayed from other objects; "" for none."""
        if view.damage:
            # The next record then names a checkpoint that is whole.
            self._folder.consider()

    @property
    def state(self) -> S:
        """The last durable state; never ahead of the bucket."""
        return self._committer.head.state

    @property
    def seq(self) -> int:
        """Version of ``state``; 0 before the first commit."""
        return self._committer.head.seq

    @property
    def record(self) -> int:
        """Number of the newest record this writer knows."""
        return self._committer.head.n

    @property
    def position(self) -> tuple[int, str]:
        """Number and SHA-256 of the newest record this writer knows; for ``OpenOptions.seen``."""
        return self._committer.head.n, self._committer.head.sha256

    @property
    def epoch(self) -> int:
        """Rises by one with every take-over."""
        return self._committer.head.epoch

    @property
    def settling(self) -> bool:
        """True while the outcome of a commit is not known; commits are refused meanwhile."""
        return self._committer.settling

    @property
    def keys_remembered(self) -> int:
        """Idempotency keys that are known at present."""
        return len(self._committer.keys)

    @property
    def unfolded_records(self) -> int:
        """Records after the newest checkpoint."""
        return self._folder.unfolded

    @property
    def fold_failure(self) -> Exception | None:
        """Why the last fold failed; None if it did not. Commits go on until there is no room."""
        return self._folder.failure

    def figures(self) -> Iterator[Readout]:
        """What was committed since the opening, and where the ledger stands."""
        head, queued = self._committer.head, self._committer.queued
        yield from self._committer.figures.figures()
        yield from standing(queued, self.unfolded_records, head.epoch, head.n, head.seq)
        yield keys_remembered(self.keys_remembered)

    async def commit(self, proposal: Proposal[S]) -> Committed[S]:
        """Commit ``proposal``, with others, in one record.

        Raises what ``decide`` raised; ``unavailable`` if certainly nothing was written (queue full,
        closing, settling; ``retry_after_seconds``); ``unknown`` if the outcome is not known;
        ``fenced`` if another writer has taken over; ``invalid`` (422) for a key with another body.
        """
        return await self._committer.commit(proposal)

    async def recall(self, key_hash: str, body_sha256: str) -> Committed[S] | None:
        """The answer of an earlier commit with this key, before any work is done for it again.

        Raises ``invalid`` (422) if that had another body.
        """
        return await self._committer.recall(key_hash, body_sha256)

    async def collect_records(self, *, dry_run: bool = False) -> Collected:
        """Pack old records, raise the floor, delete their slots and outlived checkpoint parts.

        The last ``records_kept`` records stay. ``dry_run`` tells what it would do. Raises
        ``corrupt`` before anything is deleted if a record or its pack does not verify.
        """
        async with self._collecting:
            return await self._collector.collect(dry_run=dry_run)

    async def check_authority(self) -> None:
        """Raise ``fenced`` if another epoch is in the chain; cheap unless a check is due."""
        await self._authority.check()

    async def close(self) -> None:
        """Settle, fold, seal. Idempotent. Never raises: what it cannot finish, the next open
        finds in the chain."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="ledger close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        budget = self._access.settings.append_budget_seconds
        seal = asyncio.create_task(self._seal())
        timer = asyncio.create_task(self._access.clock.sleep(2 * budget))
        await asyncio.wait([seal, timer], return_when=asyncio.FIRST_COMPLETED)
        for task in (seal, timer):
            task.cancel()
        await asyncio.wait([seal, timer])
        await self._authority.stop()
        await self._folder.stop()
        await self._committer.stop()

    async def _seal(self) -> None:
        try:
            await self._committer.drain()
            if self._folder.unfolded > 1 and self._committer.error is None:
                await self._folder.fold()
            await self._committer.append_bare("seal")
        except Exception as error:
            # Fenced, the bucket away, or a fold that fails: the chain is whole without the seal.
            if not isinstance(error, LakehouseError):
                log.exception("the ledger closed without a fold")


async def open_ledger(
    store: ObjectStore,
    machine: Machine[S],
    writer: WriterInfo,
    clock: Clock,
    ids: Ids,
    options: OpenOptions = DEFAULT_OPTIONS,
) -> Ledger[S]:
    """Take over the ledger in ``store`` (which must not retry by itself) and replay it.

    Raises ``conflict`` naming the holder if it lives, ``corrupt`` naming the slot if the chain has
    a gap or damage, ``unavailable`` if the store does not answer.
    """
    access = Access(store, Layout(options.prefix), clock, ids, options.settings)
    view = await take_over(access, machine, writer, options)
    return Ledger(access, machine, writer, view)


async def read_ledger(
    store: ObjectStore, machine: Machine[S], prefix: str = "_catalog"
) -> tuple[S, int]:
    """The newest state and its seq, read without a node and without writing anything."""
    clock = SystemClock()
    access = Access(store, Layout(prefix), clock, SystemIds(clock), LedgerSettings())
    view = await read_view(access, machine)
    if view.head.n < 0:
        raise LakehouseError(
            ErrorKind.NOT_FOUND, "there is no ledger here", prefix=prefix, url=store.url
        )
    return view.head.state, view.head.seq
