"""The switch of traces: off it loads nothing, does nothing and costs next to nothing."""

from __future__ import annotations

import subprocess
import sys

from lakehouse.kit import tracing
from lakehouse.kit.tracing import SpanKind

LOADED = """
import sys
import lakehouse.node.process, lakehouse.gateway.app, lakehouse.rpc.server
import lakehouse.objectstore.metered, lakehouse.node.telemetry
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exp"))])
"""


def test_off_is_the_default_and_a_span_is_nothing() -> None:
    assert tracing.tracer is None
    with tracing.span("x", SpanKind.SERVER, {"a": 1}, "garbage") as span:
        span.rename("y")
        span.set({"b": 2})
        span.fail("invalid")
    assert span is tracing.NOTHING
    assert tracing.header() == tracing.trace_id() == ""


def test_a_node_that_does_not_trace_loads_no_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
