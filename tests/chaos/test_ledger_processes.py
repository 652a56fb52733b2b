"""Three real processes over one ledger, killed again and again: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chaos.fault_proxy import FaultProxy
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.access import Access
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.objectstore.buckets import BucketSettings, S3Credentials, open_raw
from lakehouse.testing.simulation.bucket import Bucket
from lakehouse.testing.simulation.ledgerbook import Acknowledged, Ledgerbook, check_chain
from support_s3 import new_place

WORKER = Path(__file__).with_name("ledger_worker.py")
WORKERS = 3
CLOCK = SystemClock()


@dataclass
class Pack:
    """The workers that run now; each start has a name of its own."""

    settings: BucketSettings
    folder: Path
    running: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    acks: dict[int, Path] = field(default_factory=dict)
    started: int = 0

    async def start(self, place: int) -> None:
        credentials = self.settings.credentials
        acks = self.acks[place] = self.folder / f"acks-{self.started}"
        arguments = {
            "url": self.settings.url,
            "endpoint": self.settings.endpoint,
            "access_key": credentials.access_key_id if credentials else "",
            "secret_key": credentials.secret_access_key if credentials else "",
            "name": f"w{self.started}",
            "acks": str(acks),
        }
        self.started += 1
        with (self.folder / f"errors-{self.started}").open("wb") as errors:
            self.running[place] = await asyncio.create_subprocess_exec(
                sys.executable, str(WORKER), json.dumps(arguments), stderr=errors
            )

    async def kill(self, place: int) -> None:
        process = self.running.pop(place)
        assert process.returncode is None, f"a worker ended by itself: {self.errors()}"
        process.kill()
        await process.wait()

    def holder(self) -> int:
        """The place that was acknowledged last."""
        known = {place: path for place, path in self.acks.items() if path.exists()}
        return max(known, key=lambda place: known[place].stat().st_mtime_ns, default=0)

    def errors(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in self.folder.glob("errors-*"))

    def told(self) -> list[Acknowledged]:
        lines = [
            line.split()
            for path in sorted(self.folder.glob("acks-*"))
            for line in path.read_text().splitlines()
        ]
        return [Acknowledged(token, int(seq), int(epoch)) for token, seq, epoch in lines]


async def _run(pack: Pack, kills: int, seed: int, pause_seconds: float) -> None:
    rng = random.Random(seed)
    try:
        for place in range(WORKERS):
            await pack.start(place)
        for _ in range(kills):
            await _progress(pack)
            await asyncio.sleep(rng.random() * pause_seconds)
            place = pack.holder() if rng.random() < 0.7 else rng.randrange(WORKERS)
            await pack.kill(place)
            await pack.start(place)
        await _progress(pack)
    finally:
        for place in list(pack.running):
            await pack.kill(place)


async def _progress(pack: Pack) -> None:
    """Wait until somebody is acknowledged again."""
    before = len(pack.told())
    for _ in range(1200):
        if len(pack.told()) > before + 5:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"nothing was acknowledged for a minute: {pack.errors()}")


async def _judge(pack: Pack, direct: BucketSettings) -> int:
    store = open_raw(direct, CLOCK)
    access = Access(store, Layout(), CLOCK, SystemIds(CLOCK), LedgerSettings())
    book = Ledgerbook(acknowledged=pack.told())
    head = await check_chain(book, access, Bucket())
    await store.close()
    return head.epoch


async def test_local_directory_survives_kills(tmp_path: Path) -> None:
    settings = BucketSettings("primary", f"file://{tmp_path}/bucket")
    (tmp_path / "bucket").mkdir()
    pack = Pack(settings, tmp_path)
    await _run(pack, kills=5, seed=1, pause_seconds=0.4)
    epochs = await _judge(pack, settings)
    print(f"acknowledged {len(pack.told())}, epochs {epochs}")
    assert epochs > WORKERS


@pytest.mark.s3
@pytest.mark.timeout(300)
async def test_real_s3_with_faults_on_the_wire_survives_25_kills(tmp_path: Path) -> None:
    place = new_place(
        os.environ["LAKEHOUSE_TEST_S3_ENDPOINT"],
        os.environ["LAKEHOUSE_TEST_S3_ACCESS_KEY"],
        os.environ["LAKEHOUSE_TEST_S3_SECRET_KEY"],
    )
    direct = place.settings()
    host = urlsplit(place.endpoint)
    proxy = FaultProxy(host.hostname or "", host.port or 80, seed=1)
    settings = BucketSettings(
        "primary",
        direct.url,
        await proxy.start(),
        credentials=S3Credentials(place.access_key, place.secret_key),
    )
    pack = Pack(settings, tmp_path)
    await _run(pack, kills=25, seed=2, pause_seconds=1.0)
    # What the proxy still holds of a killed worker's requests arrives now.
    await proxy.quiet()
    await proxy.close()
    epochs = await _judge(pack, direct)
    print(f"acknowledged {len(pack.told())}, epochs {epochs}, faults {dict(proxy.seen)}")
    assert epochs > 12
    assert min(proxy.seen[name] for name in ("drop_after", "drop_before", "error_503")) > 0
