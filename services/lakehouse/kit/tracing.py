"""Traces: what was done for a request, here and in other processes, behind one switch.

Off, which is the default, nothing of a tracing library is loaded, ``tracer`` is None, and a caller
pays for one comparison. The switch is the process's, like that of its logs; ``kit.otlp`` turns it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from types import TracebackType
from typing import Final, Protocol

from lakehouse.kit.figures import Readout

TRACEPARENT: Final = "traceparent"
"""The header of W3C trace context, in HTTP and in gRPC metadata."""

Attributes = Mapping[str, str | int | float | bool]
"""By their names in OpenTelemetry's conventions, or ``lakehouse.*``."""


class SpanKind(StrEnum):
    """``SERVER``: a request that came in; ``CLIENT``: one that goes out; ``INTERNAL``: neither."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class Span(Protocol):
    """Something that takes time; ends with its ``with`` block, failed if that raised."""

    def rename(self, name: str) -> None: ...

    def fail(self, what: str) -> None:
        """It failed: an error's kind or a status. The first one said counts."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Values to show; never a secret, nor what a user wrote."""
        ...


class OpenSpan(Protocol):
    """A span that is nobody's parent; whoever began it ends it."""

    def end(self, error: BaseException | None, attributes: Attributes) -> None: ...


class Tracer(Protocol):
    """Makes spans and sends them off; neither waits nor fails."""

    def begin(self, name: str, kind: SpanKind, attributes: Attributes) -> OpenSpan:
        """A child of the current span, which stays current."""
        ...

    def span(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: str
    ) -> AbstractContextManager[Span]:
        """``parent``: a ``traceparent`` that came in, "" for the span that is current here."""
        ...

    def header(self) -> str:
        """``traceparent`` for a call that goes out from here; "" if nothing is current."""
        ...

    def trace_id(self) -> str:
        """Of the current span, 32 hex digits; "" if there is none."""
        ...

    def figures(self) -> Iterable[Readout]:
        """What became of the spans."""
        ...

    def close(self) -> None:
        """Send what is left, within seconds. Blocks."""
        ...


class _Nothing:
    """The span of a process that does not trace."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def rename(self, name: str) -> None:
        return None

    def fail(self, what: str) -> None:
        return None

    def set(self, attributes: Attributes) -> None:
        return None


NOTHING: Final = _Nothing()
"""A span that is none."""
_NO_ATTRIBUTES: Final[Attributes] = {}

tracer: Tracer | None = None
"""The switch. Read it as ``tracing.tracer``: it is set once, before anything is served."""


def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes = _NO_ATTRIBUTES,
    parent: str = "",
) -> AbstractContextManager[Span]:
    """The span of a ``with`` block, child of the current one."""
    return NOTHING if tracer is None else tracer.span(name, kind, attributes, parent)


def header() -> str:
    """``traceparent`` of the current span; "" if there is none."""
    return "" if tracer is None else tracer.header()


def trace_id() -> str:
    """Of the current span; "" if there is none."""
    return "" if tracer is None else tracer.trace_id()


def use(chosen: Tracer | None) -> None:
    """Turn the switch."""
    global tracer
    tracer = chosen
