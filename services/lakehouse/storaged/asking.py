"""What the copier asks the catalog, on its own behalf and with the scope read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lakehouse.contracts import inventory as i
from lakehouse.contracts.catalog import (
    BucketUse,
    CatalogService,
    CatalogStatus,
    StatusRequest,
    UsageRequest,
)
from lakehouse.kit.ids import Ids
from lakehouse.model.identity import Context, Principal, Scope
from lakehouse.model.refs import ObjectRef

__all__ = ["COPIER", "PAGE", "Asking"]

COPIER: Final = Principal(id="rescue", scopes=(Scope.READ,))
PAGE: Final = 1000


class Asking:
    """Each call raises what the catalog raises."""

    def __init__(self, catalog: CatalogService, ids: Ids) -> None:
        self._catalog = catalog
        self._ids = ids

    async def status(self) -> CatalogStatus:
        return await self._catalog.status(self._ctx(), StatusRequest())

    async def usage(self) -> tuple[BucketUse, ...]:
        """Which buckets datasets are in, and of which residency."""
        return (await self._catalog.usage(self._ctx(), UsageRequest())).buckets

    async def changes(self, bucket: str, cursor: str, limit: int = PAGE) -> i.ObjectChangesResult:
        """What came and went in ``bucket`` after ``cursor``."""
        request = i.ObjectChangesRequest(bucket, cursor, limit)
        return await self._catalog.object_changes(self._ctx(), request)

    async def states(self, refs: Sequence[ObjectRef]) -> tuple[i.ObjectState, ...]:
        """The standing of at most ``PAGE`` objects, in order."""
        if not refs:
            return ()
        request = i.ObjectStatesRequest(tuple(refs))
        return (await self._catalog.object_states(self._ctx(), request)).states

    def _ctx(self) -> Context:
        return Context(COPIER, self._ids.ulid(), source="rescue")
