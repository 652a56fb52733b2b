"""The figures of this process as Prometheus reads them; their keepers are asked at a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lakehouse.kit.figures import Distribution, Figure, FigureSource, Kind, Readout, alone
from lakehouse.kit.requests import RequestLog

_REQUESTS: Final = Figure(
    "lakehouse_http_requests",
    Kind.COUNTER,
    "HTTP requests answered; status 0: the client went away before an answer",
    ("method", "route", "status"),
)
_SECONDS: Final = Figure(
    "lakehouse_http_request_seconds",
    Kind.DISTRIBUTION,
    "from the request's headers to the last byte of the answer",
    ("method", "route"),
)
_SILENT: Final = RequestLog()
_OPEN: Final = Figure("lakehouse_http_requests_open", Kind.GAUGE, "HTTP requests under way")


class Requests:
    """Counts requests as they end. Labels are a closed set: a route is a template, never a path as
    it came."""

    def __init__(self) -> None:
        self._open = 0
        self._ended: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[tuple[str, ...], Distribution] = {}

    def opened(self) -> None:
        self._open += 1

    def closed(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; ``status`` 0 means the client went away before one."""
        self._open -= 1
        key = (method, route, status)
        self._ended[key] = self._ended.get(key, 0) + 1
        taken = self._seconds.get((method, route))
        if taken is None:
            taken = self._seconds[(method, route)] = Distribution()
        taken.observe(seconds)

    def figures(self) -> Iterator[Readout]:
        yield _REQUESTS, {(m, r, str(status)): n for (m, r, status), n in self._ended.items()}
        yield _SECONDS, self._seconds
        yield alone(_OPEN, self._open)


class _Asked(Collector):
    """Turns what the sources say into the exporter's own types."""

    def __init__(self, sources: Sequence[FigureSource]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        for source in self._sources:
            for reading in source.figures():
                yield _family(*reading)


class Metrics:
    """One registry an app, so that two nodes in one process do not share figures; and the log that
    is told of the same requests."""

    def __init__(self, sources: Iterable[FigureSource] = (), log: RequestLog = _SILENT) -> None:
        self.requests = Requests()
        self.log = log
        self._registry = CollectorRegistry()
        self._registry.register(_Asked((self.requests, *sources)))
        # Memory, CPU, file descriptors and start of this process, under Prometheus' own names.
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """All figures in the text exposition format, version 0.0.4."""
        return generate_latest(self._registry)


def _family(figure: Figure, values: object) -> Metric:
    assert isinstance(values, dict)
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    match figure.kind:
        case Kind.COUNTER:
            family = CounterMetricFamily(figure.name, figure.meaning, labels=figure.labels)
        case Kind.GAUGE:
            family = GaugeMetricFamily(figure.name, figure.meaning, labels=figure.labels)
        case Kind.DISTRIBUTION:
            family = HistogramMetricFamily(figure.name, figure.meaning, labels=figure.labels)
    for labels, value in values.items():
        if isinstance(value, Distribution):
            assert isinstance(family, HistogramMetricFamily)
            family.add_metric(labels, _buckets(value), value.total)
        else:
            assert not isinstance(family, HistogramMetricFamily)
            family.add_metric(labels, value)
    return family


def _buckets(taken: Distribution) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as the format wants them."""
    found, below = [], 0
    for bound, count in zip((*map(str, taken.bounds), "+Inf"), taken.counts, strict=True):
        below += count
        found.append((bound, float(below)))
    return found
