"""A replace takes the place of what was looked at, not of what came meanwhile."""

from __future__ import annotations

import asyncio

from lakehouse.contracts import catalog as c
from support_ingest import CTX, Lake

A = b"id,name\n1,ann\n2,bob\n"
B = b"id,name\n3,cy\n"


async def test_ten_replaces_at_once_by_the_same_content_make_one(lake: Lake) -> None:
    await lake.put(A)
    reports = await asyncio.gather(*(lake.put(B, mode="replace") for _ in range(10)))
    assert sum(report.no_op for report in reports) == 9
    assert len({report.version for report in reports}) == 1
    entries = (await lake.catalog.versions(CTX, c.PageRequest("t"))).versions
    assert [entry.operation for entry in entries] == ["replace", "create"]
    assert await lake.rows() == [{"id": 3, "name": "cy"}]
