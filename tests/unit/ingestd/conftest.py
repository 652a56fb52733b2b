"""A lake per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support_ingest import Lake, build_lake


@pytest.fixture
async def lake(tmp_path: Path) -> AsyncIterator[Lake]:
    built = await build_lake(tmp_path)
    yield built
    await built.close()
