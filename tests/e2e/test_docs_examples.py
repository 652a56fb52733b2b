"""Every shell example of the README and the guides runs, in order, against a real node."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from e2e.nodes import END_SECONDS_MAX, PROGRAM, Node, running

pytestmark = pytest.mark.timeout(400)

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
STARTS_THE_NODE: Final = ".venv/bin/lakehouse up &"
# Run by tests of their own, not in a folder without the project.
ELSEWHERE: Final = re.compile(r"^make (demo|help|setup|test)\b.*\n?", re.MULTILINE)
# Stands in where the machine has no curl; it knows the options that the pages use.
CURL: Final = """
import sys, httpx
args, headers, data, url, method = sys.argv[1:], {}, None, "", ""
while args:
    arg = args.pop(0)
    if arg == "-H":
        name, _, value = args.pop(0).partition(":")
        headers[name] = value.strip()
    elif arg == "-X":
        method = args.pop(0)
    elif arg in ("-d", "--data-binary"):
        text = args.pop(0)
        data = open(text[1:], "rb").read() if text.startswith("@") else text.encode()
    elif arg not in ("-s", "-sf", "--fail-with-body"):
        url = arg
url = url if "://" in url else "http://" + url
method = method or ("POST" if data is not None else "GET")
answer = httpx.request(method, url, headers=headers, content=data)
sys.stdout.buffer.write(answer.content)
sys.exit(22 if answer.is_error else 0)
"""


def examples(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    kept = (ELSEWHERE.sub("", block.replace(STARTS_THE_NODE, "")) for block in blocks)
    return [block for block in kept if block.strip()]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    settings = {"LAKEHOUSE__STORAGE__LOCAL_ROOT": str(tmp_path / "node" / "tenants")}
    one = Node(tmp_path / "node", tmp_path / "bucket", settings=settings)
    with running(one):
        yield one.start()


def test_the_pages_have_examples() -> None:
    assert {"README.md", "quickstart.md"} <= {page.name for page in PAGES if examples(page)}


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, node: Node) -> None:
    program = node.folder / ".venv" / "bin" / "lakehouse"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    python = program.with_name("python")
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(PROGRAM[0])} "$@"\n')
    python.chmod(0o755)
    (node.folder / "docs").symlink_to(ROOT / "docs")
    (node.folder / "data").mkdir(exist_ok=True)
    (node.folder / "data" / "primary").symlink_to(node.folder.parent / "bucket")
    for block in examples(page):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", _prelude(node) + _local(block, node)],
            cwd=node.folder,
            env=node.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=END_SECONDS_MAX,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), f"an example that shows nothing:\n{block}"


def _local(block: str, node: Node) -> str:
    return block.replace("localhost:3100", node.url.removeprefix("http://"))


def _prelude(node: Node) -> str:
    """curl that fails where the server says no: an example must not show an error."""
    if shutil.which("curl"):
        return 'curl() { command curl --fail-with-body "$@"; }\n'
    script = node.folder / "curl.py"
    script.write_text(CURL)
    return f'curl() {{ {shlex.quote(PROGRAM[0])} {shlex.quote(str(script))} "$@"; }}\n'
