"""Every test of a contract runs twice: against the role itself, and over gRPC on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.world import World, open_ingestd, world
from lakehouse.catalogd.tokens import Tokens
from lakehouse.objectstore.identity import read_identity
from lakehouse.storaged.journal import Journal, JournalPlace
from lakehouse.storaged.registry import Registry
from lakehouse.storaged.service import Storage
from lakehouse.storaged.settings import JournalSettings, RegistrySettings


@pytest.fixture(params=["direct", "wire"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """An empty store with its buckets."""
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def storage(here: World, transport: str) -> Any:
    spool = str(here.folder / "errors")
    journal = Journal(JournalSettings(errors_spool_dir=spool), here.clock, here.ids)
    buckets = here.open_buckets(failures=journal)
    catalog = await here.open_catalog()
    added = RegistrySettings(local_root=str(here.folder / "added"))
    registry = Registry(added, buckets, catalog, here.clock, here.ids)
    here.near["storage"] = Storage(buckets, registry, journal, here.clock, here.ids)
    primary = buckets.unreported("primary")
    place = JournalPlace(
        primary, "tests", lambda: buckets.health("primary"), lambda: read_identity(primary)
    )
    await journal.start(place)
    here.stack.push_async_callback(journal.close)
    return await here.connect(transport, "storage")


@pytest.fixture
async def catalog(here: World, transport: str) -> Any:
    here.open_buckets(f"memory://{here.ids.ulid()}")
    await here.open_catalog()
    return await here.connect(transport, "catalog")


@pytest.fixture
async def tokens(here: World, transport: str) -> Any:
    here.open_buckets(f"memory://{here.ids.ulid()}")
    catalog = await here.open_catalog()
    here.near["tokens"] = Tokens(catalog, here.clock, here.ids)
    return await here.connect(transport, "tokens")


@pytest.fixture
async def ingest(here: World, transport: str, tmp_path: Path) -> Any:
    await open_ingestd(here, tmp_path)
    return await here.connect(transport, "ingest")


@pytest.fixture
async def rows(here: World, transport: str, tmp_path: Path) -> Any:
    await open_ingestd(here, tmp_path)
    return await here.connect(transport, "rows")


@pytest.fixture
async def journal(here: World, transport: str, tmp_path: Path) -> Any:
    await open_ingestd(here, tmp_path)
    return await here.connect(transport, "journal")
