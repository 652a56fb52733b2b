"""Past a damaged checkpoint: an older one, or every record from the first on.

A checkpoint is a cache of the records, which are all kept: in slots, and byte for byte in packs. So
a flipped bit in it costs time, not the store. Packs are found by their names here, for it may be
the damaged root that lists them; each is verified by its name's checksum, and the records by the
chain of their own.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final, TypeVar

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.access import Access
from lakehouse.ledger.chain import Slot, parse, read_slot
from lakehouse.ledger.checkpoint import Loaded, load_checkpoint
from lakehouse.ledger.machine import Machine
from lakehouse.ledger.pack import PackRef, read_pack
from lakehouse.ledger.record import CheckpointRef, corrupt

S = TypeVar("S")

log = logging.getLogger(__name__)

_CHECKPOINTS_TRIED: Final = 4
_PACKS_IN_MEMORY: Final = 2
DAMAGE: Final = frozenset({ErrorKind.CORRUPT, ErrorKind.NOT_FOUND})


class Records:
    """Every record that is left, by number. ``packs`` are one after the other from record 0."""

    def __init__(self, access: Access, found: tuple[PackRef, ...]) -> None:
        self.packs = _in_a_row(found)
        self._access = access
        self._found = found
        self._read: OrderedDict[str, dict[int, bytes]] = OrderedDict()

    async def slot(self, n: int) -> Slot:
        """Record ``n`` from any pack that has it, else from its slot. Raises ``corrupt`` naming the
        damaged pack, or the slot if nothing is left."""
        damaged: LakehouseError | None = None
        for pack in self._found:
            if pack.first <= n <= pack.last:
                try:
                    return await parse(self._access, n, (await self._pack(pack))[n])
                except LakehouseError as error:
                    if error.kind not in DAMAGE:
                        raise
                    damaged = error
        try:
            return await read_slot(self._access, n)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            raise damaged or corrupt(
                "a ledger record is missing", self._access.layout, n
            ) from error

    async def _pack(self, pack: PackRef) -> dict[int, bytes]:
        records = self._read.get(pack.key)
        if records is None:
            records = self._read[pack.key] = await read_pack(self._access, pack)
            while len(self._read) > _PACKS_IN_MEMORY:
                self._read.popitem(last=False)
        return records


async def find_records(access: Access) -> Records:
    """The records that are in the bucket, with packs found by their names."""
    found: list[PackRef] = []
    start = ""
    while keys := await access.list_keys(access.layout.packs, start):
        for key in keys:
            first, last, sha256 = access.layout.pack_range(key)
            found.append(PackRef(first, last, key, sha256))
        start = keys[-1]
    return Records(access, tuple(found))


async def older_checkpoint(
    access: Access, machine: Machine[S], records: Records, newest: int
) -> tuple[CheckpointRef, Loaded[S]] | None:
    """The newest checkpoint named by the chain that is whole; ``None``: replay from record 0.

    The record that a checkpoint is the state of names the checkpoint before.
    """
    n = newest
    for _ in range(_CHECKPOINTS_TRIED):
        try:
            checkpoint = (await records.slot(n)).record.checkpoint
            if checkpoint is None:
                return None
            n = checkpoint.n
            return checkpoint, await load_checkpoint(access, machine, checkpoint)
        except LakehouseError as error:
            if error.kind not in DAMAGE:
                raise
            log.warning(
                "a checkpoint of the ledger is damaged: trying what came before",
                extra={"reason": str(error), "key": error.fields.get("key", "")},
            )
    return None


def beyond_repair(checkpoint: LakehouseError, record: LakehouseError) -> LakehouseError:
    """Both the checkpoint and a record that could stand in for it are damaged."""
    return LakehouseError(
        ErrorKind.CORRUPT,
        "a checkpoint is damaged, and so are the records to make it anew from",
        key=record.fields.get("key", ""),
        checkpoint=checkpoint.fields.get("key", ""),
        reason=record.message,
        hint="restore one of the two objects from a backup; nothing is written meanwhile",
    )


def _in_a_row(found: tuple[PackRef, ...]) -> tuple[PackRef, ...]:
    """Packs that follow on one another from record 0, the longest where there is a choice."""
    chosen: list[PackRef] = []
    longest: dict[int, PackRef] = {}
    for pack in found:
        known = longest.get(pack.first)
        if known is None or known.last < pack.last:
            longest[pack.first] = pack
    while follows := longest.get(chosen[-1].last + 1 if chosen else 0):
        chosen.append(follows)
    return tuple(chosen)
