"""Several real processes on one log, each writing and compacting, killed again and again."""

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
from chaos.log_worker import PREFIX, settings
from lakehouse.appendlog.log import open_log
from lakehouse.appendlog.reading import Damage
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.buckets import BucketSettings, S3Credentials, open_raw
from support_s3 import new_place

WORKER = Path(__file__).with_name("log_worker.py")
CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


@dataclass
class Crew:
    """The workers that run now; each start has a name of its own, all share one spool folder."""

    bucket: BucketSettings
    folder: Path
    workers: int
    running: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    started: int = 0

    async def start(self, place: int) -> None:
        credentials = self.bucket.credentials
        arguments = {
            "url": self.bucket.url,
            "endpoint": self.bucket.endpoint,
            "access_key": credentials.access_key_id if credentials else "",
            "secret_key": credentials.secret_access_key if credentials else "",
            "name": f"w{self.started}",
            "acks": str(self.folder / f"acks-{self.started}"),
            "spool": str(self.folder / "spool"),
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

    def errors(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in self.folder.glob("errors-*"))

    def told(self) -> list[list[str]]:
        return [
            line.split()
            for path in sorted(self.folder.glob("acks-*"))
            for line in path.read_text().splitlines()
        ]

    async def progress(self) -> None:
        """Wait until more is acknowledged."""
        before = len(self.told())
        for _ in range(1200):
            if len(self.told()) > before + 8:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"nothing was acknowledged for a minute: {self.errors()}")


async def _run(crew: Crew, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    try:
        for place in range(crew.workers):
            await crew.start(place)
        for _ in range(kills):
            await crew.progress()
            await asyncio.sleep(rng.random() * 0.8)
            place = rng.randrange(crew.workers)
            await crew.kill(place)
            await crew.start(place)
        await crew.progress()
    finally:
        for place in list(crew.running):
            await crew.kill(place)


async def _judge(crew: Crew, direct: BucketSettings) -> None:
    """A last process takes over the spools; then everything that was told is there, once."""
    store = open_raw(direct, CLOCK)
    log = await open_log(store, PREFIX, "judge", CLOCK, IDS, settings(str(crew.folder / "spool")))
    await log.flush()
    await log.compact()
    damages: list[Damage] = []
    found = [one async for one in log.scan(on_damage=damages.append)]
    places = {str(one.event["token"]): one.seq for one in found}
    assert damages == []
    assert len(places) == len(found), "an event is there twice"
    told = crew.told()
    for kind, token, *seq in told:
        assert token in places, f"{kind}ed and gone: {token}"
        if seq:
            assert places[token] == int(seq[0])
    merged = await store.list(f"{PREFIX}/m/")
    assert merged, "nothing was ever merged"
    assert sum(kind == "offer" for kind, *_ in told) > 0
    print(f"told {len(told)}, there {len(found)}, merged objects {len(merged)}")
    await log.close()
    await store.close()


async def test_a_log_in_a_local_directory_survives_kills(tmp_path: Path) -> None:
    bucket = BucketSettings("primary", f"file://{tmp_path}/bucket")
    (tmp_path / "bucket").mkdir()
    crew = Crew(bucket, tmp_path, workers=2)
    await _run(crew, kills=3, seed=1)
    await _judge(crew, bucket)


@pytest.mark.s3
@pytest.mark.timeout(300)
async def test_a_log_on_real_s3_with_faults_on_the_wire_survives_15_kills(tmp_path: Path) -> None:
    place = new_place(
        os.environ["LAKEHOUSE_TEST_S3_ENDPOINT"],
        os.environ["LAKEHOUSE_TEST_S3_ACCESS_KEY"],
        os.environ["LAKEHOUSE_TEST_S3_SECRET_KEY"],
    )
    direct = place.settings()
    host = urlsplit(place.endpoint)
    proxy = FaultProxy(host.hostname or "", host.port or 80, seed=1)
    faulty = BucketSettings(
        "primary",
        direct.url,
        await proxy.start(),
        credentials=S3Credentials(place.access_key, place.secret_key),
    )
    crew = Crew(faulty, tmp_path, workers=3)
    await _run(crew, kills=15, seed=2)
    # What the proxy still holds of a killed worker's requests arrives now.
    await proxy.quiet()
    await proxy.close()
    await _judge(crew, direct)
    assert min(proxy.seen[name] for name in ("drop_after", "drop_before", "error_503")) > 0
