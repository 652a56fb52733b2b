"""The tool that starts a real S3 server: what it says where it cannot, and that it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "s3_server.py"


def test_without_its_programs_it_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--run", "true"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "not installed: ceph-mon, ceph-osd, radosgw" in done.stderr
    assert "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.s3
def test_it_ends_with_its_command_and_leaves_nothing() -> None:
    show = 'echo "$LAKEHOUSE_TEST_S3_ENDPOINT $LAKEHOUSE_TEST_S3_ACCESS_KEY"; exit 7'
    done = subprocess.run(
        [sys.executable, str(TOOL), "--run", "sh", "-c", show],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("http://127.0.0.1:")
    assert not _left(done.stdout.split()[0].rpartition(":")[2])


@pytest.mark.s3
def test_it_ends_everything_on_a_signal() -> None:
    with subprocess.Popen([sys.executable, str(TOOL)], stdout=subprocess.PIPE, text=True) as tool:
        assert tool.stdout is not None
        port = tool.stdout.readline().strip().rpartition(":")[2]
        assert _left(port)
        tool.send_signal(signal.SIGTERM)
        assert tool.wait(30) == 130
    assert not _left(port)


def _left(port: str) -> list[str]:
    """Processes of the server on ``port``, found by the configuration that names it."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            config = command[command.index("-c") + 1]
            if f"endpoint=127.0.0.1:{port} " in Path(config).read_text():
                found.append(command[0])
        except (OSError, ValueError, IndexError):
            continue
    return found
