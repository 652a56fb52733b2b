"""The memory service: joins the use cases, one module each."""

from __future__ import annotations

from typing import Final

from lakehouse.contracts import memory as c
from lakehouse.contracts.catalog import ListRequest
from lakehouse.model.identity import Context, Scope
from lakehouse.vectord.documents import Documents
from lakehouse.vectord.memory.catching import Catcher
from lakehouse.vectord.memory.reading import TurnReader
from lakehouse.vectord.memory.recalling import Recaller
from lakehouse.vectord.memory.remembering import Rememberer
from lakehouse.vectord.memory.spaces import CreateIndex, Search, Spaces
from lakehouse.vectord.memory.turns import CONVERSATION, TEXT, bad, is_memory
from lakehouse.vectord.parts import VectorParts

__all__ = ["Memory"]

_LIMIT_MAX: Final = 1_000


class Memory:
    """Implements ``contracts.memory.MemoryService``. Belongs to one event loop.

    Args:
        create, search: of the vectors service.
    """

    def __init__(
        self, parts: VectorParts, documents: Documents, create: CreateIndex, search: Search
    ) -> None:
        self._catalog = parts.catalog
        self._documents = documents
        self._spaces = spaces = Spaces(parts, documents, create)
        reader = TurnReader(parts)
        self._rememberer = Rememberer(parts, spaces, reader)
        self._recaller = Recaller(parts, spaces, reader, search)
        self._catcher = Catcher(parts, spaces, reader)

    async def close(self) -> None:
        """End what runs in the background; idempotent."""
        await self._spaces.close()

    async def remember(self, ctx: Context, request: c.RememberRequest) -> c.RememberReport:
        return await self._rememberer.remember(ctx, request)

    async def recall(self, ctx: Context, request: c.RecallRequest) -> c.RecallResult:
        return await self._recaller.recall(ctx, request)

    async def catch_up(self, ctx: Context, request: c.CatchUpRequest) -> c.CatchUpResult:
        return await self._catcher.catch_up(ctx, request)

    async def memories(self, ctx: Context, request: c.MemoriesRequest) -> c.MemoriesResult:
        ctx.require(Scope.READ)
        if not 1 <= request.limit <= _LIMIT_MAX:
            raise bad("limit is out of range", limit=request.limit, minimum=1, maximum=_LIMIT_MAX)
        wanted = ListRequest(tag=CONVERSATION, limit=request.limit, cursor=request.cursor)
        page = await self._catalog.list(ctx, wanted)
        infos, _ = await self._documents.list(ctx)
        indexes = {info.dataset_id: info.name for info in infos if info.columns == TEXT}
        found = [
            c.MemoryInfo(
                dataset.name,
                dataset.row_count or 0,
                indexes.get(dataset.id, ""),
                dataset.updated_at,
            )
            for dataset in page.datasets
            if is_memory(dataset)
        ]
        return c.MemoriesResult(tuple(found), page.version, page.cursor)
