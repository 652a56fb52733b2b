"""A lake with small thresholds, and a keyed dataset in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support_ingest import Lake, build_lake
from unit.ingestd.compaction.tables import SETTINGS, Table


@pytest.fixture
async def lake(tmp_path: Path) -> AsyncIterator[Lake]:
    built = await build_lake(tmp_path, compaction=SETTINGS, compaction_files=5)
    yield built
    await built.close()


@pytest.fixture
async def table(lake: Lake) -> Table:
    rows = "".join(f"{at},n{at}\n" for at in range(10))
    await lake.put(f"id,name\n{rows}".encode(), key=("id",))
    return Table(lake)
