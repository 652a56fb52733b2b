"""The OpenAPI document: what routes say of themselves, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from lakehouse.errors import ErrorKind
from lakehouse.gateway.accepts import RESULT_TYPES
from lakehouse.gateway.auth import NEEDS, PUBLIC_PATHS
from lakehouse.gateway.docs_page import docs_page
from lakehouse.gateway.problems import PROBLEM_TYPE, TITLES, TYPE_PREFIX
from lakehouse.gateway.replies import reply
from lakehouse.gateway.strict import StrictRoute

JsonObject = dict[str, Any]

_TEXT: Final[JsonObject] = {"type": "string"}
_REF: Final = "#/components/schemas/{model}"
_DESCRIPTION: Final = (
    "An object-storage lakehouse over HTTP. Replies that read data carry `Lakehouse-Version`; "
    "every mutating call takes `Idempotency-Key`; errors are problem documents (RFC 9457) with a "
    "`kind`. Send `X-Request-Id` to find a call again, `Lakehouse-Timeout` to bound it."
)
_ALWAYS: Final = (400, 401, 403, 404, 429, 500, 503, 504)
_PUBLIC_ANSWERS: Final = (400, 503)
_KIND_OF_STATUS: Final[dict[int, ErrorKind]] = {
    400: ErrorKind.INVALID,
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.NOT_FOUND,
    406: ErrorKind.INVALID,
    408: ErrorKind.INVALID,
    409: ErrorKind.CONFLICT,
    412: ErrorKind.UNAVAILABLE,
    413: ErrorKind.INVALID,
    415: ErrorKind.INVALID,
    416: ErrorKind.INVALID,
    422: ErrorKind.EXHAUSTED,
    429: ErrorKind.EXHAUSTED,
    500: ErrorKind.INTERNAL,
    503: ErrorKind.UNAVAILABLE,
    504: ErrorKind.TIMEOUT,
}
_HEADERS: Final[tuple[tuple[str, str, JsonObject], ...]] = (
    (
        "X-Request-Id",
        "Comes back and goes into logs and versions.",
        {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    ),
    (
        "Lakehouse-Timeout",
        "Seconds the caller will wait.",
        {"type": "number", "minimum": 1, "maximum": 86400},
    ),
)
_ANSWER_HEADERS: Final = {
    "X-Request-Id": {
        "description": "The call's own id, or the one it was given.",
        "schema": {"type": "string"},
    },
    "Lakehouse-Version": {
        "description": "The version of the store that was read; where data was read.",
        "schema": {"type": "integer"},
    },
    "Lakehouse-Served-From": {
        "description": "Places of the rescue bucket that answered for buckets which did not;"
        " only there if there were any.",
        "schema": {"type": "string"},
    },
}
_CHANGE_HEADERS: Final[tuple[tuple[str, str, JsonObject], ...]] = (
    (
        "Idempotency-Key",
        "The same key has one effect and one answer for 24 hours.",
        {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    ),
    (
        "Lakehouse-Workspace",
        "Where the change is made from, percent-encoded; it stays in the journal.",
        {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    ),
)


def told(
    summary: str,
    shape: Any,
    example: object,
    *,
    statuses: tuple[int, ...] = (200,),
    also: Iterable[int] = (),
) -> dict[str, Any]:
    """Arguments of a route's decorator for a JSON answer.

    Args:
        shape: the dataclass the answer has.
        statuses: of success, the usual one first.
        also: further error statuses beside those every route may give.
    """
    content = {"application/json": {"example": example}}
    answers: dict[int | str, dict[str, Any]] = {
        code: {"model": shape, "content": content, "description": HTTPStatus(code).phrase}
        for code in statuses
    }
    return {
        "summary": summary,
        "responses": answers,
        "response_model": None,
        "status_code": statuses[0],
        "openapi_extra": {"x-errors": sorted(also)},
    }


def described(
    summary: str, answers: Mapping[int, JsonObject | None], also: Iterable[int] = ()
) -> dict[str, Any]:
    """Arguments of a route's decorator for answers that are no JSON.

    Args:
        answers: content by status, the usual one first; None for one without a body.
        also: as ``told``.
    """
    responses: dict[int | str, JsonObject] = {
        code: {
            "description": HTTPStatus(code).phrase,
            **({} if content is None else {"content": content}),
        }
        for code, content in answers.items()
    }
    return {
        "summary": summary,
        "responses": responses,
        "response_model": None,
        "response_class": Response,
        "status_code": next(iter(answers)),
        "openapi_extra": {"x-errors": sorted(also)},
    }


def with_json(told_: dict[str, Any], model: type[BaseModel], example: object) -> dict[str, Any]:
    """The same with a JSON request body in the shape of ``model``."""
    body = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": _REF.format(model=model.__name__)},
                "example": example,
            }
        },
    }
    return with_body(told_, body, (408, 413, 415))


def with_body(told_: dict[str, Any], body: JsonObject, also: Iterable[int] = ()) -> dict[str, Any]:
    """The same with a request body described as OpenAPI has it."""
    extra = told_["openapi_extra"]
    errors = sorted({*extra["x-errors"], *also})
    return {**told_, "openapi_extra": {**extra, "requestBody": body, "x-errors": errors}}


def with_listings(told_: dict[str, Any]) -> dict[str, Any]:
    """The same for an answer whose records can be had as NDJSON and CSV too."""
    (status, answer), *rest = told_["responses"].items()
    texts = {
        media: {"schema": {"type": "string"}} for media in ("application/x-ndjson", "text/csv")
    }
    answer = {**answer, "content": {**answer["content"], **texts}}
    return {**told_, "responses": {status: answer, **dict(rest)}}


def with_page(told_: dict[str, Any]) -> dict[str, Any]:
    """The same for an answer that people can have as a page; that an ``Accept`` may ask for what is
    not there, too."""
    (status, answer), *rest = told_["responses"].items()
    answer = {**answer, "content": {**answer["content"], "text/html": {"schema": _TEXT}}}
    extra = told_["openapi_extra"]
    errors = sorted({*extra["x-errors"], 406})
    extra = {**extra, "x-errors": errors}
    return {**told_, "responses": {status: answer, **dict(rest)}, "openapi_extra": extra}


def result_content(example: object) -> JsonObject:
    """Content of an answer in each result format."""
    text = {"schema": {"type": "string"}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    by_type: JsonObject = {
        media.partition(";")[0]: text if media.startswith("text/") else binary
        for media in RESULT_TYPES.values()
    }
    by_type["application/x-ndjson"] = text
    by_type["application/json"] = {"schema": {"type": "object"}, "example": example}
    return by_type


def install(app: FastAPI, models: list[type[BaseModel]]) -> None:
    """Serve the finished document and its page; it is built once, on first use."""

    def openapi() -> JsonObject:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, models)
        return app.openapi_schema

    async def document(request: Request) -> Response:
        return reply(app.openapi())

    async def page(request: Request) -> Response:
        return docs_page()

    app.openapi = openapi  # type: ignore[method-assign]
    app.router.add_route("/openapi.json", document, methods=["GET"], include_in_schema=False)
    app.router.add_route("/docs", page, methods=["GET"], include_in_schema=False)


def scope_of(route: APIRoute) -> str | None:
    """The scope a route's handler asks for; None for a public one."""
    needed = [NEEDS[d.call] for d in route.dependant.dependencies if d.call in NEEDS]
    return needed[0].value if needed else None


