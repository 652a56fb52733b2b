"""What journal, breaker, places and deadlines cost an operation that goes well, and what a bucket
that hangs costs the reads of another beside it, on real sockets.

python tests/bench/bench_buckets.py      prints one line of JSON
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.buckets import Buckets, BucketSettings, ResilienceSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.objectstore.metered import MeteredStore
from lakehouse.objectstore.port import ObjectMeta
from lakehouse.objectstore.retrying import RetryingStore
from support_peer import Peer, serving

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
OPERATIONS = 20_000
ROUNDS = 5
READS = 600
PAIRS = 7
STUCK = 64


class Instant(MemoryStore):
    """Answers without giving up the loop, so that the wrappers alone are measured."""

    async def head(self, key: str) -> ObjectMeta:
        return ObjectMeta(key, 1)


async def cpu_us(call: Callable[[], Awaitable[object]]) -> float:
    """CPU microseconds of one call: of some rounds the best, for the machine is not idle."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(OPERATIONS):
            await call()
        best = min(best, time.process_time() - began)
    return best / OPERATIONS * 1e6


async def wrappers() -> dict[str, float]:
    buckets = Buckets([BucketSettings("one", "memory://bench-buckets")], CLOCK, IDS)
    metered = MeteredStore(Instant("bench", CLOCK))
    buckets._meters["one"] = metered
    whole, bare = buckets.get("one"), RetryingStore(metered, CLOCK, IDS)
    without = await cpu_us(lambda: bare.head("key"))
    return {"wrappers_us": round(await cpu_us(lambda: whole.head("key")) - without, 2)}


async def p99_ms(call: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(READS):
        began = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[int(READS * 0.99)] * 1e3


async def beside() -> dict[str, float]:
    """p99 of reads of one bucket, while all places of another are taken by what never ends, and
    without; the median of some pairs, for what else the machine does is not a bucket's fault."""
    alone, ratios = [], []
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    with serving(Peer()) as well:
        places = [
            replace(well.settings(), name="well"),
            replace(well.settings(), name="ill", endpoint=endpoint),
        ]
        quiet = ResilienceSettings(breaker_failures=0)
        buckets = Buckets(places, CLOCK, IDS, resilience=quiet)
        store, hung = buckets.get("well"), buckets.get("ill")
        await store.put("key", b"x" * 4096)
        await p99_ms(lambda: store.get("key"))
        for _ in range(PAIRS):
            stuck = [asyncio.ensure_future(hung.get(f"{n}")) for n in range(STUCK // 2)]
            stuck += [asyncio.ensure_future(hung.list(limit=1)) for _ in range(STUCK // 2)]
            await asyncio.sleep(0.3)
            busy = await p99_ms(lambda: store.get("key"))
            assert buckets.health("ill").in_flight == STUCK
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
            alone.append(await p99_ms(lambda: store.get("key")))
            ratios.append(busy / alone[-1])
        await buckets.close()
    silent.close()
    return {
        "beside_hanging_p99_ratio": round(statistics.median(ratios), 2),
        "read_p99_ms": round(statistics.median(alone), 2),
    }


async def measure() -> dict[str, float]:
    return await wrappers() | await beside()


if __name__ == "__main__":
    print(json.dumps({"subject": "buckets"} | asyncio.run(measure())), flush=True)
