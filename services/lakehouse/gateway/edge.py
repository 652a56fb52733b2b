"""The outermost layer of HTTP: identity, limits, metrics, and the last catch for any error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lakehouse.contracts.tokens import Authenticator
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway import auth
from lakehouse.gateway.metrics import Metrics
from lakehouse.gateway.problems import explain, log_failure, problem, raised_by
from lakehouse.gateway.settings import GatewaySettings
from lakehouse.kit import tracing
from lakehouse.kit.acting import act_as
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.tracing import SpanKind
from lakehouse.model.identity import Context

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_UNROUTED: Final = "(none)"
# A result holds what users sent in: no browser may take it for a page.
_KEYED: Final = (b"/storage/objects/", b"/datasets/", b"/journal/rows/", b"/vectors/indexes/")
_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")


class _Answer:
    """The way back: adds the request id and remembers whether and how the answer began."""

    __slots__ = ("_send", "request_id", "started", "status")

    def __init__(self, send: Send, request_id: str, started: float) -> None:
        self._send = send
        self.request_id = request_id
        self.started = started
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            named = (b"x-request-id", self.request_id.encode())
            message["headers"] = [*message["headers"], named, _NO_SNIFFING]
        await self._send(message)


class Edge:
    """Every request passes here first and every error last; nothing beyond raises to the server."""

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        settings: GatewaySettings,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._requests = metrics.requests
        self._log = metrics.log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            # As a GET; the server sends the head of the answer only.
            scope = {**scope, "method": "GET", auth.HEAD_KEY: True}
        headers = dict(scope["headers"])
        request_id = auth.request_id(headers) or self._ids.ulid()
        answer = _Answer(send, request_id, self._clock.monotonic())
        if tracing.tracer is None:
            await self._serve_one(scope, headers, receive, answer)
            return
        parent = headers.get(b"traceparent", b"").decode("latin-1")
        about = {"http.request.method": scope["method"], "lakehouse.request_id": request_id}
        with tracing.span(scope["method"], SpanKind.SERVER, about, parent) as span:
            route = await self._serve_one(scope, headers, receive, answer)
            span.rename(f"{scope['method']} {route}")
            span.set({"http.route": route, "http.response.status_code": answer.status})
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.fail(str(answer.status))

    async def _serve_one(
        self, scope: Scope, headers: auth.Headers, receive: Receive, answer: _Answer
    ) -> str:
        """Answer a request, whatever it is; its route, as figures name it."""
        self._requests.opened()
        try:
            error = await raised_by(self._admit(scope, headers, receive, answer))
            if error is not None:
                await self._refuse(error, scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", _UNROUTED)
            method = scope["method"] if scope["method"] in METHODS else "other"
            seconds = self._clock.monotonic() - answer.started
            self._requests.closed(method, route, answer.status, seconds)
            if self._log.wants(seconds):
                context = scope.get(auth.CONTEXT_KEY)
                about = {
                    "request_id": answer.request_id,
                    "actor": context.principal.id if context is not None else "",
                }
                self._log.ended("http", f"{method} {route}", str(answer.status), seconds, about)
        return str(route)

    async def _admit(
        self, scope: Scope, headers: auth.Headers, receive: Receive, answer: _Answer
    ) -> None:
        self._check(scope, headers)
        if scope["path"] in auth.PUBLIC_PATHS:
            await self._app(scope, receive, answer.send)
            return
        context = scope[auth.CONTEXT_KEY] = await self._identify(headers, answer)
        with act_as(context.principal.id, context.request_id):
            await self._app(scope, receive, answer.send)

    def _check(self, scope: Scope, headers: auth.Headers) -> None:
        settings = self._settings
        if sum(len(name) + len(value) for name, value in scope["headers"]) > (
            settings.header_bytes_max
        ):
            raise _too_large(
                "the request's headers are too large",
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                settings.header_bytes_max,
            )
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        if len(raw_path) + len(scope["query_string"]) > settings.target_bytes_max:
            raise _too_large(
                "the request's path and query are too long",
                HTTPStatus.REQUEST_URI_TOO_LONG,
                settings.target_bytes_max,
            )
        if b"%" in raw_path:
            _check_escapes(raw_path)
        if settings.hosts or b"origin" in headers:
            self._check_origin(scope, headers)

    def _check_origin(self, scope: Scope, headers: auth.Headers) -> None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        # HTTP/1.0 knows no Host; a browser always sends one.
        nameless = not host and scope["http_version"] == "1.0"
        if self._settings.hosts and name not in self._settings.hosts and not nameless:
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "this server does not answer to that host name",
                host=ascii(host[:80])[1:-1],
                hint="use the address it listens on, or add the name to the configuration",
            )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and scope["method"] not in _SAFE and origin.split("://", 1)[-1] != host:
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "a web page of another site must not write here",
                origin=ascii(origin[:80])[1:-1],
            )

    async def _identify(self, headers: auth.Headers, answer: _Answer) -> Context:
        credential = auth.bearer(headers)
        principal = await self._authenticator.authenticate(credential)
        seconds = auth.timeout_seconds(headers)
        return Context(
            principal=principal,
            request_id=answer.request_id,
            deadline=None if seconds is None else answer.started + seconds,
            workspace=auth.workspace(headers),
            source="http",
            idempotency_key=auth.idempotency_key(headers),
            credential=credential,
        )

    async def _refuse(
        self, error: Exception, scope: Scope, receive: Receive, answer: _Answer
    ) -> None:
        known = explain(error)
        context = scope.get(auth.CONTEXT_KEY)
        actor = context.principal.id if context is not None else ""
        log_failure(error, known, answer.request_id, actor)
        if answer.status:
            # The answer is under way: leaving it without an end makes the server cut the
            # connection, which is how a client of a chunked body learns that it is not whole.
            return
        allowed = _methods_at(scope) if known.http_status == HTTPStatus.METHOD_NOT_ALLOWED else ""
        reply = problem(known, answer.request_id, {"Allow": allowed} if allowed else {})
        await reply(scope, receive, answer.send)


def _methods_at(scope: Scope) -> str:
    """Every method that some route takes at the path; the router itself names one route's only."""
    methods: set[str] = set()
    for route in scope["app"].routes:
        if isinstance(route, Route) and route.path_regex.match(scope["path"]):
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


def _too_large(message: str, status: HTTPStatus, bytes_max: int) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, http_status=status.value, bytes_max=bytes_max)


def _check_escapes(raw_path: bytes) -> None:
    """A path whose escapes change how it is cut into segments or matched, or are no UTF-8, is
    refused."""
    decoded = unquote_to_bytes(raw_path)
    # The key of an object, or of a row, is all that is left of its path: a slash is a slash in it
    # either way.
    before_key = raw_path.split(b"/", 4)[:4] if raw_path.startswith(_KEYED) else [raw_path]
    if any(unquote_to_bytes(part).count(b"/") != part.count(b"/") for part in before_key):
        raise LakehouseError(
            ErrorKind.INVALID, "an encoded slash in the path; names must not contain slashes"
        )
    if b"\n" in decoded:
        # Routes are matched by expressions to which a name with a line break is that without it.
        raise LakehouseError(ErrorKind.INVALID, "a line break in the path")
    try:
        decoded.decode()
    except UnicodeDecodeError:
        raise LakehouseError(
            ErrorKind.INVALID, "the path's percent escapes are not UTF-8"
        ) from None
