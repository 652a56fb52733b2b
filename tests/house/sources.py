"""What the house tests look at: the project's own files, as git and the tree have them."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "services" / "lakehouse"
GENERATED: Final = PACKAGE / "v1"


def package_files() -> list[Path]:
    """Every module of the package that people write."""
    return sorted(path for path in PACKAGE.rglob("*.py") if GENERATED not in path.parents)


def written_files() -> list[Path]:
    """Every Python file that people write: package, sidecar, tests, tools."""
    outside = [p for place in ("sidecar", "tests", "tools") for p in (ROOT / place).rglob("*.py")]
    return package_files() + sorted(outside)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def place(path: Path) -> str:
    """``lakehouse/kit/clock.py`` for a module, relative to the root for the rest."""
    base = PACKAGE.parent if PACKAGE in path.parents else ROOT
    return path.relative_to(base).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported_modules(path: Path) -> Iterator[tuple[str, int]]:
    """Dotted names imported anywhere in the file, with ``a.b`` for ``from a import b`` too."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def tracked_files() -> list[Path]:
    """Files of the project; where there is no git (an unpacked archive), all text files."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        hidden = {".venv", ".git"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not hidden & set(p.parts)]
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
