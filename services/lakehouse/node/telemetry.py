"""What a process shows of itself: figures, a door for them where there is no gateway, traces."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from lakehouse import __version__
from lakehouse.kit import tracing
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.clock import Clock
from lakehouse.kit.figures import Distribution, Figure, FigureSource, Kind, Readout, alone
from lakehouse.kit.requests import LEVELS, RequestLog
from lakehouse.node.config import Config
from lakehouse.node.servers import Servers
from lakehouse.node.settings import TelemetrySettings

_LAG_EVERY_SECONDS: Final = 0.5
_LAG_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

_BUILD: Final = Figure(
    "lakehouse_build_info",
    Kind.GAUGE,
    "always 1; what runs here is in the labels",
    ("version", "python", "roles"),
)
_LAG: Final = Figure(
    "lakehouse_loop_lag_seconds",
    Kind.DISTRIBUTION,
    "how much later than asked the event loop woke a timer, twice a second",
)


class NodeFigures:
    """All that this process counts. Parts are added as they come to be, and asked as they are."""

    def __init__(self, roles: Iterable[str]) -> None:
        labels = (__version__, platform.python_version(), ",".join(roles))
        self._build: Readout = (_BUILD, {labels: 1.0})
        self._lag = Distribution(_LAG_BOUNDS)
        self._sources: list[FigureSource] = []

    def add(self, *sources: object) -> None:
        """Ask these from now on, those that have an answer to give."""
        self._sources += [one for one in sources if callable(getattr(one, "figures", None))]  # type: ignore[misc]

    async def watch_loop(self, clock: Clock) -> None:
        """Measure how late timers come, for ever."""
        while True:
            asked = clock.monotonic() + _LAG_EVERY_SECONDS
            await clock.sleep(_LAG_EVERY_SECONDS)
            self._lag.observe(max(0.0, clock.monotonic() - asked))

    def figures(self) -> Iterator[Readout]:
        yield self._build
        yield alone(_LAG, self._lag)
        for source in self._sources:
            yield from source.figures()


def make_servers(config: Config) -> Servers:
    """Both listeners: HTTP is the gateway's, or the door of a process that has none."""
    if "gateway" in config.node.roles:
        return Servers(config.listen, with_http=True)
    door = config.telemetry.http
    return Servers(replace(config.listen, http=door or config.listen.http), with_http=bool(door))


def request_log(telemetry: TelemetrySettings) -> RequestLog:
    """The log of requests as the configuration has it."""
    return RequestLog(LEVELS[telemetry.access_log], telemetry.slow_request_seconds)


class Traces:
    """The switch of traces, as the configuration has it; ``close`` sends what is left."""

    def __init__(self, config: Config) -> None:
        self._tracer: tracing.Tracer | None = None
        if config.telemetry.traces == "off":
            return
        # A third of a second of imports, for those who want traces.
        from lakehouse.kit.otlp import OtlpTracer

        about = {
            "service.name": "lakehouse",
            "service.version": __version__,
            "service.instance.id": config.node.advertise,
            "lakehouse.roles": ",".join(config.node.roles),
        }
        telemetry = config.telemetry
        self._tracer = OtlpTracer(telemetry.endpoint, telemetry.sample_ratio, about)
        tracing.use(self._tracer)

    def figures(self) -> Iterable[Readout]:
        """What became of the spans; nothing where there are none."""
        return () if self._tracer is None else self._tracer.figures()

    async def close(self) -> None:
        tracer, self._tracer = self._tracer, None
        if tracer is not None:
            if tracing.tracer is tracer:
                tracing.use(None)
            await run_blocking(tracer.close)
