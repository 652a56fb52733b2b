"""Log lines: text or JSON, and no secret in either."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from lakehouse.errors import LakehouseError
from lakehouse.kit.telemetry import configure_logging

SECRET = "canary-of-secrets"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    held = root.handlers[:], root.level, logging.getLogger("lakehouse").level
    yield
    root.handlers[:] = held[0]
    root.setLevel(held[1])
    logging.getLogger("lakehouse").setLevel(held[2])


@pytest.mark.parametrize("form", ["text", "json"])
def test_values_are_shown_and_secrets_are_not(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", form, frozenset({SECRET, ""}))
    log = logging.getLogger("lakehouse.test")
    log.info("saw %s", SECRET, extra={"token": "lh_ab12.0123456789abcdef", "rows": 7})
    log.debug("not shown")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert SECRET not in line
    assert "0123456789abcdef" not in line
    assert "lh_ab12.***" in line
    if form == "json":
        assert json.loads(line)["rows"] == 7
    else:
        assert "rows=7" in line


@pytest.mark.parametrize(("level", "form"), [("loud", "text"), ("info", "xml")])
def test_unknown_levels_and_formats_are_refused(level: str, form: str) -> None:
    with pytest.raises(LakehouseError):
        configure_logging(level, form)