def _build(app: FastAPI, models: list[type[BaseModel]]) -> JsonObject:
    routes = [each.documented() if isinstance(each, StrictRoute) else each for each in app.routes]
    document = get_openapi(
        title="lakehouse",
        version=app.version,
        description=_DESCRIPTION,
        routes=routes,
    )
    _, shared = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas = document["components"]["schemas"]
    schemas.update(shared["$defs"])
    schemas["Problem"] = _problem_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["responses"] = {
        f"Problem{status}": _problem_response(status) for status in _KIND_OF_STATUS
    }
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "lh_<id>.<secret>"}
    }
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _finish(document["paths"][route.path_format][method.lower()], route, method)
    return document


def _finish(operation: JsonObject, route: APIRoute, method: str) -> None:
    public = route.path in PUBLIC_PATHS
    operation["security"] = [] if public else [{"token": []}]
    operation["x-scope"] = scope_of(route)
    statuses = {*(_PUBLIC_ANSWERS if public else _ALWAYS), *operation.pop("x-errors", ())}
    answers = operation["responses"]
    answers.pop("422", None)
    operation["operationId"] = f"{route.tags[0]}_{route.name}"
    for status, answer in answers.items():
        answer["headers"] = _ANSWER_HEADERS
        if "content" in answer:
            _keep_nulls(answer["content"], route.responses[int(status)]["content"])
    if "requestBody" in operation:
        body = (route.openapi_extra or {})["requestBody"]
        _keep_nulls(operation["requestBody"]["content"], body["content"])
    headers = (
        _HEADERS[:1] if public else _HEADERS if method == "GET" else (*_HEADERS, *_CHANGE_HEADERS)
    )
    names = {parameter["name"].lower() for parameter in operation.get("parameters", ())}
    if "lakehouse-min-version" in names:
        statuses.add(412)
    for status in sorted(statuses):
        answers[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    parameters = operation.setdefault("parameters", [])
    parameters.extend(
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
        for name, text, schema in headers
    )


def _keep_nulls(content: JsonObject, given: JsonObject) -> None:
    """The framework drops nulls from the whole document; in an example they have a meaning."""
    for media, body in given.items():
        if "example" in body:
            content[media]["example"] = body["example"]


def _problem_schema() -> JsonObject:
    return {
        "type": "object",
        "required": ["type", "title", "status", "kind", "detail", "request_id"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "kind": {"type": "string", "enum": [kind.value for kind in ErrorKind]},
            "detail": {"type": "string"},
            "request_id": {"type": "string"},
        },
        "additionalProperties": True,
    }


def _problem_response(status: int) -> JsonObject:
    kind = _KIND_OF_STATUS[status]
    example = {
        "type": TYPE_PREFIX + kind.value,
        "title": TITLES[kind],
        "status": status,
        "kind": kind.value,
        "detail": "what was wrong, in words",
        "request_id": "01K5ZC1GQ0XW5T1T9Q0R8M7A2B",
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    return {"description": HTTPStatus(status).phrase, "content": {PROBLEM_TYPE: content}}
