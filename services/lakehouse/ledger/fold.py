"""Folding records into checkpoints beside the commits."""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import Final, Generic, TypeVar

import pyarrow as pa

from lakehouse.errors import LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.ledger.access import Access
from lakehouse.ledger.checkpoint import (
    Manifest,
    PartRef,
    Snapshot,
    key_parts,
    write_part,
    write_root,
)
from lakehouse.ledger.committer import Committer
from lakehouse.ledger.history import History
from lakehouse.ledger.machine import Machine

log = logging.getLogger(__name__)

S = TypeVar("S")

_REST_SECONDS: Final = 5.0


class Folder(Generic[S]):
    """Starts a fold when enough records have come, one at a time, and makes commits wait when far
    too many have."""

    def __init__(
        self,
        access: Access,
        machine: Machine[S],
        committer: Committer[S],
        history: History,
        manifest: Manifest | None,
    ) -> None:
        self.manifest = manifest
        self._access = access
        self._machine = machine
        self._committer = committer
        self._history = history
        self._task: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        self._again = 0.0
        self._written: dict[str, tuple[weakref.ref[pa.Table], PartRef]] = {}
        checkpoint = committer.checkpoint
        self._roots = {checkpoint.key: manifest} if checkpoint and manifest else {}

    def keys_from(self, n: int) -> set[str]:
        """Keys of all roots and parts of the checkpoints at ``n`` and after."""
        self._roots = {key: root for key, root in self._roots.items() if root.n >= n}
        parts = {part.key for root in self._roots.values() for part in root.parts}
        return parts | self._roots.keys()

    @property
    def unfolded(self) -> int:
        """Records after the newest complete checkpoint."""
        return self._committer.head.n - (-1 if self.manifest is None else self.manifest.n)

    def consider(self) -> None:
        """Start a fold if one is due, none is running, and the last did not just fail."""
        due = self.unfolded >= self._access.settings.fold_records
        if due and not self._resting:
            self._start()

    async def room(self) -> None:
        """Wait while too many records are unfolded. Raises what the fold raised."""
        if self.unfolded < self._access.settings.unfolded_records_max:
            return
        if self._resting and self.failure is not None:
            raise self.failure
        await self.fold()

    @property
    def _resting(self) -> bool:
        """A fold that a defect ended is not tried again at once: making the parts costs much."""
        return self.failure is not None and self._access.clock.monotonic() < self._again

    async def fold(self) -> None:
        """Have a checkpoint of at least the present head that names every pack."""
        target, packs = self._committer.head.n, self._history.packs
        while self.manifest is None or self.manifest.n < target or self.manifest.packs != packs:
            await asyncio.shield(self._start())

    async def stop(self) -> None:
        """Give up a fold that is running: what it wrote is garbage until a record names it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _start(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._fold(), name="ledger fold")
            self._task.add_done_callback(_retrieve)
        return self._task

    async def _fold(self) -> None:
        try:
            await self._checkpoint()
        except Exception as error:
            self.failure = error
            if not isinstance(error, LakehouseError):
                log.exception("a fold of the ledger failed")
                self._again = self._access.clock.monotonic() + _REST_SECONDS
            raise
        self.failure = None

    async def _checkpoint(self) -> None:
        committer = self._committer
        snapshot = Snapshot(committer.head, committer.keys.snapshot(), self._history.packs)
        head = snapshot.head
        parts = await self._write_parts(snapshot)
        manifest = Manifest(
            n=head.n,
            seq=head.seq,
            epoch=head.epoch,
            ts_us=head.ts_us,
            record_sha256=head.sha256,
            parts=tuple(parts),
            packs=snapshot.packs,
        )
        reference = await write_root(self._access, manifest)
        self.manifest = manifest
        self._roots[reference.key] = manifest
        committer.use_checkpoint(reference)

    async def _write_parts(self, snapshot: Snapshot[S]) -> list[PartRef]:
        previous = {} if self.manifest is None else {p.name: p for p in self.manifest.parts}
        refs, fresh = await run_blocking(key_parts, snapshot.keys, previous)
        n = snapshot.head.n
        for part in fresh:
            refs.append(await write_part(self._access, n, part, previous))
        written: dict[str, tuple[weakref.ref[pa.Table], PartRef]] = {}
        for part in await run_blocking(self._machine.dump, snapshot.head.state):
            table, ref = self._written.get(part.name, (None, None))
            # The very table that was written last time need not be encoded to be known again.
            if ref is None or table is None or table() is not part.table:
                ref = await write_part(self._access, n, part, previous)
            written[part.name] = (weakref.ref(part.table), ref)
            refs.append(ref)
        self._written = written
        return refs


def _retrieve(task: asyncio.Task[None]) -> None:
    """A failed fold is tried again with the next record; nobody need have waited for it."""
    if not task.cancelled():
        task.exception()
