"""A local store of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lakehouse.kit.clock import SystemClock
from lakehouse.objectstore.local import LocalStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore(root, SystemClock())
    yield store
    await store.close()
