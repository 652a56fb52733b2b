"""Collecting old records: pack, verify, let the chain name the pack, raise the floor, delete.

Each step rests on the one before being in the bucket, and what is deleted is what the chain itself
has given up: so a collector that stalls anywhere and wakes years later does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import chain, floor
from lakehouse.ledger.access import Access
from lakehouse.ledger.checkpoint import read_manifest
from lakehouse.ledger.committer import Committer
from lakehouse.ledger.errors import fenced
from lakehouse.ledger.fold import Folder
from lakehouse.ledger.history import History, missing
from lakehouse.ledger.pack import write_pack
from lakehouse.ledger.record import CheckpointRef, Record, corrupt, sha256_hex
from lakehouse.ledger.recovery import DAMAGE

S = TypeVar("S")

_PACK_RECORDS_MAX: Final = 1024
_DELETE_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did, or would do. ``floor`` is -1 if there is nothing to collect."""

    floor: int
    packed_records: int = 0
    deleted_slots: int = 0
    deleted_parts: int = 0


class Collector(Generic[S]):
    """Used by one caller at a time."""

    def __init__(
        self, access: Access, committer: Committer[S], folder: Folder[S], history: History
    ) -> None:
        self._access = access
        self._committer = committer
        self._folder = folder
        self._history = history

    async def collect(self, *, dry_run: bool) -> Collected:
        """See ``Ledger.collect_records``."""
        due = self._folder.unfolded >= self._access.settings.fold_records
        if due and not dry_run:
            await self._folder.fold()
            await self._name_checkpoint()
        head = self._committer.head
        before = await self._access.patiently(lambda: floor.read_floor(self._access))
        checkpoint = -1 if head.checkpoint is None else head.checkpoint.n
        if dry_run and due:
            checkpoint = head.n
        target = max(min(checkpoint, head.n - self._access.settings.records_kept), before)
        packs = self._history.packs
        packed_to = packs[-1].last if packs else floor.NONE
        if target - packed_to < self._access.settings.fold_records:
            target = max(before, min(target, packed_to))  # too few for a pack of their own
        if dry_run or target < 0:
            return Collected(target, max(target - packed_to, 0), max(target - before, 0))
        for first in range(packed_to + 1, target + 1, _PACK_RECORDS_MAX):
            await self._pack(first, min(first + _PACK_RECORDS_MAX - 1, target))
        named = await self._name_packs()
        if target > before:
            await floor.raise_floor(self._access, target)
        slots = await self._delete_slots(target)
        parts = await self._delete_parts(named)
        await floor.drop_lower_floors(self._access)
        return Collected(target, max(target - packed_to, 0), slots, parts)

    async def _pack(self, first: int, last: int) -> None:
        """Pack the records ``first`` to ``last``, each verified by the one after it."""
        access = self._access
        # One more than is packed: the record after the last vouches for it.
        numbers = range(first, last + 2)
        found = await chain.read_slots(access, numbers)
        records: dict[int, bytes] = {}
        previous: bytes | None = None
        bodies: set[str] = set()
        for n, slot in zip(numbers, found, strict=True):
            if slot is None:
                raise await missing(access, n)
            if previous is not None and slot.record.prev != sha256_hex(previous):
                raise await _not_following(access, n)
            records[n] = previous = slot.data
            bodies |= _body_keys(slot.record)
        del records[last + 1]
        pack = await write_pack(access, records)
        self._history.packs = (*self._history.packs, pack)
        await self._delete_bodies(first, last, bodies)

    async def _name_packs(self) -> CheckpointRef:
        """Have a record in the chain that names a checkpoint that names every pack."""
        manifest = self._folder.manifest
        if manifest is None or manifest.packs != self._history.packs:
            await self._folder.fold()
        return await self._name_checkpoint()

    async def _name_checkpoint(self) -> CheckpointRef:
        if self._committer.head.checkpoint != self._committer.checkpoint:
            await self._committer.append_bare("commit")
        named = self._committer.head.checkpoint
        if named is None:
            raise LakehouseError(ErrorKind.INTERNAL, "the checkpoint was not named")
        return named

    async def _delete_slots(self, target: int) -> int:
        """Delete the slots at or below ``target``, also what late writers left in them."""
        access = self._access
        start, deleted = access.layout.slot(target + 1), 0
        while keys := await access.list_keys(access.layout.slots, start):
            await access.delete(keys)
            deleted += len(keys)
        return deleted

    async def _delete_bodies(self, first: int, last: int, named: set[str]) -> None:
        """Delete bodies written for these slots that the record in the slot does not name."""
        access, start = self._access, self._access.layout.body(first, "")
        while keys := await access.list_keys(access.layout.bodies, start):
            inside = [key for key in keys if access.layout.body_number(key) <= last]
            await access.delete([key for key in inside if key not in named])
            if len(inside) < len(keys):
                return
            start = keys[-1]

    async def _delete_parts(self, named: CheckpointRef) -> int:
        """Delete parts of checkpoints up to the one the chain names, but for those still used and
        those of the checkpoint before, which stands in for it if it is damaged.

        A later writer's parts have higher numbers, or are among those of the named checkpoint.
        """
        access, kept = self._access, self._folder.keys_from(named.n)
        if named.key not in kept:
            raise LakehouseError(ErrorKind.INTERNAL, "the named checkpoint is not known here")
        kept |= await self._keys_before(named)
        dead: list[str] = []
        start = ""
        while keys := await access.list_keys(access.layout.checkpoints, start):
            start = keys[-1]
            old = [key for key in keys if access.layout.part_number(key) <= named.n]
            dead += [key for key in old if key not in kept]
            if len(old) < len(keys):
                break
        for place in range(0, len(dead), _DELETE_BATCH):
            await access.delete(dead[place : place + _DELETE_BATCH])
        return len(dead)

    async def _keys_before(self, named: CheckpointRef) -> set[str]:
        """Keys of the checkpoint before: the one that the record of ``named`` names."""
        try:
            before = (await self._history.slot(named.n)).record.checkpoint
            if before is None:
                return set()
            manifest = await read_manifest(self._access, before)
        except LakehouseError as error:
            if error.kind not in DAMAGE:
                raise
            return set()  # nothing can stand in for it but the records, which all stay
        return {before.key, *(part.key for part in manifest.parts)}


async def _not_following(access: Access, n: int) -> LakehouseError:
    """The error for a slot ``n`` whose record is no successor of what slot ``n - 1`` holds.

    Once another writer has collected up to there, a late write may stand in the empty slot: then
    this collector is the one that is out of date, and the chain is whole.
    """
    if await access.patiently(lambda: floor.read_floor(access)) >= n - 1:
        return fenced()
    return corrupt("ledger record does not follow the one before it", access.layout, n)


def _body_keys(record: Record) -> set[str]:
    return set() if record.body is None else {record.body.key}
