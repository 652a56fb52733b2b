"""The layers of the house, by import-linter: exhaustive, so a new package must be placed."""

from __future__ import annotations

import subprocess
import sys

from house.sources import PACKAGE, ROOT


def test_every_import_goes_down_the_layers() -> None:
    program = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_says_what_it_is() -> None:
    silent = [
        str(init.relative_to(PACKAGE))
        for init in PACKAGE.rglob("__init__.py")
        if "v1" not in init.parts and not init.read_text().startswith('"""')
    ]
    assert silent == []
