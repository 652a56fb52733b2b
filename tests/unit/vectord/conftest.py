"""One store for all tests of a file, for its query worker takes a second; names differ by test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support_vectors import Shelf, shelf


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path_factory.mktemp("store")) as made:
        yield made
