"""The commands of each runbook, run in the trouble that it is for, and again when it is over."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pytest

from e2e.nodes import END_SECONDS_MAX, PEOPLE_CSV, PROGRAM, Node, free_ports, running
from house.sources import ROOT
from support_peer import Peer, serving

pytestmark = pytest.mark.timeout(300)

FOLDER: Final = ROOT / "docs" / "runbooks"
OVER: Final = "## How to see that it is over"
SECRET: Final = json.dumps({"access_key_id": "k", "secret_access_key": "s"})


def blocks(text: str) -> list[str]:
    """What is in the ``sh`` fences, those in lists too."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in found]


def page(name: str) -> tuple[list[str], list[str]]:
    """The commands for the trouble, and those for its end."""
    before, _, over = (FOLDER / f"{name}.md").read_text().partition(OVER)
    return blocks(before), blocks(over)


def run(node: Node, commands: list[str], **replaced: str) -> str:
    """Run blocks as a person would, on the node's machine; what they showed."""
    program = f'lakehouse() {{ {shlex.join(PROGRAM)} "$@"; }}\ngrpcurl() {{ false; }}\n'
    shown = ""
    for block in commands:
        text = block.replace("localhost:3100", node.url.removeprefix("http://"))
        for old, new in replaced.items():
            text = text.replace(old, new)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", program + text],
            cwd=node.folder,
            env=node.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=END_SECONDS_MAX,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        shown += done.stdout + done.stderr
    return shown


def eventually(done: Callable[[], bool]) -> None:
    until = time.monotonic() + END_SECONDS_MAX
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_every_runbook_says_how_it_shows_what_to_do_and_when_it_is_over() -> None:
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    assert pages == {"bucket-down", "fenced", "probe-refused", "disk-full", "restore"}
    index = (FOLDER / "README.md").read_text()
    for name in pages:
        text = (FOLDER / f"{name}.md").read_text()
        assert f"({name}.md)" in index
        assert OVER in text
        assert name == "restore" or "## How it shows" in text
        assert name == "restore" or "## What to do" in text
        assert blocks(text)


