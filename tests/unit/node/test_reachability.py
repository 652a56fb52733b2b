"""What ``/ready`` says of buckets and peers: which of them the node cannot do without."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from e2e.nodes import free_ports
from lakehouse.contracts.readiness import Readiness
from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.model.failures import FailedAttempt
from lakehouse.model.health import BreakerState, BucketHealth
from lakehouse.node.reachability import try_again, watch_others
from lakehouse.node.readiness import NodeReadiness
from lakehouse.objectstore.buckets import Buckets, BucketSettings, ResilienceSettings, S3Credentials
from lakehouse.testing.clocks import SeededIds
from support_peer import Peer, serving

FINE = BucketHealth(BreakerState.CLOSED, 1.0, 0, 0, 0, 0)
SINCE = datetime(2026, 11, 21, 17, 2, tzinfo=UTC)
OPEN = replace(FINE, breaker=BreakerState.OPEN, unavailable_since=SINCE)


@dataclass
class Known:
    """Buckets with the health they are given."""

    found: dict[str, BucketHealth]

    def names(self) -> tuple[str, ...]:
        return tuple(self.found)

    def health(self, name: str) -> BucketHealth:
        return self.found[name]


def node(
    found: dict[str, BucketHealth], peers: Mapping[str, str] | None = None, state: str = "READY"
) -> Readiness:
    readiness = NodeReadiness()
    channel: Any = SimpleNamespace(get_state=lambda: SimpleNamespace(name=state))
    channels = dict.fromkeys((peers or {}).values(), channel)
    watch_others(readiness, cast(Buckets, Known(found)), peers or {}, channels)
    readiness.enter("running")
    return readiness.readiness()


def test_all_is_well() -> None:
    said = node({"primary": FINE, "client_eu": FINE}, {"catalogd": "a:1"})
    assert said.ready
    assert (said.reasons, said.degraded) == ((), ())
    assert said.details["bucket_client_eu_breaker"] == "closed"
    assert said.details["peer_catalogd"] == "ready"
    assert set(said.parts) == {"buckets", "peers"}


@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_another_bucket_degrades_the_node_and_leaves_it_ready(state: BreakerState) -> None:
    said = node({"primary": FINE, "client_eu": replace(OPEN, breaker=state)})
    assert said.ready
    assert said.degraded == ("buckets: client_eu does not answer since 2026-11-21T17:02:00+00:00",)
    assert said.parts["buckets"].ready


def test_without_the_primary_nothing_can_be_committed() -> None:
    said = node({"primary": OPEN, "client_eu": FINE})
    assert not said.ready
    assert said.reasons == ("buckets: primary does not answer since 2026-11-21T17:02:00+00:00",)
    assert not said.parts["buckets"].ready


def test_a_failure_that_does_not_open_the_breaker_is_told_already() -> None:
    said = node({"primary": replace(FINE, unavailable_since=SINCE)})
    assert said.ready
    assert "primary fails since" in said.degraded[0]


def test_a_gateway_can_do_without_all_peers_but_the_catalog() -> None:
    lost = node({}, {"queryd": "b:1"}, "TRANSIENT_FAILURE")
    assert lost.ready
    assert lost.degraded == ("peers: queryd at b:1 does not answer",)
    assert not node({}, {"catalogd": "a:1"}, "TRANSIENT_FAILURE").ready
    assert node({}, {"catalogd": "a:1"}, "IDLE").ready


async def test_a_bucket_that_nobody_asks_is_found_to_be_back() -> None:
    failed: list[FailedAttempt] = []

    class Sink:
        def failed(self, attempt: FailedAttempt) -> None:
            failed.append(attempt)

    port = free_ports(1)[0]
    settings = [
        BucketSettings("primary", "memory://reachable"),
        BucketSettings(
            "client_eu",
            "s3://bucket/eu",
            f"http://127.0.0.1:{port}",
            credentials=S3Credentials("k", "s"),
        ),
    ]
    clock, ids = SystemClock(), SeededIds(5)
    resilience = ResilienceSettings(breaker_failures=2, breaker_seconds=0.0, probe_seconds=0.1)
    buckets = Buckets(settings, clock, ids, Sink(), resilience)
    readiness = NodeReadiness()
    watch_others(readiness, buckets, {}, {})
    readiness.enter("running")
    with pytest.raises(LakehouseError):
        await buckets.get("client_eu").head("k")
    assert buckets.health("client_eu").breaker is BreakerState.OPEN
    known = len(failed)
    watching = asyncio.create_task(try_again(buckets, clock))
    try:
        async with asyncio.timeout(30):
            while len(failed) == known:
                await asyncio.sleep(0.02)
        # It was asked once, and that it failed is in the journal like any other attempt.
        assert (failed[-1].operation, failed[-1].attempt, failed[-1].final) == ("head", 1, True)
        assert readiness.readiness().degraded
        with serving(Peer(), port) as peer:
            async with asyncio.timeout(30):
                while readiness.readiness().degraded:
                    await asyncio.sleep(0.02)
            asked = len(peer.requests)
            assert asked == 1
            await asyncio.sleep(0.3)
            assert len(peer.requests) == asked, "a bucket that answers is left in peace"
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await buckets.close()
