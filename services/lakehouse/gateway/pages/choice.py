"""Whether an answer is for people or for programs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import Query
from starlette.requests import Request

from lakehouse.gateway.accepts import preferred

PageFormat = Annotated[
    Literal["json", "html"] | None,
    Query(description="Whatever `Accept` says: `html` is a page for people."),
]
_OFFERED: Final = {"application/json": False, "text/html": True}


def wants_page(request: Request, stated: PageFormat) -> bool:
    """Whether the answer is to be a page. Raises ``invalid`` with 406 where neither is accepted."""
    if stated is not None:
        return stated == "html"
    return preferred(request.headers.get("accept"), _OFFERED)
