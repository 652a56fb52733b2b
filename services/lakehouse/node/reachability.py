"""Whether buckets and peers answer, for ``/ready``: from what requests saw.

Only a bucket that does not answer is asked, every so often, whether it is back: whoever is not
ready gets no requests that could find out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from lakehouse.contracts.readiness import Readiness
from lakehouse.kit.clock import Clock
from lakehouse.model.health import BreakerState, BucketHealth
from lakehouse.model.refs import PRIMARY
from lakehouse.node.readiness import NodeReadiness
from lakehouse.objectstore.buckets import Buckets

# What a channel says of itself whose peer refused, or went away and has not come back.
_BROKEN: Final = "TRANSIENT_FAILURE"
_TRY_SECONDS: Final = 2.0
# Without it no caller can be let in, and no dataset be found.
_INDISPENSABLE: Final = "catalogd"


class BucketsReachable:
    """Not ready while the primary does not answer: nothing can be committed. Any other bucket takes
    its own datasets with it, and degrades the node."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def readiness(self) -> Readiness:
        reasons: list[str] = []
        degraded: list[str] = []
        details: dict[str, str] = {}
        for name in self._buckets.names():
            health = self._buckets.health(name)
            details[f"bucket_{name}_breaker"] = health.breaker.value
            if health.breaker is not BreakerState.CLOSED:
                told = reasons if name == PRIMARY else degraded
                told.append(f"{name} does not answer{_since(health)}")
            elif health.unavailable_since is not None:
                degraded.append(f"{name} fails{_since(health)}, and is still being asked")
        return Readiness(not reasons, tuple(reasons), details, tuple(degraded))


class PeersReachable:
    """Not ready while the catalog's process does not answer; another one that does not degrades
    this one.

    Args:
        peers: role -> address.
        channels: address -> channel, as they are opened.
    """

    def __init__(self, peers: Mapping[str, str], channels: Mapping[str, Any]) -> None:
        self._peers = peers
        self._channels = channels

    def readiness(self) -> Readiness:
        reasons: list[str] = []
        degraded: list[str] = []
        details: dict[str, str] = {}
        for role, address in self._peers.items():
            channel = self._channels.get(address)
            if channel is None:
                continue
            state = channel.get_state().name
            details[f"peer_{role}"] = state.lower()
            if state == _BROKEN:
                told = reasons if role == _INDISPENSABLE else degraded
                told.append(f"{role} at {address} does not answer")
        return Readiness(not reasons, tuple(reasons), details, tuple(degraded))


def _since(health: BucketHealth) -> str:
    since = health.unavailable_since
    return "" if since is None else f" since {since.isoformat(timespec='seconds')}"


async def try_again(buckets: Buckets, clock: Clock) -> None:
    """Ask the buckets that do not answer, side by side, for ever."""
    while True:
        await clock.sleep(_TRY_SECONDS)
        asked = [buckets.try_again(name) for name in buckets.names()]
        # One that is removed meanwhile is no longer ours to ask.
        await asyncio.gather(*asked, return_exceptions=True)


def watch_others(
    readiness: NodeReadiness,
    buckets: Buckets,
    peers: Mapping[str, str],
    channels: Mapping[str, Any],
) -> None:
    """Show in ``readiness`` which buckets and peers do not answer."""
    readiness.add("buckets", BucketsReachable(buckets))
    if peers:
        readiness.add("peers", PeersReachable(peers, channels))
