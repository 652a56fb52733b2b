"""Counters of this process in Prometheus' text format, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from lakehouse.contracts.ingest import IngestReport
from lakehouse.gateway.services import Footprints, RpcCalls

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class _BucketCounters(Collector):
    """Reads the stores' own counters when asked; nothing is counted twice."""

    def __init__(self, footprints: Footprints) -> None:
        self._footprints = footprints

    def collect(self) -> Iterator[CounterMetricFamily]:
        requests = CounterMetricFamily(
            "lakehouse_bucket_requests", "Requests to a bucket", labels=("bucket", "op")
        )
        volume = CounterMetricFamily(
            "lakehouse_bucket_bytes", "Bytes to and from a bucket", labels=("bucket", "direction")
        )
        for bucket, seen in self._footprints().items():
            for op, count in seen.requests.items():
                requests.add_metric((bucket, op), count)
            volume.add_metric((bucket, "read"), seen.bytes_read)
            volume.add_metric((bucket, "written"), seen.bytes_written)
        yield requests
        yield volume


class _RpcCounters(Collector):
    """Reads the gRPC server's own counters when asked."""

    def __init__(self, calls: RpcCalls) -> None:
        self._calls = calls

    def collect(self) -> Iterator[CounterMetricFamily]:
        ended = CounterMetricFamily(
            "lakehouse_grpc_calls", "Calls over gRPC that have ended", labels=("method", "status")
        )
        for (method, status), count in self._calls().items():
            ended.add_metric((method, status), count)
        yield ended


class Metrics:
    """One registry an app, so that two nodes in one process do not share figures."""

    def __init__(self, footprints: Footprints | None, rpc_calls: RpcCalls | None) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "lakehouse_http_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "lakehouse_http_request_seconds",
            "From the request's headers to the last byte of the answer",
            ("method", "route"),
            buckets=_LATENCIES,
            registry=self._registry,
        )
        self._open = Gauge(
            "lakehouse_http_requests_open", "Requests under way", registry=self._registry
        )
        self._rows = Counter(
            "lakehouse_ingest_rows", "Rows made queryable", registry=self._registry
        )
        self._bytes = Counter(
            "lakehouse_ingest_bytes", "Bytes of files read", registry=self._registry
        )
        self._queries = Counter(
            "lakehouse_queries", "Queries started", ("engine", "format"), registry=self._registry
        )
        # Looking a labelled child up costs more than counting: both are kept here. The keys are
        # a closed set, for a route is a template and never a path as it came.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        if footprints is not None:
            self._registry.register(_BucketCounters(footprints))
        if rpc_calls is not None:
            self._registry.register(_RpcCounters(rpc_calls))

    def opened(self) -> None:
        self._open.inc()

    def closed(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; ``status`` 0 means the client went away before one."""
        self._open.dec()
        children = self._children.get((method, route, status))
        if children is None:
            children = (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
            self._children[(method, route, status)] = children
        children[0].inc()
        children[1].observe(seconds)

    def ingested(self, report: IngestReport) -> None:
        self._rows.inc(0 if report.no_op or report.dry_run else report.rows)
        self._bytes.inc(report.bytes_read)

    def queried(self, engine: str, result_format: str) -> None:
        self._queries.labels(engine, result_format).inc()

    def render(self) -> bytes:
        """All figures in the text exposition format, version 0.0.4."""
        return generate_latest(self._registry)
