"""The profile s3 of docker-compose.yml as processes: the server's own command, keys made at random,
the step that makes the store, the one that checks the bucket, and the node."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.nodes import PEOPLE_CSV, Node, free_ports, running

pytestmark = [pytest.mark.s3, pytest.mark.timeout(400)]

ROOT: Final = Path(__file__).resolve().parents[2]
SERVICES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
    "services"
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's own: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="lh-s3-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def keys(folder: Path) -> dict[str, str]:
    secrets = folder / "secrets"
    subprocess.run(["sh", str(ROOT / "deploy" / "secrets.sh"), str(secrets)], check=True)
    lines = (secrets / "s3.env").read_text().splitlines()
    return {key: shlex.split(text)[0] for key, _, text in (line.partition("=") for line in lines)}


@pytest.fixture
def endpoint(folder: Path, keys: dict[str, str]) -> Iterator[str]:
    """The server of the file on a port and in a folder of this test."""
    port = free_ports(1)[0]
    own = {
        "--data": str(folder / "objects"),
        "--listen": f"127.0.0.1:{port}",
        "--size-gib": "8",
    }
    command = list(SERVICES["s3"]["command"])
    assert [word for word in command if word.startswith("--")] == list(own)
    tool = [sys.executable, str(ROOT / "tools" / "s3_server.py")]
    with subprocess.Popen(
        [*tool, *(word for pair in own.items() for word in pair)],
        env=os.environ | keys,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline()
            assert "s3 server on" in said, said + server.stderr.read()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def test_the_profile_runs_as_written(folder: Path, keys: dict[str, str], endpoint: str) -> None:
    order = ["s3-init", "s3-doctor", "s3-lakehouse"]
    for before, after in itertools.pairwise(order):
        assert before in SERVICES[after]["depends_on"]
    node = Node(folder / "node", folder / "unused")
    for name in order:
        for key, value in SERVICES[name]["environment"].items():
            if key != "LAKEHOUSE__NODE__ADVERTISE":
                node.env[key] = re.sub(r"^http://s3:8000$", endpoint, value)
    node.env |= keys
    for name in order[:2]:
        done = node.cli(*SERVICES[name]["command"])
        assert done.returncode == 0, done.stderr.decode()
    assert b"1 bucket is fit" in done.stdout
    with running(node):
        node.start(*SERVICES["s3-lakehouse"]["command"])
        assert node.ingest("people", PEOPLE_CSV).status_code == 201
        assert node.sql("select count(*) as n from people") == [[3]]
        assert keys["S3_SECRET_KEY"] not in node.log
        assert node.stop() == 0
