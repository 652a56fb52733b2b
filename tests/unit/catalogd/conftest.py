"""A catalog on a fresh memory bucket, and a session on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from support_catalog import CTX, House, build_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    built = await build_house()
    yield built
    await built.close()


@pytest.fixture
async def catalog(house: House) -> Catalog:
    return await house.open()


@pytest.fixture
async def session(catalog: Catalog) -> str:
    opened = await catalog.session(CTX, c.SessionRequest("tests", "ingestd"))
    return opened.session_id
