"""Turns read through SQL, with the rights of who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import orjson
import pyarrow as pa

from lakehouse.contracts.catalog import AsOf, Pin
from lakehouse.contracts.memory import Turn
from lakehouse.contracts.query import QueryRequest, ResultFormat
from lakehouse.contracts.rows import RowRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.vectord.memory.turns import COLUMNS, entity_of, turns_of
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ranges import quoted

__all__ = ["TurnReader", "names"]

_FEW: Final = 8
_ASKED_AT_ONCE: Final = 500
# Fewer ids than these a row are asked for by name; else all ids are read, which is one query.
_ALL_ROWS_MAX: Final = 200_000


def names(alias: str = "") -> str:
    """The columns of a turn, as SQL lists them."""
    before = f"{quoted(alias)}." if alias else ""
    return ", ".join(f"{before}{quoted(name)}" for name in COLUMNS)


class TurnReader:
    """Reads turns of memories at one version of the store."""

    def __init__(self, parts: VectorParts) -> None:
        self._parts = parts

    async def rows(
        self,
        ctx: Context,
        sql: str,
        version: int,
        params: Sequence[str] = (),
        pins: tuple[Pin, ...] = (),
    ) -> pa.Table:
        """The answer to ``sql``, whole. ``pins``: datasets that are read as of another version."""
        request = QueryRequest(
            sql,
            params_json=orjson.dumps(list(params)).decode() if params else "",
            as_of=AsOf(version=version),
            pins=pins,
            format=ResultFormat.ARROW,
        )
        stream = await self._parts.query.run(ctx, request)
        data = b"".join([chunk async for chunk in stream.chunks])
        return await run_in(self._parts.jobs, _decoded, data)

    async def turns(
        self, ctx: Context, dataset: Dataset, version: int, ids: Sequence[str]
    ) -> dict[str, Turn]:
        """The turns of ``ids`` that are there."""
        found: dict[str, Turn] = {}
        for at in range(0, len(ids), _ASKED_AT_ONCE):
            some = ids[at : at + _ASKED_AT_ONCE]
            sql = f"SELECT {names()} FROM {quoted(dataset.name)} WHERE {_among(some)}"
            table = await self.rows(ctx, sql, version, some)
            made = await run_in(self._parts.jobs, turns_of, table)
            found |= {turn.id: turn for turn in made}
        return found

    async def known(
        self, ctx: Context, dataset: Dataset, version: int, ids: Sequence[str]
    ) -> set[str]:
        """Which of ``ids`` are there."""
        if not dataset.row_count:
            return set()
        if len(ids) <= _FEW:
            return await self._few(ctx, dataset, version, ids)
        select = f'SELECT "id" FROM {quoted(dataset.name)}'
        found: set[str] = set()
        if len(ids) > _ASKED_AT_ONCE and dataset.row_count <= _ALL_ROWS_MAX:
            table = await self.rows(ctx, select, version)
            return set(table.column(0).to_pylist()).intersection(ids)
        for at in range(0, len(ids), _ASKED_AT_ONCE):
            some = ids[at : at + _ASKED_AT_ONCE]
            table = await self.rows(ctx, f"{select} WHERE {_among(some)}", version, some)
            found.update(table.column(0).to_pylist())
        return found

    async def _few(
        self, ctx: Context, dataset: Dataset, version: int, ids: Sequence[str]
    ) -> set[str]:
        """Each by its key, which is looked up without a query."""

        async def there(turn_id: str) -> bool:
            at = AsOf(version=version)
            try:
                await self._parts.rows.get(ctx, RowRequest(dataset.name, entity_of(turn_id), at))
            except LakehouseError as error:
                if error.kind is not ErrorKind.NOT_FOUND or error.fields.get("key") is None:
                    raise
                return False
            return True

        found = await asyncio.gather(*[there(turn_id) for turn_id in ids])
        return {turn_id for turn_id, here in zip(ids, found, strict=True) if here}

    async def newest_us(self, ctx: Context, dataset: Dataset, version: int) -> int:
        """When the last of all turns was remembered, microseconds since the epoch; 0 for none."""
        if not dataset.row_count:
            return 0
        sql = f'SELECT max("remembered_at") FROM {quoted(dataset.name)}'
        table = await self.rows(ctx, sql, version)
        newest = table.column(0).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        return newest[0].as_py() or 0 if len(newest) else 0


def _among(ids: Sequence[str]) -> str:
    return f'"id" IN ({", ".join(f"${n}" for n in range(1, len(ids) + 1))})'


def _decoded(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        return reader.read_all()
