"""Our kinds of routes: quick to say no, and strict about their query parameters.

A misspelled parameter must not be ignored in silence: ``?dryrun=true`` would do what it was only to
show.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from lakehouse.errors import ErrorKind, LakehouseError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class QuickRoute(APIRoute):
    """Says no by the first bytes of the path: most routes that are asked are not the right one."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        prefix = self.path.partition("{")[0]
        if not scope.get("root_path") and not scope["path"].startswith(prefix):
            return Match.NONE, {}
        return super().matches(scope)


class StrictRoute(QuickRoute):
    """For ``APIRouter(route_class=StrictRoute)``."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        known = sorted(_names(self.dependant))

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                _check(request.scope["query_string"], known)
            return await handle(request)

        return checked


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
