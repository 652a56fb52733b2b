"""Every failure is a problem document, and none tells what it must not."""

from __future__ import annotations

import logging

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lakehouse.errors import HTTP_STATUS, ErrorKind, LakehouseError
from lakehouse.gateway.problems import TITLES, document, explain, problem
from unit.gateway.fakes import World


@pytest.mark.parametrize("kind", list(ErrorKind))
async def test_every_kind_has_its_status_and_its_fields(kind: ErrorKind) -> None:
    world = World()
    world.catalog.failing["get"] = LakehouseError(kind, "what happened", key="k", hint="do this")
    async with world.client() as client:
        answer = await client.get("/catalog/datasets/people", headers={"X-Request-Id": "R-7"})
    assert answer.status_code == HTTP_STATUS[kind]
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    expected = {
        "type": f"urn:lakehouse:problem:{kind.value}",
        "title": TITLES[kind],
        "status": HTTP_STATUS[kind],
        "kind": kind.value,
        "detail": "what happened",
        "request_id": "R-7",
        "key": "k",
        "hint": "do this",
    }
    assert body == (expected | {"commit_state": "unknown"} if kind.value == "unknown" else expected)


async def test_an_unforeseen_error_tells_the_log_and_not_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.catalog.failing["get"] = ZeroDivisionError("secret-7f3a in /srv/data")
    with caplog.at_level(logging.ERROR, "lakehouse.gateway"):
        async with world.client() as client:
            answer = await client.get("/catalog/datasets/people")
    assert answer.status_code == 500
    assert answer.json()["kind"] == "internal"
    for hidden in ("secret-7f3a", "ZeroDivision", "Traceback", "/srv", ".py"):
        assert hidden not in answer.text
    assert "secret-7f3a" in caplog.text
    told = [getattr(record, "request_id", None) for record in caplog.records]
    assert told == [answer.json()["request_id"]]


async def test_a_refusal_is_no_news_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.catalog.failing["get"] = LakehouseError(ErrorKind.NOT_FOUND, "no such dataset")
    async with world.client() as client:
        await client.get("/catalog/datasets/people")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"retry_after_seconds": 7}, "7"), ({"retry_after_seconds": 0.2}, "1"), ({}, "1")],
)
def test_unavailable_says_when_to_come_back(fields: dict[str, float], expected: str) -> None:
    error = LakehouseError(ErrorKind.UNAVAILABLE, "queue full", **fields)
    assert problem(error, "R", {}).headers["retry-after"] == expected


def test_a_refusal_for_good_does_not_invite_a_retry() -> None:
    error = LakehouseError(ErrorKind.INVALID, "no")
    assert "retry-after" not in problem(error, "R", {}).headers


async def test_a_version_that_is_not_reached_is_a_failed_precondition() -> None:
    world = World()
    error = LakehouseError(ErrorKind.UNAVAILABLE, "not reached", min_version=9, version=8)
    world.catalog.failing["get"] = error
    async with world.client() as client:
        answer = await client.get(
            "/catalog/datasets/people", headers={"Lakehouse-Min-Version": "9"}
        )
    assert (answer.status_code, answer.json()["status"]) == (412, 412)
    assert answer.json()["kind"] == "unavailable"
    assert answer.headers["retry-after"] == "1"


def test_the_documented_override_of_a_status_is_not_shown_as_a_field() -> None:
    error = LakehouseError(ErrorKind.EXHAUSTED, "over its own limit", http_status=422)
    assert document(error, "R")["status"] == 422
    assert "http_status" not in document(error, "R")


def test_fields_cannot_overwrite_the_document() -> None:
    error = LakehouseError(ErrorKind.INVALID, "no", status=200, kind="fine", detail="x")
    body = document(error, "R")
    assert (body["status"], body["kind"], body["detail"]) == (400, "invalid", "no")


@pytest.mark.parametrize("value", ["\ud800", 2**80, -(2**70)])
def test_values_that_fast_json_refuses_are_still_answered(value: str | int) -> None:
    answer = problem(LakehouseError(ErrorKind.INVALID, "no", value=value), "R", {})
    assert answer.status_code == 400
    assert answer.body


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 418, 431])
def test_a_refusal_of_the_framework_keeps_its_status(status: int) -> None:
    assert explain(HTTPException(status)).http_status == status


def test_a_client_that_went_away_is_not_an_error_of_ours() -> None:
    assert explain(ClientDisconnect()).kind is ErrorKind.INVALID


def test_an_error_of_ours_passes_as_it_is() -> None:
    error = LakehouseError(ErrorKind.CONFLICT, "no")
    assert explain(error) is error
