"""Names that say nothing are not given; paths and hosts of one machine are not committed."""

from __future__ import annotations

import re
import subprocess
from typing import Final

import pytest

from house.sources import ROOT, tracked_files, written_files

EMPTY_NAMES: Final = frozenset(
    {"utils", "util", "helpers", "helper", "common", "manager", "misc", "stuff", "base"}
)
# Put together here so that this file does not contain what it looks for.
FOREIGN: Final = re.compile(
    "|".join(
        (
            "/" + "work/",
            "/" + "farm/",
            "/" + r"home/\w+/",
            "/" + "opt/pypi",
            "python" + "hosted",
            "pypi" + r"\.org",
            "registry" + r"\.npmjs",
            "deb" + r"\.debian",
        )
    )
)


def test_no_module_is_called_by_an_empty_name() -> None:
    empty = [str(p.relative_to(ROOT)) for p in written_files() if p.stem in EMPTY_NAMES]
    folders = [
        str(p.relative_to(ROOT)) for p in written_files() if EMPTY_NAMES & set(p.parent.parts)
    ]
    assert empty + folders == []


def test_no_class_is_a_manager() -> None:
    named = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in written_files()
        for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE)
        if name.endswith(("Manager", "Helper", "Utils"))
    ]
    assert named == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {hit}" for hit in set(FOREIGN.findall(text))]
    assert found == []


def test_no_commit_message_names_a_machine_or_a_registry() -> None:
    done = subprocess.run(
        ["git", "log", "--format=%h %B"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout: there are no commit messages to look at")
    assert FOREIGN.findall(done.stdout) == []


def test_the_lock_has_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^([a-z0-9-]+)(?:\[[\w,]+\])?==", lock, re.MULTILINE)
    assert len(pinned) > 50
    assert lock.count("--hash=sha256:") >= len(pinned)
    assert "://" not in lock


def test_what_is_compiled_here_is_pinned_as_the_package_asks_for_it() -> None:
    lock = (ROOT / "deploy" / "sources.lock").read_text()
    pins = re.findall(r"^(\S+==\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", lock, re.MULTILINE)
    assert [pin.split("==")[0] for pin in pins] == ["hnswlib"]
    assert f'"{pins[0]}"' in (ROOT / "pyproject.toml").read_text()
    assert "\nhnswlib==" not in (ROOT / "requirements.lock").read_text()
