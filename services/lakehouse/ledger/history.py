"""Old records by number, from memory, their slot or a pack; and the answers they hold."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import floor
from lakehouse.ledger.access import Access
from lakehouse.ledger.chain import Slot, parse, read_slot
from lakehouse.ledger.errors import fenced
from lakehouse.ledger.keys import Key
from lakehouse.ledger.machine import JsonObject
from lakehouse.ledger.pack import PackRef, read_pack
from lakehouse.ledger.record import Record, corrupt

_ANSWERS_KEPT: Final = 4096


class History:
    """``packs`` are those the chain names, oldest first."""

    def __init__(self, access: Access, packs: tuple[PackRef, ...] = ()) -> None:
        self.packs = packs
        self._access = access
        self._answers: OrderedDict[int, JsonObject] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep the answers of a record that was just committed."""
        for commit in record.commits:
            if commit.key_hash:
                self._answers[commit.entry.seq] = commit.entry.answer
        while len(self._answers) > _ANSWERS_KEPT:
            self._answers.popitem(last=False)

    async def answer(self, key: Key) -> JsonObject:
        """What the commit of ``key`` was answered with."""
        kept = self._answers.get(key.seq)
        if kept is not None:
            return kept
        record = (await self.slot(key.n)).record
        for commit in record.commits:
            if commit.entry.seq == key.seq:
                return commit.entry.answer
        raise corrupt("ledger record lacks a commit", self._access.layout, key.n)

    async def slot(self, n: int) -> Slot:
        """Record ``n``. A pack is asked first: a slot it covers may hold a late writer's bytes."""
        for pack in self.packs:
            if pack.first <= n <= pack.last:
                data = (await read_pack(self._access, pack))[n]
                return await parse(self._access, n, data)
        try:
            return await read_slot(self._access, n)
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            raise await missing(self._access, n) from error


async def missing(access: Access, n: int) -> LakehouseError:
    """The error for an empty slot ``n`` that this writer counts on: ``fenced`` if another writer
    has collected it, else ``corrupt``."""
    if await access.patiently(lambda: floor.read_floor(access)) >= n:
        return fenced()
    return corrupt("a ledger record is missing", access.layout, n)
