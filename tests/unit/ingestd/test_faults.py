"""Ingest over a bucket that fails: all of a file or nothing, once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.objectstore.buckets import BucketSettings
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.stores import Fault, FaultRates, FaultStore
from support_ingest import Lake, MakeLake, build_lake
from support_peer import Peer, serving

ROWS = 400
BODY = b"n,s\n" + b"".join(b"%d,row %d\n" % (n, n) for n in range(ROWS))
TEN = range(10)


async def _faulty(make_lake: MakeLake, seed: int = 0, **settings: Any) -> tuple[Lake, FaultStore]:
    """A lake, and the store below it that fails as told."""
    stores: list[FaultStore] = []

    def wrap(store: ObjectStore) -> ObjectStore:
        stores.append(FaultStore(store, seed))
        return stores[0]

    return await make_lake(wrap=wrap, **settings), stores[0]


async def _until_it_is_there(lake: Lake, name: str, **how: Any) -> int:
    """Send the same file until it is taken; how often it was."""
    for count in range(1, 60):
        try:
            await lake.put(BODY, name, **how)
        except LakehouseError as error:
            if not (error.retryable or error.kind is ErrorKind.UNKNOWN):
                raise
        else:
            return count
        with contextlib.suppress(LakehouseError):
            assert (await lake.table(name)).num_rows == ROWS
    raise AssertionError("it never was")


@pytest.mark.parametrize("seed", range(6))
async def test_all_or_nothing_whatever_fails(make_lake: MakeLake, seed: int) -> None:
    print(f"seed {seed}")
    lake, store = await _faulty(make_lake, seed)
    store._rates = FaultRates(before=0.12, after=0.12, delayed=0.1, truncated=0.05)
    for name in "abc":
        await _until_it_is_there(lake, name)
    results = await asyncio.gather(
        *(_until_it_is_there(lake, "many", mode="append") for _ in TEN), return_exceptions=True
    )
    assert not [one for one in results if isinstance(one, BaseException)]
    assert store.injected
    store._rates = FaultRates()
    await store.settle()
    for name in ("a", "b", "c", "many"):
        assert Counter((await lake.table(name))["n"].to_pylist()) == Counter(range(ROWS))


@pytest.mark.parametrize("fault", list(Fault)[:3])
async def test_a_large_upload_that_fails_once_is_sent_again(
    make_lake: MakeLake, fault: Fault
) -> None:
    lake, store = await _faulty(make_lake, upload_whole_bytes_max=0)
    store.inject("put_stream", fault, ErrorKind.UNKNOWN)
    report = await lake.put(BODY)
    assert (report.rows, (await lake.table()).num_rows) == (ROWS, ROWS)
    assert store.injected


async def test_an_upload_that_keeps_failing_commits_nothing(make_lake: MakeLake) -> None:
    lake, store = await _faulty(make_lake, upload_whole_bytes_max=0)
    for _ in range(2):
        store.inject("put_stream", Fault.AFTER, ErrorKind.UNKNOWN)
    error = await lake.refused(BODY)
    assert (error.kind, error.retryable) == (ErrorKind.UNAVAILABLE, True)
    assert (await lake.put(BODY)).created


@pytest.fixture
async def on_peer(tmp_path: Path) -> AsyncIterator[tuple[Lake, Peer]]:
    with serving(Peer()) as peer:
        settings = peer.settings()
        bucket = BucketSettings(
            "primary", settings.url, settings.endpoint, credentials=settings.credentials
        )
        lake = await build_lake(tmp_path, bucket)
        yield lake, peer
        peer.script.clear()
        await lake.close()


def _large() -> bytes:
    """A file whose rows take more than one part: they do not compress."""
    lines = random.Random(1).randbytes(9 << 20).hex(" ", 40).split(" ")
    return "\n".join(["s", *lines]).encode()


async def test_a_refused_part_does_not_fail_a_large_ingest(on_peer: tuple[Lake, Peer]) -> None:
    lake, peer = on_peer
    body = _large()
    peer.refused_parts = 2
    report = await lake.put(body)
    assert peer.refused_parts == 0
    assert (await lake.table())["s"].to_pylist() == body.decode().split("\n")[1:]
    assert report.rows == body.count(b"\n")


async def test_parts_that_are_always_refused_end_in_words(on_peer: tuple[Lake, Peer]) -> None:
    lake, peer = on_peer
    peer.refused_parts = 10**6
    started = time.monotonic()
    error = await lake.refused(_large())
    assert error.kind is ErrorKind.UNAVAILABLE
    assert time.monotonic() - started < 30
    peer.refused_parts = 0
    missing = await lake.refused(b"a\n", "t", mode="append", object_key="in/x")
    assert missing.kind is ErrorKind.NOT_FOUND
    assert not [key for key in peer.objects if key.startswith("pre/datasets/")]
    assert peer.uploads == {}
