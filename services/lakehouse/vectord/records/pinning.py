"""Pins: tags on the datasets that were read, and a copy of the record, so that both stay.

A pin relies on no tag but those that it made itself, and takes no others away when it fails: who
pins the same at that moment keeps all of his own. The copy is written when all tags are there, so
tags without one are those of a pin that did not come to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakValueDictionary

from lakehouse.contracts import retrievals as c
from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.tags import SetTagRequest, Tag
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context, Scope
from lakehouse.model.retrieval import Retrieval, SearchedIndex
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.finding import Finder, tag_prefix
from lakehouse.vectord.records.past import PastReader, Point, points
from lakehouse.vectord.records.place import Place

__all__ = ["Pinner"]

_NOTE_MAX: Final = 500
# Of names that others took meanwhile.
_ATTEMPTS: Final = 32


@dataclass(slots=True)
class _Pinning:
    """A pin on its way. ``version``: of the store, after the last commit; ``number``: the last that
    a tag was named by; ``made``: its own tags."""

    retrieval: Retrieval
    note: str
    version: int
    number: int = 0
    made: list[Tag] = field(default_factory=list)


class Pinner:
    """The truth of a pin are the tags: who removes them removes it. Belongs to one event loop."""

    def __init__(self, parts: VectorParts, finder: Finder, place: Place, past: PastReader) -> None:
        self._catalog = parts.catalog
        self._finder = finder
        self._place = place
        self._past = past
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def pin(self, ctx: Context, request: c.PinRequest) -> c.PinResult:
        """As ``contracts.retrievals.RetrievalsService.pin``."""
        ctx.require(Scope.WRITE)
        retrieval = (await self._finder.get(ctx, request.id)).retrieval
        # What is done here are several commits, and each would be taken for the other's repetition.
        ctx = replace(ctx, idempotency_key=None)
        async with self._busy.setdefault(retrieval.id, asyncio.Lock()):
            tags, version = await self._finder.tags(ctx, tag_prefix(retrieval.id))
            if request.remove:
                return await self._unpin(ctx, retrieval, tags, version)
            if tags and await self._kept(ctx, retrieval, tags):
                names = tuple(tag.name for tag in tags)
                return c.PinResult(retrieval.id, True, names, version)
            note = request.note[:_NOTE_MAX] or f"what retrieval {retrieval.id} cites"
            return await self._pin(ctx, _Pinning(retrieval, note, version))

    async def _pin(self, ctx: Context, pinning: _Pinning) -> c.PinResult:
        retrieval = pinning.retrieval
        try:
            for searched in retrieval.indexes:
                await self._keep(ctx, pinning, searched)
            await self._place.pin(retrieval)
        except BaseException:
            await self._take_back(ctx, pinning)
            raise
        names = tuple(tag.name for tag in pinning.made)
        return c.PinResult(retrieval.id, True, names, pinning.version, changed=True)

    async def _unpin(
        self, ctx: Context, retrieval: Retrieval, tags: Sequence[Tag], version: int
    ) -> c.PinResult:
        known = retrieval.id
        for tag in tags:
            version = max(version, await self._remove(ctx, tag.name))
        await self._place.unpin(known)
        if (await self._finder.tags(ctx, tag_prefix(known)))[0]:
            # Somebody pinned it meanwhile, whose copy that may have been.
            await self._place.pin(retrieval)
        return c.PinResult(known, False, (), version, changed=bool(tags))

    async def _kept(self, ctx: Context, retrieval: Retrieval, tags: Sequence[Tag]) -> bool:
        """Whether a pin came to its end, and its tags still keep all texts."""
        try:
            if await self._place.pinned(retrieval.id) is None:
                return False
        except LakehouseError as error:
            if error.kind is not ErrorKind.CORRUPT:
                raise
            return False
        missing = [
            await self._past.missing(ctx, retrieval, searched, tags)
            for searched in retrieval.indexes
        ]
        return not any(missing)

    async def _keep(self, ctx: Context, pinning: _Pinning, searched: SearchedIndex) -> None:
        """Every index keeps what has its texts: its rows, or else the dataset of its documents."""
        retrieval, before = pinning.retrieval, len(pinning.made)
        here = points(retrieval, searched)
        beyond = [point for point in here if not await self._tag(ctx, pinning, searched, point)]
        made = pinning.made[before:]
        missing = await self._past.missing(ctx, retrieval, searched, made)
        if beyond and (missing or not made):
            # Below the horizon, but perhaps nothing was taken out of them since.
            now = pinning.version
            for point in dict.fromkeys(replace(each, version=now) for each in beyond):
                await self._tag(ctx, pinning, searched, point)
            made = pinning.made[before:]
            missing = await self._past.missing(ctx, retrieval, searched, made)
        if missing or not made:
            raise _beyond(retrieval, searched.index, missing)

    async def _tag(
        self, ctx: Context, pinning: _Pinning, searched: SearchedIndex, point: Point
    ) -> bool:
        """Whether that version of that very dataset is tagged now; not where it cannot be read."""
        name = await self._past.name_then(ctx, pinning.retrieval, searched, point)
        if not name:
            return False
        prefix, as_of = tag_prefix(pinning.retrieval.id), AsOf(version=point.version)
        for _ in range(_ATTEMPTS):
            pinning.number += 1
            request = SetTagRequest(f"{prefix}{pinning.number}", name, as_of, pinning.note)
            try:
                done = await self._catalog.set_tag(ctx, request)
            except LakehouseError as error:
                if error.kind is ErrorKind.NOT_FOUND:
                    return False
                if error.kind is not ErrorKind.CONFLICT:
                    raise
                continue
            if not done.created:
                continue  # another's, who may take it away
            pinning.made.append(done.tag)
            pinning.version = max(pinning.version, done.version)
            if done.tag.dataset_id == point.dataset_id:
                return True
            await self._remove(ctx, pinning.made.pop().name)
            return False
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "others pin the same retrieval, and take every name for a tag",
            retrieval=pinning.retrieval.id,
            hint="try again",
        )

    async def _take_back(self, ctx: Context, pinning: _Pinning) -> None:
        """Its own tags alone, whatever time the call has left."""
        for tag in pinning.made:
            with suppress(LakehouseError):
                await self._remove(replace(ctx, deadline=None), tag.name)

    async def _remove(self, ctx: Context, name: str) -> int:
        """The version of the store after it; 0 where the tag is not there."""
        try:
            return (await self._catalog.set_tag(ctx, SetTagRequest(name, remove=True))).version
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return 0


def _beyond(retrieval: Retrieval, index: str, missing: int) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CONFLICT,
        "the rows that were found are beyond retention already, and cannot be pinned",
        retrieval=retrieval.id,
        index=index,
        version=retrieval.version,
        missing=missing,
        hint="a replay shows what can still be read of them",
    )
