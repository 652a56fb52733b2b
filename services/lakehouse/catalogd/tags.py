"""Tags, and what is read of a dataset's journal."""

from __future__ import annotations

from lakehouse.catalogd.core import Core
from lakehouse.contracts.inventory import JournalRequest, JournalResult
from lakehouse.contracts.tags import SetTagRequest, TagResult, TagsRequest, TagsResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context

__all__ = ["Tags"]


class Tags:
    """Use cases of tags."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def journal(self, ctx: Context, request: JournalRequest) -> JournalResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "the journal is not served yet")

    async def set_tag(self, ctx: Context, request: SetTagRequest) -> TagResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "tags are not served yet")

    async def tags(self, ctx: Context, request: TagsRequest) -> TagsResult:
        raise LakehouseError(ErrorKind.UNAVAILABLE, "tags are not served yet")
