"""No field of an error may bear a name that the problem document has already: it would be lost."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from house.sources import package_files, parsed, place

# Not request_id: where an error has it, it is the document's own.
RESERVED: Final = frozenset({"type", "title", "status", "kind", "detail"})
# Functions that pass their keywords on as fields (``**fields``) are found by their signature.
ERROR: Final = "LakehouseError"


def _makers() -> set[str]:
    """Names of functions that hand their keywords on to the error."""
    names = {ERROR}
    for path in package_files():
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.FunctionDef)
                and node.args.kwarg is not None
                and isinstance(node.returns, ast.Name)
                and node.returns.id == ERROR
            ):
                names.add(node.name)
    return names


def _keywords(path: Path, makers: set[str]) -> Iterator[tuple[str, str]]:
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        if name in makers:
            for keyword in node.keywords:
                if keyword.arg is not None:
                    yield f"{place(path)}:{node.lineno}", keyword.arg


def test_no_field_of_an_error_is_lost_in_the_problem_document() -> None:
    makers = _makers()
    used = [pair for path in package_files() for pair in _keywords(path, makers)]
    assert len(used) > 100, "the test found no errors to look at"
    assert [pair for pair in used if pair[1] in RESERVED] == []
