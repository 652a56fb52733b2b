"""A keyed dataset to compact, and a way to have things happen in the midst of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lakehouse.contracts import catalog as c
from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.contracts.rows import (
    ChangeRowsRequest,
    CompactReport,
    CompactRequest,
    RowChange,
)
from lakehouse.ingestd.compaction.settings import CompactionSettings
from lakehouse.ingestd.rows.service import Rows
from lakehouse.model.changes import RewriteFiles
from lakehouse.model.dataset import DataFile, Dataset
from support_ingest import CTX, Lake

SETTINGS = CompactionSettings(deltas_max=4)
Commit = Callable[[Any, c.CommitRequest], Any]


class Table:
    """A keyed dataset ``t`` with ten rows, and short ways to change and to read it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.rows = Rows(lake.ingest.parts)
        self.background = lake.ingest.parts.compaction_wanted
        lake.ingest.parts.compaction_wanted = lambda name: None

    async def change(self, *ids: int, name: str = "x", kind: RowChange = RowChange.UPSERT) -> int:
        rows = [{"id": one} | ({"name": name} if kind is RowChange.UPSERT else {}) for one in ids]
        options = IngestOptions(format=SourceFormat.JSON)
        body = json.dumps(rows).encode()
        report = await self.rows.change(CTX, ChangeRowsRequest("t", kind, body, options))
        return report.version

    async def changes(self, count: int) -> None:
        for at in range(count):
            await self.change(at % 10, 100 + at, name=f"v{at}")

    async def compact(self, ctx: Any = CTX, **how: bool) -> CompactReport:
        return await self.rows.compact(ctx, CompactRequest("t", **how))

    async def seen(self) -> dict[int, str]:
        parts = self.lake.ingest.parts
        snapshot, _ = await parts.reader.snapshot(CTX, "t")
        rows = (await parts.reader.read(snapshot)).to_pylist()
        assert len(rows) == snapshot.dataset.row_count
        return {row["id"]: row["name"] for row in rows}

    async def dataset(self) -> Dataset:
        return (await self.lake.catalog.get(CTX, c.GetRequest("t"))).dataset

    async def files(self, content: str = "") -> list[DataFile]:
        found = (await self.lake.catalog.files(CTX, c.PageRequest("t"))).files
        return [file for file in found if content in ("", file.content)]


def on_rewrite(
    monkeypatch: pytest.MonkeyPatch, lake: Lake, meanwhile: Callable[[], Any], times: int = 1
) -> list[c.CommitRequest]:
    """Have something done just before the first commits that rewrite files; all of these."""
    commit: Commit = lake.catalog.commit
    seen: list[c.CommitRequest] = []

    async def wrapped(ctx: Any, request: c.CommitRequest) -> c.CommitResult:
        if any(isinstance(change, RewriteFiles) for change in request.changes):
            seen.append(request)
            if len(seen) <= times:
                await meanwhile()
        result: c.CommitResult = await commit(ctx, request)
        return result

    monkeypatch.setattr(lake.catalog, "commit", wrapped)
    return seen
