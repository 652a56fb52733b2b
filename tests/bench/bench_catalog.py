"""The catalog's figures: registrations a second, cold start, a million files.

``run`` hands the figures to ``make bench``; the million files stand in a process of their own, so
that its memory is theirs alone.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure
from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.kit.clock import SystemClock
from lakehouse.model import changes as m
from lakehouse.model.dataset import ColumnStats, DataFile
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.identity import init_store
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.stores import LatencyStore, RecordingStore
from support_catalog import CTX, House, build_house, create, file_of

CLIENTS = 32
PUT_SECONDS = 0.005


def wrapped(house: House, wrap: Callable[[ObjectStore], ObjectStore]) -> ObjectStore:
    """Let catalogs opened from now on see the primary bucket through ``wrap``."""
    store = wrap(house.buckets.raw("primary"))

    def raw(name: str) -> ObjectStore:
        return store

    house.buckets.raw = raw  # type: ignore[method-assign]
    return store


async def register(catalog: Catalog, names: int) -> list[Figure]:
    """32 clients, each waiting for its answer before it asks again."""
    session = (await catalog.session(CTX, c.SessionRequest("bench", "r"))).session_id
    left = iter(range(names))
    slowest: list[float] = []

    async def client() -> None:
        for at in left:
            dataset_id = f"D{at:06d}"
            changes = create(dataset_id, f"set {at}", file_of(session, dataset_id, "f"))
            start = time.perf_counter()
            await catalog.commit(CTX, c.CommitRequest(changes))
            slowest.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    seconds = time.perf_counter() - start
    slowest.sort()
    note = f"{names} names, {CLIENTS} clients, a PUT takes {PUT_SECONDS * 1e3:.0f} ms"
    return [
        Figure("register_per_second", names / seconds, note),
        Figure("register_p99_ms", slowest[names * 99 // 100] * 1e3, note),
    ]


async def cold_start(house: House, label: str, figures: list[Figure]) -> Catalog:
    log = RecordingStore(house.buckets.raw("primary"))
    wrapped(house, lambda _: log)
    start = time.perf_counter()
    catalog = await house.open(take_over=True)
    seconds = time.perf_counter() - start
    status = await catalog.status(CTX, c.StatusRequest())
    note = f"{status.datasets} datasets, after a {label}; {log.counts}"
    tag = label.split()[0]
    figures.append(Figure(f"cold_start_seconds_{tag}", seconds, note))
    figures.append(Figure(f"cold_start_requests_{tag}", len(log.log), note))
    return catalog


async def many_names(names: int) -> list[Figure]:
    house = await build_house(SystemClock())
    wrapped(house, lambda store: LatencyStore(store, SystemClock(), put_seconds=PUT_SECONDS))
    catalog = await house.open()
    figures = await register(catalog, names)
    await (await cold_start(house, "kill -9", figures)).close()
    catalog = await cold_start(house, "clean stop", figures)
    note, reads = f"{names} datasets", 2000
    start = time.perf_counter()
    for at in range(reads):
        await catalog.snapshot(CTX, c.SnapshotRequest((f"set {at % names}",)))
    figures.append(Figure("snapshot_per_second", reads / (time.perf_counter() - start), note))
    start = time.perf_counter()
    await catalog.list(CTX, c.ListRequest(query="no such thing"))
    figures.append(Figure("search_all_ms", (time.perf_counter() - start) * 1e3, note))
    await house.close()
    return figures


def plain_file(session: str, at: int) -> DataFile:
    stats = tuple(ColumnStats(col, 0, f"{at * 7 + col}", f"{at * 9 + col}") for col in range(4))
    key = f"datasets/{session}/D1/{at:026d}.parquet"
    return DataFile(key, 10**6 + at, 10**5, f"{at:064x}", rows_hash=f"{at:016x}", stats=stats)


async def million_files(files: int) -> list[Figure]:
    """One dataset of a million files: one more commit, one page, restart, memory."""
    house = await build_house(SystemClock())
    # In files: objects in a memory store would count as memory of the catalog.
    folder = tempfile.TemporaryDirectory()
    files_store = BucketSettings("primary", Path(folder.name).as_uri())
    house.buckets = Buckets([files_store], house.clock, house.ids)
    await init_store(house.store, house.clock, house.ids)
    catalog = await house.open()
    session = (await catalog.session(CTX, c.SessionRequest("bench", "r"))).session_id
    await catalog.commit(CTX, c.CommitRequest(create("D1", "big")))
    step = 5000
    for start in range(0, files, step):
        some = tuple(plain_file(session, at) for at in range(start, min(files, start + step)))
        await catalog.commit(CTX, c.CommitRequest((m.AddFiles("D1", some),)))
        await catalog.session(CTX, c.SessionRequest("bench", "r", session))
    await catalog.close()
    written = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    house.opened.remove(catalog)  # a restart does not keep the old process's memory
    del catalog
    began = time.perf_counter()
    catalog = await house.open()
    figures = [
        Figure("million_written_mib", written, "peak while it was written and folded"),
        Figure("million_open_seconds", time.perf_counter() - began),
    ]
    session = (await catalog.session(CTX, c.SessionRequest("bench", "r"))).session_id
    for name in ("first", "next"):
        change = m.AddFiles("D1", (file_of(session, "D1", name),))
        began = time.perf_counter()
        await catalog.commit(CTX, c.CommitRequest((change,)))
        figures.append(Figure(f"million_{name}_commit_ms", (time.perf_counter() - began) * 1e3))
    began = time.perf_counter()
    await catalog.files(CTX, c.PageRequest("big", limit=1000))
    figures.append(Figure("million_page_ms", (time.perf_counter() - began) * 1e3, "1,000 files"))
    found = (await catalog.get(CTX, c.GetRequest("big"))).dataset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = f"{found.files} files; written, folded and reopened in one process"
    figures.append(Figure("million_peak_mib", peak, note))
    await house.close()
    folder.cleanup()
    return figures


def run() -> list[Figure]:
    figures = asyncio.run(many_names(10_000))
    command = [sys.executable, __file__, "million"]
    path = str(Path(__file__).parents[1])
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, check=True)
    return figures + [Figure(*each) for each in json.loads(done.stdout)]


def main() -> None:
    if sys.argv[1:] == ["million"]:
        found = asyncio.run(million_files(int((sys.argv[2:] or ["1000000"])[0])))
        sys.stdout.write(json.dumps([[each.name, each.value, each.note] for each in found]))
        return
    for figure in run():
        print(figure)


if __name__ == "__main__":
    main()
