"""The rows service: use cases only."""

from __future__ import annotations

from lakehouse.contracts import rows as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context

__all__ = ["Rows"]


def _not_yet() -> LakehouseError:
    return LakehouseError(ErrorKind.UNAVAILABLE, "row changes are not served yet")


class Rows:
    """Implements ``contracts.rows.RowsService``."""

    async def get(self, ctx: Context, request: c.RowRequest) -> c.RowResult:
        raise _not_yet()

    async def change(self, ctx: Context, request: c.ChangeRowsRequest) -> c.ChangeRowsReport:
        raise _not_yet()

    async def set_key(self, ctx: Context, request: c.SetKeyRequest) -> c.SetKeyReport:
        raise _not_yet()

    async def widen(self, ctx: Context, request: c.WidenRequest) -> c.WidenReport:
        raise _not_yet()

    async def restore(self, ctx: Context, request: c.RestoreRowsRequest) -> c.ChangeRowsReport:
        raise _not_yet()

    async def diff(self, ctx: Context, request: c.DiffRequest) -> c.DiffResult:
        raise _not_yet()

    async def compact(self, ctx: Context, request: c.CompactRequest) -> c.CompactReport:
        raise _not_yet()
