"""Commits a second of 32 clients over a store whose PUTs and LISTs take 5 ms.

python tests/bench/bench_ledger.py      prints one line of JSON
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.ledger.ledger import WriterInfo, open_ledger
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.testing.simulation.machine import WorldMachine, add_token
from lakehouse.testing.stores import LatencyStore

CLIENTS = 32
COMMITS = 10_000
PUT_SECONDS = 0.005


async def measure() -> dict[str, float]:
    """One run; times in seconds."""
    clock = SystemClock()
    store = LatencyStore(MemoryStore("bench", clock), clock, PUT_SECONDS, PUT_SECONDS)
    writer = WriterInfo("bench")
    ledger = await open_ledger(store, WorldMachine(), writer, clock, SystemIds(clock))
    seconds: list[float] = []

    async def client(number: int) -> None:
        for count in range(COMMITS // CLIENTS):
            token = f"{number}-{count}"
            began = time.perf_counter()
            await ledger.commit(add_token(token, f"key-{token}", "body"))
            seconds.append(time.perf_counter() - began)

    stalls: list[float] = []
    busy: list[float] = []

    async def heartbeat() -> None:
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            stalls.append(time.perf_counter() - began - 0.001)
            busy.append(time.thread_time() - worked)

    beating = asyncio.ensure_future(heartbeat())
    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    total = time.perf_counter() - began
    beating.cancel()
    await ledger.close()
    began = time.perf_counter()
    again = await open_ledger(store, WorldMachine(), writer, clock, SystemIds(clock))
    opening = time.perf_counter() - began
    await again.close()
    return {
        "commits_per_second": round(len(seconds) / total, 1),
        "p50_ms": round(statistics.median(seconds) * 1e3, 2),
        "p99_ms": round(statistics.quantiles(seconds, n=100)[98] * 1e3, 2),
        "loop_stall_p99_ms": round(statistics.quantiles(stalls, n=100)[98] * 1e3, 2),
        # The loop's own work between two beats: other processes do not count.
        "loop_busy_p99_ms": round(statistics.quantiles(busy, n=100)[98] * 1e3, 2),
        "open_ms": round(opening * 1e3, 1),
    }


if __name__ == "__main__":
    result = {"subject": "ledger", "clients": CLIENTS, "put_ms": PUT_SECONDS * 1e3}
    print(json.dumps(result | asyncio.run(measure())))
