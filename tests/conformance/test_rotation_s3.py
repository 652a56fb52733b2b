"""Keys of a bucket that rotate under load, at a real server."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.kit.secrets import local_secrets
from lakehouse.model.failures import AttemptOutcome, FailedAttempt
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from support_s3 import S3Oracle, new_place

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)

pytestmark = pytest.mark.s3


class Sink:
    def __init__(self) -> None:
        self.got: list[FailedAttempt] = []

    def failed(self, attempt: FailedAttempt) -> None:
        self.got.append(attempt)


def admin(*arguments: str) -> None:
    """``radosgw-admin`` of the server of the tests."""
    command = os.environ.get("LAKEHOUSE_TEST_S3_ADMIN", "")
    assert command, "run with: tools/s3_server.py --run pytest -m s3"
    subprocess.run([*shlex.split(command), *arguments], check=True, capture_output=True, timeout=60)


def write(file: Path, key_id: str, secret: str) -> None:
    new = file.with_name("new")
    new.touch(0o600)
    new.write_text(json.dumps({"access_key_id": key_id, "secret_access_key": secret}))
    new.rename(file)


async def test_nothing_fails_while_keys_rotate(tmp_path: Path) -> None:
    user = f"rotating-{IDS.ulid().lower()}"
    keys = [(f"{user}-{number}", IDS.token(20)) for number in range(3)]
    made = ("user", "create", f"--uid={user}", "--display-name=rotating")
    await asyncio.to_thread(
        admin, *made, f"--access-key={keys[0][0]}", f"--secret-key={keys[0][1]}"
    )
    place = new_place(os.environ["LAKEHOUSE_TEST_S3_ENDPOINT"], *keys[0])
    file, sink = tmp_path / "keys", Sink()
    write(file, *keys[0])
    settings = BucketSettings(
        "own", f"s3://{place.bucket}/{place.prefix}", place.endpoint, secret_ref=f"file:{file}"
    )
    buckets = Buckets([settings], CLOCK, IDS, sink, secrets=local_secrets({}))
    store = buckets.get("own")
    stopping = asyncio.Event()
    written: list[str] = []

    async def client(name: str) -> None:
        number = 0
        while not stopping.is_set():
            key = f"{name}/{number:05}"
            await store.put(key, key.encode(), if_absent=True)
            assert await store.get(key) == key.encode()
            await store.list(f"{name}/", limit=1)
            written.append(key)
            number += 1
            await asyncio.sleep(0.01)

    clients = [asyncio.ensure_future(client(f"client-{number}")) for number in range(4)]
    for old, new in ((keys[0], keys[1]), (keys[1], keys[2])):
        await asyncio.sleep(0.5)
        own = (f"--uid={user}", "--key-type=s3", f"--access-key={new[0]}")
        await asyncio.to_thread(admin, "key", "create", *own, f"--secret-key={new[1]}")
        write(file, *new)
        gone = (f"--uid={user}", "--key-type=s3", f"--access-key={old[0]}")
        await asyncio.to_thread(admin, "key", "rm", *gone)
        before = len(written)
        while len(written) < before + 40 and not any(one.done() for one in clients):
            await asyncio.sleep(0.05)
    stopping.set()
    await asyncio.gather(*clients)
    await buckets.close()
    assert {one.outcome for one in sink.got} == {AttemptOutcome.RETRIED}
    assert {one.http_status for one in sink.got} == {403}
    oracle = S3Oracle(replace(place, access_key=keys[2][0], secret_key=keys[2][1]))
    assert sorted(oracle.keys()) == sorted(written)
    oracle.close()
