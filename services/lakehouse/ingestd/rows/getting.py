"""One row by its key: now, at a version, or beyond what is retained from the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pyarrow as pa

from lakehouse.contracts.catalog import DatasetSnapshot, GetRequest
from lakehouse.contracts.rows import RowRequest, RowResult
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.comparing import with_key
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.rows.refusals import no_key
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context, Scope
from lakehouse.table.keys import entity_texts, parse_entity
from lakehouse.table.values import row_json

__all__ = ["RowGetter"]

_TABLE: Final = "table"
_JOURNAL: Final = "journal"


class RowGetter:
    """The use case behind ``contracts.rows.RowsService.get``."""

    def __init__(self, parts: RowParts) -> None:
        self._parts = parts

    async def get(self, ctx: Context, request: RowRequest) -> RowResult:
        """See the contract. A row that was looked up before costs no request to a bucket."""
        ctx.require(Scope.READ)
        with tracing.span("get row"):
            try:
                snapshot, version = await self._parts.reader.snapshot(
                    ctx, request.dataset, request.as_of
                )
            except LakehouseError as error:
                from lakehouse.ingestd.journal.past import beyond_horizon

                if not beyond_horizon(error):
                    raise
                return await self._from_journal(ctx, request)
            if not snapshot.dataset.primary_key:
                snapshot = await self._keyed_later(ctx, request, snapshot)
            return await self._from_table(request, snapshot, version)

    async def _keyed_later(
        self, ctx: Context, request: RowRequest, snapshot: DatasetSnapshot
    ) -> DatasetSnapshot:
        """A version from before the key was declared, by the key of now."""
        now = (await self._parts.catalog.get(ctx, GetRequest(request.dataset))).dataset
        known = set(now.primary_key) <= set(snapshot.dataset.schema.names())
        return with_key(snapshot, now.primary_key if known else ())

    async def _from_table(
        self, request: RowRequest, snapshot: DatasetSnapshot, version: int
    ) -> RowResult:
        dataset = snapshot.dataset
        keys = _keys(request, dataset)
        found = await self._parts.reader.find(snapshot, keys)
        if found.num_rows > 1:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "several rows had this key before it was the primary key",
                dataset=dataset.name,
                key=request.key_json[:200],
                version=version,
                rows=found.num_rows,
                hint="select them with SQL as of that version",
            )
        return await self._result(dataset, keys, (found, version), _TABLE)

    async def _from_journal(self, ctx: Context, request: RowRequest) -> RowResult:
        from lakehouse.ingestd.journal.past import row_from_journal

        parts = self._parts
        dataset = (await parts.catalog.get(ctx, GetRequest(request.dataset))).dataset
        keys = _keys(request, dataset)
        row, version = await row_from_journal(parts, ctx, dataset, keys, request.as_of)
        found = keys.slice(0, 0) if row is None else row
        return await self._result(dataset, keys, (found, version), _JOURNAL)

    async def _result(
        self, dataset: Dataset, keys: pa.Table, at: tuple[pa.Table, int], served_from: str
    ) -> RowResult:
        found, version = at
        key_json = str(entity_texts(keys, dataset.schema, dataset.primary_key)[0].as_py())
        if found.num_rows == 0:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "there is no row with this key",
                dataset=dataset.name,
                key=key_json,
                version=version,
                served_from=served_from,
                hint="see its history: it may have been there at another version",
            )
        text = await run_in(self._parts.jobs, row_json, found, 0, dataset.schema)
        result = RowResult(dataset.name, key_json, text, version)
        return replace(result, served_from=served_from)


def _keys(request: RowRequest, dataset: Dataset) -> pa.Table:
    """The key columns of the one row. Raises ``invalid``."""
    if not dataset.primary_key:
        raise no_key(dataset.name)
    return parse_entity(request.key_json, dataset.schema, dataset.primary_key)
