"""What exists is documented, and what is documented exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

import click
import pytest

from house.sources import ROOT, tracked_files
from lakehouse.cli.main import cli
from lakehouse.errors import (
    EXIT_CODE,
    GRPC_STATUS,
    HTTP_STATUS,
    RETRYABLE,
    ErrorKind,
)
from lakehouse.node.config import config_keys

DOCS: Final = ROOT / "docs" / "api"
KINDS: Final = {kind.value for kind in ErrorKind}


def _first_column(path: Path) -> set[str]:
    """The code-quoted first cell of every table row."""
    return set(re.findall(r"^\| `([^`]+)`", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("table", [HTTP_STATUS, GRPC_STATUS, EXIT_CODE])
def test_every_error_kind_has_a_line_in_each_table(table: dict[ErrorKind, object]) -> None:
    assert set(table) == set(ErrorKind)


def test_error_kinds_are_documented_with_their_codes() -> None:
    text = (DOCS / "errors.md").read_text()
    assert _first_column(DOCS / "errors.md") == KINDS
    for kind in ErrorKind:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{kind.value}`"))
        assert str(HTTP_STATUS[kind]) in row, row
        assert GRPC_STATUS[kind] in row, row
        assert str(EXIT_CODE[kind]) in row, row
    assert set(ErrorKind) >= RETRYABLE


def test_config_keys_are_documented() -> None:
    assert _first_column(DOCS / "config.md") == set(config_keys())


def test_the_shipped_file_has_every_key_with_its_default() -> None:
    text = (ROOT / "lakehouse.toml").read_text()
    # Keys without a useful default are shown commented out; uncommenting them all must parse.
    shown = tomllib.loads(re.sub(r"(?m)^# (?=[a-z_]+ = |\[)", "", text))
    assert set(_flat(shown)) == set(config_keys())


def _flat(tree: dict[str, object], above: str = "") -> list[str]:
    keys = []
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            keys += _flat(value, f"{path}.")
        else:
            keys.append(re.sub(r"^(buckets|profiles|node\.peers)\.\w+", r"\1.<name>", path))
    return keys


def _commands(command: click.Command, path: str) -> list[str]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    names = command.list_commands(context)
    found = []
    for name in names:
        child = command.get_command(context, name)
        assert child is not None, name
        found += _commands(child, f"{path} {name}")
    return found


def test_commands_are_documented() -> None:
    documented = re.findall(r"^## `(lakehouse [^`]+)`", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(_commands(cli, "lakehouse"))


def test_every_option_of_a_command_is_documented() -> None:
    text = (DOCS / "cli.md").read_text()
    sections = dict(re.findall(r"^## `(lakehouse [^`]+)`\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    for path in _commands(cli, "lakehouse"):
        command: click.Command = cli
        for name in path.split()[1:]:
            assert isinstance(command, click.Group)
            child = command.get_command(click.Context(command), name)
            assert child is not None
            command = child
        options = {p.opts[0] for p in command.params if isinstance(p, click.Option)}
        missing = {option for option in options if option not in sections[path]}
        assert missing == set(), path


def test_every_guarantee_names_a_test_that_exists() -> None:
    lines = re.findall(
        r"^\| (P\d+)\b.*\| ([^|]*) \|$", (ROOT / "docs" / "GUARANTEES.md").read_text(), re.MULTILINE
    )
    assert len(lines) >= 8
    assert [name for name, _ in lines][:10] == [f"P{number}" for number in range(1, 11)]
    for name, cell in lines:
        _names_tests(name, cell)


def test_every_window_names_a_test_that_exists() -> None:
    lines = re.findall(
        r"^\| ([A-Z][^|]*) \| (`[^|]*) \|$",
        (ROOT / "docs" / "WINDOWS.md").read_text(),
        re.MULTILINE,
    )
    assert len(lines) >= 25
    for window, cell in lines:
        _names_tests(window, cell)


def _names_tests(line: str, cell: str) -> None:
    tests = re.findall(r"`(tests/[^`:]+)::(\w+)`", cell)
    assert tests, f"{line} names no test"
    for file, function in tests:
        path = ROOT / file
        assert path.is_file(), f"{line}: {file}"
        assert re.search(rf"(def|class) {function}\b", path.read_text()), f"{line}: {function}"


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in tracked_files():
        if path.suffix == ".md":
            for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
                if not (path.parent / target).exists():
                    broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []
