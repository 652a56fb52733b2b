"""The OpenAPI document is complete, true to the routes, and told in docs/api/http.md."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from lakehouse.gateway.auth import PUBLIC_PATHS
from lakehouse.gateway.problems import PROBLEM_TYPE
from unit.gateway.fakes import World

DOCS = Path(__file__).parents[3] / "docs" / "api" / "http.md"
ALWAYS = {"400", "401", "403", "404", "429", "500", "503", "504"}


@functools.cache
def document() -> dict[str, Any]:
    return World().app.openapi()


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]


def resolved(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer itself, or the shared one it refers to."""
    if "$ref" not in answer:
        return answer
    shared: dict[str, Any] = document()["components"]["responses"]
    return shared[answer["$ref"].rpartition("/")[2]]


def test_every_route_is_documented_with_its_scope_and_nothing_else_is() -> None:
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    told = {route: None if scope == "public" else scope for route, scope in rows}
    assert len(told) == len(rows)
    assert told == {f"{m} {path}": operation["x-scope"] for m, path, operation in operations()}


def test_the_document_has_every_route_of_the_app() -> None:
    served = {
        (method, route.path_format)
        for route in World().app.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert served == {(method, path) for method, path, _ in operations()}


def test_what_needs_no_scope_is_public_and_the_reverse() -> None:
    open_paths = {path for _, path, operation in operations() if operation["x-scope"] is None}
    assert open_paths | {"/openapi.json", "/docs"} == PUBLIC_PATHS
    for _, path, operation in operations():
        assert operation["security"] == ([] if path in PUBLIC_PATHS else [{"token": []}])


@pytest.mark.parametrize(
    ("method", "path", "operation"), operations(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_operation_is_complete(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    answers = {status: resolved(answer) for status, answer in operation["responses"].items()}
    success = [answer for status, answer in answers.items() if status < "300" and status != "204"]
    assert success or "204" in answers
    for answer in success:
        assert any("example" in body for body in answer["content"].values())
        assert all("schema" in body for body in answer["content"].values())
    failures = {status: answer for status, answer in answers.items() if status >= "400"}
    assert set(failures) >= (ALWAYS if path not in PUBLIC_PATHS else {"503"})
    for answer in failures.values():
        assert set(answer["content"]) == {PROBLEM_TYPE}
    if "requestBody" in operation:
        bodies = operation["requestBody"]["content"].values()
        assert any("example" in body for body in bodies)
        assert {"408", "413", "415"} <= set(failures)
    for parameter in operation["parameters"]:
        assert parameter["schema"]


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


@functools.cache
def shared_schemas() -> jsonschema_rs.Registry:
    """The document, prepared once: each example refers to schemas in it."""
    standard = "https://json-schema.org/draft/2020-12/schema"
    return jsonschema_rs.Registry([("urn:api", {**document(), "$schema": standard})])


def faults_of(example: Any, schema: dict[str, Any]) -> list[str]:
    text = json.dumps(schema).replace('"#/', '"urn:api#/')
    validator = jsonschema_rs.Draft202012Validator(json.loads(text), registry=shared_schemas())
    return [str(fault) for fault in validator.iter_errors(example)]


def test_every_example_fits_its_schema() -> None:
    checked = 0
    for _, path, operation in operations():
        contents = [
            resolved(answer).get("content", {}) for answer in operation["responses"].values()
        ]
        contents.append(operation.get("requestBody", {}).get("content", {}))
        for content in contents:
            for media_type, body in content.items():
                if "example" in body and "schema" in body:
                    assert faults_of(body["example"], body["schema"]) == [], (path, media_type)
                    checked += 1
    assert checked > 100


def test_an_example_that_does_not_fit_is_found() -> None:
    schema = {"$ref": "#/components/schemas/SearchBody"}
    assert faults_of({"index": "a", "text": "b"}, schema) == []
    assert len(faults_of({"index": "a", "text": "b", "k": 0, "mode": "both"}, schema)) == 2


async def test_it_is_served_with_its_page() -> None:
    async with World().client(None) as client:
        served = await client.get("/openapi.json")
        page = await client.get("/docs")
    assert served.json() == document()
    assert "openapi.json" in page.text
    assert "://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_shared_parts_are_all_there() -> None:
    text = str(document())
    names = set(re.findall(r"#/components/(\w+)/(\w+)", text))
    missing = [(kind, name) for kind, name in names if name not in document()["components"][kind]]
    assert missing == []


def test_it_is_openapi_by_the_standard_itself() -> None:
    OpenAPIV31SpecValidator(document()).validate()


def test_whatever_changes_something_takes_an_idempotency_key() -> None:
    for method, path, operation in operations():
        headers = {p["name"] for p in operation["parameters"] if p["in"] == "header"}
        assert ("Idempotency-Key" in headers) == (method != "GET"), (method, path)
