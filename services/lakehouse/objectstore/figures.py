"""What the buckets of this process cost and how they fare, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.kit.figures import Figure, Kind, Readout, Values, alone
from lakehouse.model.health import BreakerState
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.rescue import KnownReads

_BUCKET: Final = ("bucket",)
_REQUESTS: Final = Figure(
    "lakehouse_bucket_requests",
    Kind.COUNTER,
    "requests to a bucket, failed ones too, as its store bills them",
    ("bucket", "op"),
)
_BYTES: Final = Figure(
    "lakehouse_bucket_bytes", Kind.COUNTER, "bytes to and from a bucket", ("bucket", "direction")
)
_SECONDS: Final = Figure(
    "lakehouse_bucket_request_seconds",
    Kind.DISTRIBUTION,
    "one attempt up to its answer, of a streamed read up to its first bytes; no streamed writes",
    ("bucket", "op"),
)
_ERRORS: Final = Figure(
    "lakehouse_bucket_errors",
    Kind.COUNTER,
    "attempts that failed, by the kind of the error; that there is no such key is no failure",
    ("bucket", "op", "kind"),
)
_RETRIES: Final = Figure(
    "lakehouse_bucket_retries", Kind.COUNTER, "attempts that followed a failed one", _BUCKET
)
_BREAKER: Final = Figure(
    "lakehouse_bucket_breaker",
    Kind.GAUGE,
    "0: closed, requests pass; 1: half open; 2: open",
    _BUCKET,
)
_IN_FLIGHT: Final = Figure("lakehouse_bucket_in_flight", Kind.GAUGE, "attempts under way", _BUCKET)
_WAITING: Final = Figure(
    "lakehouse_bucket_waiting", Kind.GAUGE, "attempts that wait for a place among those", _BUCKET
)
_UNAVAILABLE: Final = Figure(
    "lakehouse_bucket_unavailable",
    Kind.GAUGE,
    "1 from the first failure by the bucket's fault until it answers again",
    _BUCKET,
)
_SERVED: Final = Figure(
    "lakehouse_rescue_served", Kind.COUNTER, "reads that the rescue bucket answered for another"
)
_STATES: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class BucketFigures:
    """Asks the buckets that there are now."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def figures(self) -> Iterator[Readout]:
        yield from self._cost()
        health = {name: self._buckets.health(name) for name in self._buckets.names()}
        for figure, values in (
            (_RETRIES, {name: found.retries for name, found in health.items()}),
            (_BREAKER, {name: _STATES[found.breaker] for name, found in health.items()}),
            (_IN_FLIGHT, {name: found.in_flight for name, found in health.items()}),
            (_WAITING, {name: found.waiting for name, found in health.items()}),
            (_UNAVAILABLE, {n: int(f.unavailable_since is not None) for n, f in health.items()}),
        ):
            yield figure, {(name,): value for name, value in values.items()}

    def _cost(self) -> Iterator[Readout]:
        requests: dict[tuple[str, ...], float] = {}
        volume: dict[tuple[str, ...], float] = {}
        errors: dict[tuple[str, ...], float] = {}
        seconds: Values = {}
        for name in self._buckets.names():
            meter = self._buckets.meter(name)
            seen = meter.footprint()
            requests |= {(name, op): count for op, count in seen.requests.items()}
            volume |= {(name, "read"): seen.bytes_read, (name, "written"): seen.bytes_written}
            errors |= {(name, *what): count for what, count in meter.troubles.items()}
            seconds = {**seconds, **{(name, op): one for op, one in meter.seconds.items()}}
        yield _REQUESTS, requests
        yield _BYTES, volume
        yield _SECONDS, seconds
        yield _ERRORS, errors


class RescuedReads:
    """Asks the reads of this process how many of them another bucket answered."""

    def __init__(self, reads: KnownReads) -> None:
        self._reads = reads

    def figures(self) -> Iterator[Readout]:
        yield alone(_SERVED, self._reads.served)
