"""A dataset in a lake, and short ways to everything around its rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts import rows as r
from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.ingest import ColumnOverride, IngestOptions, SourceFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.dataset import Dataset, VersionEntry
from lakehouse.model.identity import Context, Principal, Scope
from support_ingest import CTX, Lake

READER = replace(CTX, principal=Principal("eve", (Scope.READ,)))


@dataclass
class Around:
    """A dataset ``t`` and the rows service."""

    lake: Lake
    rows: Rows

    async def keyed(self, data: bytes = b"id,name,n\n1,a,5\n2,b,6\n3,c,7\n") -> int:
        """Ingest ``t`` with the key ``id``; its version."""
        await self.lake.put(data, key=("id",))
        return (await self.dataset()).version

    async def dataset(self) -> Dataset:
        return (await self.lake.catalog.get(CTX, c.GetRequest("t"))).dataset

    async def get(self, key: Any, as_of: AsOf | None = None) -> dict[str, Any]:
        request = r.RowRequest("t", json.dumps(key), as_of or AsOf())
        result = await self.rows.get(READER, request)
        assert result.served_from == "table"
        return dict(json.loads(result.row_json))

    async def upsert(self, *rows: dict[str, Any]) -> int:
        return await self._change(r.RowChange.UPSERT, list(rows))

    async def delete(self, *keys: Any) -> int:
        return await self._change(r.RowChange.DELETE, list(keys))

    async def _change(self, change: r.RowChange, body: list[Any]) -> int:
        options = IngestOptions(format=SourceFormat.JSON)
        request = r.ChangeRowsRequest("t", change, json.dumps(body).encode(), options)
        return (await self.rows.change(CTX, request)).version

    async def set_key(self, *columns: str, ctx: Context = CTX, reason: str = "") -> r.SetKeyReport:
        return await self.rows.set_key(ctx, r.SetKeyRequest("t", columns, reason))

    async def entry(self) -> VersionEntry:
        """The newest version entry."""
        return (await self.lake.catalog.versions(CTX, c.PageRequest("t"))).versions[0]

    async def widen(
        self, add: str = "", widen: str = "", ctx: Context = CTX, **more: Any
    ) -> r.WidenReport:
        """Columns as ``name:type name:type``."""
        request = r.WidenRequest("t", overrides(add), overrides(widen), **more)
        return await self.rows.widen(ctx, request)

    async def restore(self, version: int, ctx: Context = CTX, **more: Any) -> r.ChangeRowsReport:
        request = r.RestoreRowsRequest("t", AsOf(version=version), **more)
        return await self.rows.restore(ctx, request)

    async def diff(self, old: int, new: int | None = None, **more: Any) -> r.DiffResult:
        request = r.DiffRequest("t", AsOf(version=old), AsOf(version=new), **more)
        return await self.rows.diff(READER, request)


def overrides(text: str) -> tuple[ColumnOverride, ...]:
    pairs = (one.split(":") for one in text.split())
    return tuple(ColumnOverride(name, kind) for name, kind in pairs)


async def refused(call: Any, kind: ErrorKind = ErrorKind.INVALID) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind, caught.value
    return caught.value
