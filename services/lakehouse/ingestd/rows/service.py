"""The rows service: joins the use cases, one module each."""

from __future__ import annotations

from collections.abc import Iterable

from lakehouse.contracts import rows as c
from lakehouse.ingestd.compaction.service import Compactor
from lakehouse.ingestd.rows.changing import RowChanger
from lakehouse.ingestd.rows.comparing import Comparer
from lakehouse.ingestd.rows.getting import RowGetter
from lakehouse.ingestd.rows.keying import KeySetter
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.restoring import RowRestorer
from lakehouse.ingestd.rows.widening import Widener
from lakehouse.kit.figures import Readout
from lakehouse.model.identity import Context

__all__ = ["Rows"]


class Rows:
    """Implements ``contracts.rows.RowsService``."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts
        self._getter = RowGetter(parts)
        self._key_setter = KeySetter(parts)
        self._widener = Widener(parts)
        self._restorer = RowRestorer(parts)
        self._comparer = Comparer(parts)
        self._changer = RowChanger(parts)
        self._compactor = Compactor(parts)

    async def get(self, ctx: Context, request: c.RowRequest) -> c.RowResult:
        return await self._getter.get(ctx, request)

    async def change(self, ctx: Context, request: c.ChangeRowsRequest) -> c.ChangeRowsReport:
        return await self._changer.change(ctx, request)

    async def set_key(self, ctx: Context, request: c.SetKeyRequest) -> c.SetKeyReport:
        return await self._key_setter.set_key(ctx, request)

    async def widen(self, ctx: Context, request: c.WidenRequest) -> c.WidenReport:
        return await self._widener.widen(ctx, request)

    async def restore(self, ctx: Context, request: c.RestoreRowsRequest) -> c.ChangeRowsReport:
        return await self._restorer.restore(ctx, request)

    async def diff(self, ctx: Context, request: c.DiffRequest) -> c.DiffResult:
        return await self._comparer.diff(ctx, request)

    async def compact(self, ctx: Context, request: c.CompactRequest) -> c.CompactReport:
        return await self._compactor.compact(ctx, request)

    def figures(self) -> Iterable[Readout]:
        """What was compacted since the start."""
        return self._compactor.figures()