def test_a_bucket_is_down(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    settings = {
        "LAKEHOUSE__BUCKETS__CLIENT_EU__URL": "s3://bucket/eu",
        "LAKEHOUSE__BUCKETS__CLIENT_EU__ENDPOINT": f"http://127.0.0.1:{port}",
        "LAKEHOUSE__BUCKETS__CLIENT_EU__SECRET_REF": "env:EU",
        "EU": SECRET,
    }
    node = Node(tmp_path / "node", tmp_path / "bucket", settings=settings)
    before, over = page("bucket-down")
    with running(node):
        node.start()
        assert node.ingest("eu", PEOPLE_CSV, bucket="client_eu").status_code == 503
        shown = run(node, before)
        assert '"degraded":["buckets: client_eu' in shown
        assert "exit code 69" in shown
        assert "connection refused" in shown
        # Other buckets go on.
        assert node.ingest("people", PEOPLE_CSV).status_code == 201
        with serving(Peer(), port):
            eventually(lambda: httpx.get(f"{node.url}/ready").json()["degraded"] == [])
            assert "1 bucket is fit" in run(node, over)
            assert node.ingest("eu", PEOPLE_CSV, bucket="client_eu").status_code == 201
        page_of_logs = node.log
    assert "a bucket does not answer: requests are refused until it does" in page_of_logs
    assert "a bucket answers again" in page_of_logs


def test_a_node_was_fenced(tmp_path: Path) -> None:
    first = Node(tmp_path / "one", tmp_path / "bucket")
    second = Node(tmp_path / "two", tmp_path / "bucket")
    before, over = page("fenced")
    with running(first, second):
        first.start()
        second.launch("up")
        assert second.wait_end() == 73
        assert "another node holds the ledger and answers" in second.log
        second.start("up", "--take-over")
        assert first.wait_end() == 75
        assert "another writer has taken over the ledger" in first.log
        assert "Traceback" not in first.log
        assert '"epoch":"2"' in run(second, before)
        run(second, over)
        # The index of the pages, on a node that is well.
        assert '"degraded":[]' in run(second, blocks((FOLDER / "README.md").read_text()))


def test_a_bucket_is_refused(tmp_path: Path) -> None:
    with serving(Peer("ignore")) as peer:
        settings = {
            "LAKEHOUSE__BUCKETS__PRIMARY__URL": "s3://bucket/store",
            "LAKEHOUSE__BUCKETS__PRIMARY__ENDPOINT": peer.endpoint,
            "LAKEHOUSE__BUCKETS__PRIMARY__SECRET_REF": "env:EU",
            "EU": SECRET,
        }
        node = Node(tmp_path / "node", tmp_path / "unused", settings=settings)
        before, over = page("probe-refused")
        assert over == []
        shown = run(node, before)
    assert "exit code 77" in shown
    assert "put-if-absent" in shown
    assert "ignores" in shown


def test_the_checks_of_the_page_are_those_that_there_are() -> None:
    text = (ROOT / "services/lakehouse/objectstore/probe.py").read_text()
    checks = set(re.findall(r'\("([a-z-]+)", probe\.', text)) - {"write"}
    named = set(
        re.findall(
            r"`([a-z-]+)`",
            re.search(r"\| check \|.*?\n\n", (FOLDER / "probe-refused.md").read_text(), re.DOTALL)[
                0
            ],
        )
    )  # type: ignore[index]
    assert checks <= named


def test_a_disk_is_full(tmp_path: Path) -> None:
    settings = {
        "LAKEHOUSE__INGEST__SPOOL_BYTES_MAX": "50",
        "LAKEHOUSE__BUCKETS__PRIMARY__URL": "file:./data/primary",
    }
    node = Node(tmp_path / "node", tmp_path / "unused", settings=settings)
    before, over = page("disk-full")
    with running(node):
        node.start()
        refused = node.ingest("people", PEOPLE_CSV)
        assert refused.status_code == 429
        assert "full" in refused.json()["detail"]
        shown = run(node, before)
        assert "ingest.spool_bytes_max" in shown
        assert "data/primary" in shown
        run(node, over)
        metrics = httpx.get(f"{node.url}/metrics").text
        assert 'lakehouse_ingests_total{outcome="exhausted"} 1.0' in metrics


def test_something_must_come_back(tmp_path: Path) -> None:
    settings = {"LAKEHOUSE__BUCKETS__PRIMARY__URL": "file:./data/primary"}
    node = Node(tmp_path / "node", tmp_path / "unused", settings=settings)
    before, over = page("restore")
    primary, copy = node.folder / "data" / "primary", tmp_path / "copy"
    with running(node):
        node.start()
        assert node.ingest("people", PEOPLE_CSV).status_code == 201
        made = node.sql("select * from people order by id")
        version = httpx.get(f"{node.url}/catalog/datasets/people").headers["lakehouse-version"]
        answer = httpx.post(
            f"{node.url}/ingest/datasets/people",
            params={"mode": "replace"},
            content=b"id;name;phone;score\n1;Eve;1;1\n",
            headers={"content-type": "text/csv"},
        )
        assert answer.status_code == 200, answer.text
        assert httpx.delete(f"{node.url}/catalog/datasets/people").status_code == 200
        run(node, before, **{"--as-of 2": f"--as-of {version}"})
        assert node.sql("select * from people order by id") == made
        # The whole bucket: a copy made while no node ran, put back under a machine that saw more.
        assert node.stop() == 0
        run(node, [f"cp -a {primary} {copy}"])
        node.start()
        assert node.ingest("more", PEOPLE_CSV).status_code == 201
        assert node.stop() == 0
        run(node, [f"rm -r {primary}", f"cp -a {copy} {primary}"])
        node.launch("up")
        assert node.wait_end() == 73
        node.env["LAKEHOUSE__NODE__ACCEPT_OLDER"] = "true"
        node.start()
        assert node.sql("select * from people order by id") == made
        run(node, over)
