"""The log of requests: which get a line, and what stands in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from lakehouse.kit.acting import act_as
from lakehouse.kit.requests import RequestLog
from lakehouse.kit.telemetry import configure_logging

ABOUT = {"request_id": "r1", "actor": ""}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    held = root.handlers[:], root.level, logging.getLogger("lakehouse").level
    yield
    root.handlers[:] = held[0]
    root.setLevel(held[1])
    logging.getLogger("lakehouse").setLevel(held[2])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_off_writes_nothing_but_what_is_slow(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("debug", "json")
    log = RequestLog(0, 1.0)
    assert not log.wants(1.0)
    assert log.wants(1.1)
    log.ended("http", "GET /ready", "200", 0.5, ABOUT)
    log.ended("http", "GET /ready", "200", 1.5, ABOUT)
    (line,) = lines(capsys)
    assert line["message"] == "a slow request"
    assert line["level"] == "warning"
    assert (line["request"], line["status"], line["seconds"]) == ("GET /ready", "200", 1.5)
    assert line["request_id"] == "r1"
    assert "actor" not in line


def test_zero_seconds_are_never_slow() -> None:
    assert not RequestLog(0, 0.0).wants(1e9)


@pytest.mark.parametrize(("level", "shown"), [("debug", 0), ("info", 1)])
def test_each_request_at_its_level(
    level: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json")
    log = RequestLog(logging.getLevelName(level.upper()), 0.0)
    assert log.wants(0.0)
    log.ended("grpc", "lakehouse.v1.Query/Run", "OK", 0.001, ABOUT)
    assert len(lines(capsys)) == shown


def test_every_line_says_on_whose_behalf_it_was_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "json")
    log = logging.getLogger("lakehouse.test")
    with act_as("crm", "r7"):
        log.info("inside")
        log.info("told otherwise", extra={"actor": "other"})
    log.info("outside")
    inside, told, outside = lines(capsys)
    assert (inside["actor"], inside["request_id"]) == ("crm", "r7")
    assert (told["actor"], told["request_id"]) == ("other", "r7")
    assert not {"actor", "request_id", "trace_id"} & set(outside)
