"""Handlers unwrap, call and wrap: they stay short, decide nothing and raise nothing of HTTP."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lakehouse.gateway.routes as routes_package

LINES_MAX = 8
ROUTES = sorted(Path(routes_package.__path__[0]).glob("[a-z]*.py"))


def handlers(path: Path) -> list[ast.AsyncFunctionDef]:
    """Functions that a router's decorator makes a handler."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
        and any("router" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]


def test_there_are_handlers_to_look_at() -> None:
    assert sum(len(handlers(path)) for path in ROUTES) == 86


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.stem)
def test_handlers_are_thin(path: Path) -> None:
    for handler in handlers(path):
        assert ast.get_docstring(handler), f"{path.name}: {handler.name} says nothing"
        body = handler.body[1:]
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
        assert lines <= LINES_MAX, f"{path.name}: {handler.name} has {lines} lines"
        decisions = [n for n in ast.walk(handler) if isinstance(n, ast.If | ast.IfExp | ast.Try)]
        assert decisions == [], f"{path.name}: {handler.name} decides"


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.stem)
def test_errors_are_those_of_the_project(path: Path) -> None:
    assert "HTTPException" not in path.read_text()
