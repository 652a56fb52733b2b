"""Where a process's failed attempts go, by what runs in it and whom it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lakehouse.contracts.storage import ErrorsRequest
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.node.config import load_config
from lakehouse.node.journaling import Journaling
from lakehouse.node.reporting import Reporter
from lakehouse.node.wiring import Wiring
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.failures import NoSink
from lakehouse.objectstore.identity import init_store
from lakehouse.storaged.journal import Journal
from unit.storaged.attempts import attempt

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
PEERS = {"LAKEHOUSE__NODE__PEERS__CATALOGD": "127.0.0.1:1"}


@pytest.fixture
async def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wiring]:
    monkeypatch.chdir(tmp_path)
    made = Wiring()
    yield made
    await made.close()


def journaling(wiring: Wiring, roles: str, **settings: str) -> Journaling:
    environ = {"LAKEHOUSE__NODE__ROLES": roles, **PEERS, **settings}
    config = load_config(None, environ)
    wiring.peers(config, CLOCK)
    return Journaling(config, wiring, CLOCK, IDS)


async def test_storaged_keeps_the_journal(wiring: Wiring) -> None:
    made = journaling(wiring, "storaged")
    assert isinstance(made.sink, Journal)
    assert made.own() is made.sink


async def test_others_tell_storaged_although_nothing_needs_it(wiring: Wiring) -> None:
    made = journaling(wiring, "queryd", LAKEHOUSE__NODE__PEERS__STORAGED="127.0.0.1:2")
    assert isinstance(made.sink, Reporter)
    assert "storage" in wiring.contracts


async def test_who_knows_no_storaged_says_so(
    wiring: Wiring, caplog: pytest.LogCaptureFixture
) -> None:
    made = journaling(wiring, "queryd")
    assert isinstance(made.sink, NoSink)
    assert "no journal" in caplog.text


async def test_nothing_is_written_before_there_is_a_store_of_ours(
    wiring: Wiring, tmp_path: Path
) -> None:
    url = (tmp_path / "primary").as_uri()
    settings = {
        "LAKEHOUSE__BUCKETS__PRIMARY__URL": url,
        "LAKEHOUSE__NODE__STATE_DIR": str(tmp_path / "state"),
    }
    made = journaling(wiring, "storaged,catalogd", **settings)
    buckets = Buckets([BucketSettings("primary", url)], CLOCK, IDS, made.sink)
    try:
        made.sink.failed(attempt(1))
        await made.start(buckets)
        await asyncio.sleep(1.5)
        assert not (tmp_path / "primary").exists()
        assert (await made.own().errors(ErrorsRequest())).spooled == 1
        await init_store(buckets.raw("primary"), CLOCK, IDS)
        async with asyncio.timeout(10):
            while not list((tmp_path / "primary").rglob("*.jsonl")):
                await asyncio.sleep(0.05)
    finally:
        await made.close()
        await buckets.close()


async def test_stores_on_one_machine_have_spools_of_their_own(
    wiring: Wiring, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        url = (tmp_path / name).as_uri()
        made = journaling(wiring, "storaged", LAKEHOUSE__BUCKETS__PRIMARY__URL=url)
        buckets = Buckets([BucketSettings("primary", url)], CLOCK, IDS, made.sink)
        await made.start(buckets)
        await made.own().errors(ErrorsRequest())
        await made.close()
        await buckets.close()
    folders = list((tmp_path / "data" / "errors").iterdir())
    assert len(folders) == 2


async def test_queries_ask_for_near_vectors_where_somebody_has_them(wiring: Wiring) -> None:
    journaling(wiring, "queryd")
    assert "vectors" not in wiring.contracts
    journaling(wiring, "queryd", LAKEHOUSE__NODE__PEERS__VECTORD="127.0.0.1:3")
    assert "vectors" in wiring.contracts
