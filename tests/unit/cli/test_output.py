"""Records as JSON and as text for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from lakehouse.cli.output import Output, counted, show_error, shown, size_text, to_record
from lakehouse.contracts.tokens import TokenInfo
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import Sensitivity
from lakehouse.model.identity import Scope

WHEN = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))


def test_contract_values_become_json() -> None:
    info = TokenInfo("1", "n", (Scope.READ,), WHEN, "me")
    assert to_record(info) == {
        "id": "1",
        "name": "n",
        "scopes": ["read"],
        "created_at": "2026-01-31T10:00:00.000005Z",
        "created_by": "me",
        "expires_at": None,
    }
    assert to_record({"a": [Sensitivity.PUBLIC], "b": (1, 2.5, True)}) == {
        "a": ["public"],
        "b": [1, 2.5, True],
    }


def test_json_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.say("not this")
    output.records({"rows": ["ä"]}, ("x",), [("ä",)])
    assert json.loads(capsys.readouterr().out) == {"rows": ["ä"]}


def test_markup_in_data_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.table(("[red]c[/red]",), [("[bold]x[/bold]",), (None,), (True,)])
    output.record({}, {"name": "[link]"})
    shown = capsys.readouterr().out
    assert "[bold]x[/bold]" in shown
    assert "[red]c[/red]" in shown
    assert "null" in shown
    assert "true" in shown
    assert "[link]" in shown


def test_an_error_shows_its_fields_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = LakehouseError(ErrorKind.CONFLICT, "no", name="x", empty="", hint="do this", n=[1])
    show_error(error, as_json=False)
    shown = capsys.readouterr().err
    assert shown == "error (conflict): no\n  name: x\n  n: [1]\n  hint: do this\n"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert size_text(size) == text


def test_one_is_no_plural() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 1000)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,000 rows",
    ]


def test_times_are_utc() -> None:
    assert to_record(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"


def test_text_of_anybody_gives_a_terminal_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b]0;owned\x07\r\x9b31m\u202eb\tc"
    output = Output(as_json=False)
    output.say(text)
    output.record({}, {"name": text})
    output.table(("column",), [(text,)])
    show_error(LakehouseError(ErrorKind.INVALID, "odd", hint=text, value=[text], key=text), False)
    said = "".join(capsys.readouterr())
    assert not set(said) & set("\x1b\x07\r\x9b\u202e")
    assert said.count("\\x1b]0;owned\\x07\\r\\x9b31m\\u202eb") == 5
    assert shown("line\n\tnext \u00e4 \u05d0") == "line\n\tnext \u00e4 \u05d0"
