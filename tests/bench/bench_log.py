"""Append logs: durable appends of 8 writers over a store with 5 ms PUTs, opening a log of 100,000
batches, and how compaction grows.

python tests/bench/bench_log.py      prints one line of JSON
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from lakehouse.appendlog.batch import Position, encode, make_body
from lakehouse.appendlog.event import encode_event
from lakehouse.appendlog.layout import LogLayout
from lakehouse.appendlog.log import AppendLog, open_log
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ObjectStore
from lakehouse.testing.stores import LatencyStore, RecordingStore

WRITERS = 8
EVENTS = 100_000
EVENTS_A_CALL = 64
PUT_SECONDS = 0.005
BATCHES = 100_000
PREFIX = "_bench/log"
CLOCK = SystemClock()
IDS = SystemIds(CLOCK)


def event(number: int) -> dict[str, object]:
    """About as large as a failed attempt in the error journal."""
    return {
        "id": f"01M3250V0DDDPM6AZB{number:08d}",
        "at": "2026-11-21T12:00:00.000000Z",
        "bucket": "primary",
        "operation": "get",
        "key": f"datasets/01M3250V0DDDPM6AZBP1MHY6KV/{number:026d}.parquet",
        "error_kind": "unavailable",
        "reason": "the server answered 503 SlowDown",
        "http_status": 503,
        "latency_ms": 12.5,
        "attempt": 1,
        "final": False,
    }


async def opened(store: ObjectStore) -> AppendLog:
    return await open_log(store, PREFIX, "bench", CLOCK, IDS)


async def append() -> dict[str, float]:
    """100,000 events, each call answered after its PUT and the look at the floor."""
    metered = MeteredStore(MemoryStore("log", CLOCK))
    log = await opened(LatencyStore(metered, CLOCK, PUT_SECONDS, PUT_SECONDS))
    before = metered.footprint()
    seconds: list[float] = []
    own = EVENTS // WRITERS

    async def writer(number: int) -> None:
        for first in range(number * own, (number + 1) * own, EVENTS_A_CALL):
            last = min(first + EVENTS_A_CALL, (number + 1) * own)
            began = time.perf_counter()
            await log.append([event(i) for i in range(first, last)])
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    total = time.perf_counter() - began
    after = metered.footprint()
    size = sum(len(json.dumps(event(i), separators=(",", ":"))) + 1 for i in range(EVENTS))
    puts = after.requests["put"] - before.requests["put"]
    await log.close()
    return {
        "append_events_per_second": round(EVENTS / total),
        "append_p50_ms": round(statistics.median(seconds) * 1e3, 2),
        "append_p99_ms": round(statistics.quantiles(seconds, n=100)[98] * 1e3, 2),
        "append_bytes_ratio": round((after.bytes_written - before.bytes_written) / size, 4),
        "append_events_per_object": round(EVENTS / puts, 1),
    }


async def filled(batches: int) -> MemoryStore:
    """A log of batches with one event each, written past the log."""
    store, layout, at = MemoryStore("log", CLOCK), LogLayout(PREFIX), Position()
    for number in range(batches):
        body = make_body(f"{number:026d}", [encode_event(event(number), 0)])
        encoded = encode(body, at, "bench", number * 1_000_000)
        await store.put(layout.slot(encoded.header.n), encoded.data)
        at = Position.of(encoded.header)
    return store


async def cold_start(store: MemoryStore) -> dict[str, float]:
    recorded = RecordingStore(LatencyStore(store, CLOCK, PUT_SECONDS, PUT_SECONDS))
    began = time.perf_counter()
    log = await opened(recorded)
    seconds = time.perf_counter() - began
    result = {
        "open_ms_of_100000": round(seconds * 1e3, 1),
        "open_requests_of_100000": float(len(recorded.log)),
    }
    await log.close()
    return result


async def compaction() -> dict[str, float]:
    """CPU time and bytes a batch, for a log and for one four times as long."""
    figures: list[tuple[float, float]] = []
    for batches in (5_000, 20_000):
        store = MeteredStore(await filled(batches))
        log = await opened(store)
        before, began = store.footprint(), time.process_time()
        report = await log.compact()
        seconds = time.process_time() - began
        written = store.footprint().bytes_written - before.bytes_written
        figures.append((seconds / report.batches, written / report.bytes_read))
        await log.close()
    (short, bytes_short), (long, bytes_long) = figures
    return {
        "compact_batches_per_second": round(1 / long),
        "compact_time_growth": round(long / short, 2),
        "compact_bytes_growth": round(bytes_long / bytes_short, 3),
    }


async def measure() -> dict[str, float]:
    result = await append()
    result |= await cold_start(await filled(BATCHES))
    result |= await compaction()
    return result


if __name__ == "__main__":
    print(json.dumps({"subject": "log"} | asyncio.run(measure())))
