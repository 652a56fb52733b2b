"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from typing import Final

from house.sources import functions, package_files, place, written_files

FILE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70
ARGUMENTS_MAX: Final = 6
CONFTEST_LINES_MAX: Final = 150


def _lines(text: str) -> int:
    return text.count("\n")


def test_no_file_is_over_the_end() -> None:
    long = {place(p): n for p in written_files() if (n := _lines(p.read_text())) > FILE_LINES_MAX}
    assert long == {}


def test_no_conftest_becomes_a_framework() -> None:
    long = {
        place(p): n
        for p in written_files()
        if p.name == "conftest.py" and (n := _lines(p.read_text())) > CONFTEST_LINES_MAX
    }
    assert long == {}


def test_no_function_is_over_the_end() -> None:
    long = {
        f"{place(path)}:{node.lineno} {node.name}": size
        for path in written_files()
        for node in functions(path)
        if (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_no_function_takes_more_than_six_arguments() -> None:
    greedy = {
        f"{place(path)}:{node.lineno} {node.name}": count
        for path in package_files()
        if not place(path).startswith(("lakehouse/cli/commands/", "lakehouse/gateway/routes/"))
        for node in functions(path)
        if (count := _arguments(node.args)) > ARGUMENTS_MAX
    }
    # Commands and routes are exempt: there an argument is an option or a query parameter.
    assert greedy == {}


def _arguments(args: ast.arguments) -> int:
    names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])
