"""A keyed dataset of three people, and the calls that tests of rows and their past make most."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.world import READER, WRITER, World
from lakehouse.contracts.catalog import AsOf, GetRequest
from lakehouse.contracts.ingest import IngestReport, IngestRequest
from lakehouse.contracts.rows import ChangeRowsReport, ChangeRowsRequest, RowChange, RowRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import Dataset

PEOPLE = b"id,name,phone\n1,Ann,+49 1\n2,Bob,+49 2\n3,Cy,\n"

NOW = AsOf()


async def created(here: World, name: str = "people", body: bytes = PEOPLE, key: str = "id") -> int:
    """Ingest ``body`` with that key; the version it made."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    keys = tuple(key.split(",")) if key else ()
    request = IngestRequest(name, key=keys)
    report: IngestReport = await here.near["ingest"].ingest(WRITER, request, chunks())
    return report.version


async def change(
    rows: Any, body: object, how: RowChange = RowChange.UPSERT, ctx: Any = WRITER, **fields: Any
) -> ChangeRowsReport:
    """One batch of JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = ChangeRowsRequest("people", how, data, **fields)
    report: ChangeRowsReport = await rows.change(ctx, request)
    return report


async def patched(rows: Any, key: object, ctx: Any = WRITER, **fields: Any) -> ChangeRowsReport:
    return await change(rows, {"key": key, "set": fields}, RowChange.PATCH, ctx)


async def row(rows: Any, key: str, as_of: AsOf = NOW) -> Any:
    """The row as JSON has it."""
    found = await rows.get(READER, RowRequest("people", key, as_of))
    return json.loads(found.row_json)


async def dataset(here: World, name: str = "people") -> Dataset:
    found: Dataset = (await here.near["catalog"].get(READER, GetRequest(name))).dataset
    return found


async def refused(call: Any, kind: ErrorKind) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await call
    assert caught.value.kind is kind, (caught.value, caught.value.fields)
    return caught.value
