"""Spans by OpenTelemetry, sent to a receiver over OTLP. Imported only where traces are on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lakehouse.errors import LakehouseError
from lakehouse.kit.figures import Figure, Kind, Readout, alone
from lakehouse.kit.tracing import TRACEPARENT, Attributes, OpenSpan, Span, SpanKind

log = logging.getLogger(__name__)

_SENT: Final = Figure("lakehouse_spans_sent", Kind.COUNTER, "spans that the receiver took")
_LOST: Final = Figure("lakehouse_spans_lost", Kind.COUNTER, "spans that it did not take")
_PATH: Final = "/v1/traces"
_CLOSE_SECONDS: Final = 3.0
_EXPORT_SECONDS: Final = 5.0
_EVERY_SECONDS: Final = 1.0
_KINDS: Final = {
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class _Counting(SpanExporter):
    """Counts what the receiver took, and says once when it stops taking, not at each attempt."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.sent = 0
        self.lost = 0
        self.failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        taken = result is SpanExportResult.SUCCESS
        if taken:
            self.sent += len(spans)
        else:
            self.lost += len(spans)
        if taken is self.failing:
            self.failing = not taken
            log.warning("traces are taken again" if taken else "traces are not taken, and are lost")
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


class _Span:
    """Ours over theirs."""

    __slots__ = ("_failed", "_span")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._failed = False

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, what: str) -> None:
        if not self._failed:
            self._failed = True
            self._span.set_attribute("error.type", what)
            self._span.set_status(trace.StatusCode.ERROR, what)

    def failed(self, error: BaseException) -> None:
        """The kind says what went wrong; the message may hold what a user wrote."""
        self.fail(error.kind.value if isinstance(error, LakehouseError) else type(error).__name__)

    def end(self, error: BaseException | None, attributes: Attributes) -> None:
        self.set(attributes)
        if error is not None:
            self.failed(error)
        self._span.end()


class OtlpTracer:
    """Samples, batches and sends spans from a thread of its own; what a receiver that is away does
    not take is dropped.

    Args:
        endpoint: base URL of the receiver. Headers for it, such as a token, are taken from
            ``OTEL_EXPORTER_OTLP_HEADERS``, as every program with this exporter does.
        ratio: the part of traces to keep; one begun elsewhere keeps its fate.
        about: what spans say of this process.
    """

    def __init__(self, endpoint: str, ratio: float, about: Mapping[str, str]) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({key: value for key, value in about.items() if value}),
            shutdown_on_exit=False,
        )
        # It would log each attempt, several a second while the receiver is away.
        logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + _PATH, timeout=_EXPORT_SECONDS)
        self._exporter = _Counting(exporter)
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, schedule_delay_millis=_EVERY_SECONDS * 1000)
        )
        self._tracer = self._provider.get_tracer("lakehouse")

    @contextmanager
    def span(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: str
    ) -> Iterator[Span]:
        context = _PROPAGATOR.extract({TRACEPARENT: parent}) if parent else None
        with self._tracer.start_as_current_span(
            name,
            context,
            _KINDS[kind],
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as made:
            span = _Span(made)
            try:
                yield span
            except BaseException as error:
                span.failed(error)
                raise

    def begin(self, name: str, kind: SpanKind, attributes: Attributes) -> OpenSpan:
        return _Span(self._tracer.start_span(name, None, _KINDS[kind], attributes))

    def header(self) -> str:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get(TRACEPARENT, "")

    def trace_id(self) -> str:
        found = trace.get_current_span().get_span_context()
        return trace.format_trace_id(found.trace_id) if found.is_valid else ""

    def figures(self) -> Iterator[Readout]:
        """What became of the spans."""
        yield alone(_SENT, self._exporter.sent)
        yield alone(_LOST, self._exporter.lost)

    def close(self) -> None:
        if not self._exporter.failing:
            self._provider.force_flush(int(_CLOSE_SECONDS * 1000))
        # First, for it ends an attempt that is under way.
        self._exporter.shutdown()
        self._provider.shutdown()
