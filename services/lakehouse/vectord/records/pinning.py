"""Pins: tags on the datasets that were read, and a copy of the record, so that both stay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from lakehouse.contracts import retrievals as c
from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.tags import SetTagRequest, Tag
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context, Scope
from lakehouse.model.retrieval import Retrieval
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.records.finding import Finder, tag_prefix
from lakehouse.vectord.records.past import Point, points
from lakehouse.vectord.records.place import Place

__all__ = ["Pinner"]

_NOTE_MAX: Final = 500

Readable = Callable[[Context, c.RetrievalResult, str], Awaitable[bool]]


class Pinner:
    """The truth of a pin are the tags: who removes them removes it.

    Args:
        readable: whether all texts that a retrieval had of an index are among that index's rows.
    """

    def __init__(
        self, parts: VectorParts, finder: Finder, place: Place, readable: Readable
    ) -> None:
        self._catalog = parts.catalog
        self._finder = finder
        self._place = place
        self._readable = readable

    async def pin(self, ctx: Context, request: c.PinRequest) -> c.PinResult:
        """As ``contracts.retrievals.RetrievalsService.pin``."""
        ctx.require(Scope.WRITE)
        found = await self._finder.get(ctx, request.id)
        known = found.retrieval.id
        # What is done here are several commits, and each would be taken for the other's repetition.
        ctx = replace(ctx, idempotency_key=None)
        tags, version = await self._finder.tags(ctx, tag_prefix(known))
        if request.remove:
            return await self._unpin(ctx, known, tags, version)
        if tags:
            names = tuple(tag.name for tag in tags)
            return c.PinResult(known, True, names, version)
        await self._place.pin(found.retrieval)
        try:
            return await self._set(ctx, found, request.note[:_NOTE_MAX])
        except LakehouseError:
            await self._place.unpin(known)
            raise

    async def _unpin(self, ctx: Context, known: str, tags: list[Tag], version: int) -> c.PinResult:
        for tag in tags:
            removed = await self._catalog.set_tag(ctx, SetTagRequest(tag.name, remove=True))
            version = removed.version
        await self._place.unpin(known)
        return c.PinResult(known, False, (), version, changed=bool(tags))

    async def _set(self, ctx: Context, found: c.RetrievalResult, note: str) -> c.PinResult:
        """Every index keeps what has its texts: its rows, or else the dataset of its documents."""
        retrieval, version = found.retrieval, found.version
        note = note or f"what retrieval {retrieval.id} cites"
        names: list[str] = []
        try:
            for searched in retrieval.indexes:
                rows, *documents = points(retrieval, searched)
                kept = len(names)
                for point in (rows, *documents):
                    name = f"{tag_prefix(retrieval.id)}{len(names) + 1}"
                    done = await self._tag(ctx, name, point, note)
                    if (
                        not done
                        and point is rows
                        and await self._readable(ctx, found, searched.index)
                    ):
                        # Below the horizon, but nothing was taken out of it since.
                        done = await self._tag(
                            ctx, name, replace(rows, version=found.version), note
                        )
                    if done:
                        names.append(name)
                        version = max(version, done)
                if len(names) == kept:
                    raise _beyond(retrieval, searched.index)
        except LakehouseError:
            for name in names:
                await self._catalog.set_tag(ctx, SetTagRequest(name, remove=True))
            raise
        return c.PinResult(retrieval.id, True, tuple(names), version, changed=True)

    async def _tag(self, ctx: Context, name: str, point: Point, note: str) -> int:
        """The version of the store after the commit; 0 where that version cannot be read."""
        request = SetTagRequest(name, point.dataset, AsOf(version=point.version), note)
        try:
            return (await self._catalog.set_tag(ctx, request)).version
        except LakehouseError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return 0


def _beyond(retrieval: Retrieval, index: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CONFLICT,
        "the rows that were found are beyond retention already, and cannot be pinned",
        retrieval=retrieval.id,
        index=index,
        version=retrieval.version,
        hint="a replay shows what can still be read of them",
    )
