"""A bucket that goes away and comes back: seconds later it serves again, by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from e2e.gate import Gate
from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.health import BreakerState
from lakehouse.objectstore.buckets import Buckets, ResilienceSettings
from support_peer import Peer, serving

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
RECOVERY_SECONDS_MAX = 5.0
OUTAGE_SECONDS = 4.0


class Sink:
    def __init__(self) -> None:
        self.got: list[FailedAttempt] = []

    def failed(self, attempt: FailedAttempt) -> None:
        self.got.append(attempt)


@pytest.mark.parametrize("how", ["shut", "hang"])
async def test_every_operation_is_back_within_seconds(how: str) -> None:
    sink = Sink()
    with serving(Peer()) as peer:
        parts = urlsplit(peer.endpoint)
        gate = Gate(parts.hostname or "", parts.port or 0)
        settings = ResilienceSettings(attempt_seconds=1.0)
        places = [replace(peer.settings(), endpoint=gate.url), replace(peer.settings(), name="b")]
        buckets = Buckets(places, CLOCK, IDS, sink, settings)
        store, other = buckets.get("peer"), buckets.get("b")
        await store.put("key", b"x")
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.get("key"),
            lambda: store.head("key"),
            lambda: store.list(limit=1),
            lambda: store.put("key", b"x"),
        ]
        stopping = asyncio.Event()
        back: dict[int, float] = {}
        ended = float("inf")
        served = 0

        async def client(number: int) -> None:
            """Asks again and again, whatever comes of it."""
            while not stopping.is_set():
                began = CLOCK.monotonic()
                try:
                    await calls[number % len(calls)]()
                    if began > ended:
                        back.setdefault(number, CLOCK.monotonic() - ended)
                except LakehouseError:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.005)

        async def neighbour() -> None:
            nonlocal served
            while not stopping.is_set():
                await other.get("key")
                served += 1
                await asyncio.sleep(0.005)

        clients = [asyncio.ensure_future(client(number)) for number in range(12)]
        clients.append(asyncio.ensure_future(neighbour()))
        await asyncio.sleep(0.3)
        getattr(gate, how)()
        await asyncio.sleep(OUTAGE_SECONDS)
        assert buckets.health("peer").breaker is not BreakerState.CLOSED
        assert buckets.health("peer").unavailable_since is not None
        during = served
        gate.open()
        ended = began = CLOCK.monotonic()
        held_up = 0.0
        while len(back) < 12 and began - ended - held_up < 2 * RECOVERY_SECONDS_MAX:
            await asyncio.sleep(0.05)
            # What this loop sleeps too long the machine does other things.
            now = CLOCK.monotonic()
            held_up += now - began - 0.05
            began = now
        stopping.set()
        await asyncio.gather(*clients)
        assert len(back) == 12
        assert max(back.values()) - held_up < RECOVERY_SECONDS_MAX
        assert during > 50, "the other bucket served all the time"
        assert buckets.health("peer").breaker is BreakerState.CLOSED
        assert buckets.health("peer").in_flight == 0
        await buckets.close()
        gate.shut()
    assert {one.bucket for one in sink.got} == {"peer"}
    assert {one.sent for one in sink.got} == {True, False}
    assert len({(one.op_id, one.attempt) for one in sink.got}) == len(sink.got)
