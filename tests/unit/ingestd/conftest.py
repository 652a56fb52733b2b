"""A lake per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support_ingest import Lake, MakeLake, build_lake


@pytest.fixture
async def lake(tmp_path: Path) -> AsyncIterator[Lake]:
    built = await build_lake(tmp_path)
    yield built
    await built.close()


@pytest.fixture
async def make_lake(tmp_path: Path) -> AsyncIterator[MakeLake]:
    """Lakes with settings of their own."""
    made: list[Lake] = []

    async def make(**settings: Any) -> Lake:
        made.append(await build_lake(tmp_path / str(len(made)), **settings))
        return made[-1]

    yield make
    for lake in made:
        await lake.close()
