"""Our kinds of routes: quick to say no, and strict about their query parameters.

A misspelled parameter must not be ignored in silence: ``?dryrun=true`` would do what it was only to
show.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway import auth
from lakehouse.model.identity import Context

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class QuickRoute(APIRoute):
    """Says no by the first bytes of the path: most routes that are asked are not the right one."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        prefix = self.path.partition("{")[0]
        if not scope.get("root_path") and not scope["path"].startswith(prefix):
            return Match.NONE, {}
        return super().matches(scope)


class StrictRoute(QuickRoute):
    """For ``APIRouter(route_class=StrictRoute)``.

    The shapes of its answers are for the OpenAPI document alone: no answer is made by them, few
    nodes are ever asked for it, and FastAPI would take a fifth of a node's start to prepare them.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **{**options, "responses": None})
        self._options = options
        if _direct(self.dependant) is not None:
            # Nothing of such a route needs the stacks that FastAPI opens around each request.
            self.app = _answering(self.get_route_handler())

    def documented(self) -> APIRoute:
        """The same route with all that it says of itself; for documents, not for requests."""
        return APIRoute(self.path, self.endpoint, **self._options)

    def get_route_handler(self) -> Handler:
        handle = _direct(self.dependant) or super().get_route_handler()
        known = sorted(_names(self.dependant))

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                _check(request.scope["query_string"], known)
            return await handle(request)

        return checked


def _direct(dependant: Dependant) -> Handler | None:
    """The handler of an endpoint that takes the caller's Context and the request and nothing else:
    both are at hand, and having FastAPI find them takes longer than a small query's parsing."""
    endpoint, checks, name = dependant.call, dependant.dependencies, dependant.request_param_name
    if endpoint is None or name is None or len(checks) != 1:
        return None
    check, context = checks[0].call, checks[0].name
    if check not in auth.NEEDS or context is None or not inspect.iscoroutinefunction(endpoint):
        return None
    if set(inspect.signature(endpoint).parameters) != {name, context}:
        return None
    held = cast("Callable[[Request], Awaitable[Context]]", check)

    async def handle(request: Request) -> Response:
        response: Response = await endpoint(**{context: await held(request), name: request})
        return response

    return handle


def _answering(handle: Handler) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handle(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def _names(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_names(inner) for inner in dependant.dependencies))


def _check(query: bytes, known: list[str]) -> None:
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in known:
            continue
        near = difflib.get_close_matches(name[:80], known, n=1)
        raise LakehouseError(
            ErrorKind.INVALID,
            "there is no such query parameter here",
            parameter=ascii(name[:80])[1:-1],
            known=list(known),
            hint=f"did you mean {near[0]}" if near else "GET /openapi.json describes them",
        )
