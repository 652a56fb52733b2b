"""The tool that starts a real S3 server: what it says where it cannot, and that it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.nodes import free_ports
from support_s3 import S3Place

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


@pytest.mark.s3
@pytest.mark.timeout(300)
def test_a_server_that_keeps_its_objects_has_them_after_kill_9(short_folder: Path) -> None:
    port = free_ports(1)[0]
    keys = {"S3_ACCESS_KEY": "kept-key", "S3_SECRET_KEY": "kept-secret"}
    place = S3Place(f"http://127.0.0.1:{port}", "kept-key", "kept-secret", "bucket", "")
    client = place.client()
    with _kept(short_folder, port, keys):
        client.create_bucket(Bucket="bucket")
        for number in range(50):
            client.put_object(Bucket="bucket", Key=f"k/{number}", Body=b"%d" % number)
    # Only the first start reads the keys; the second finds the user that is there.
    with _kept(short_folder, port, keys | {"S3_SECRET_KEY": "another"}):
        for number in range(50):
            answer = client.get_object(Bucket="bucket", Key=f"k/{number}")
            assert answer["Body"].read() == b"%d" % number
        with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
            client.put_object(Bucket="bucket", Key="k/0", Body=b"x", IfNoneMatch="*")


def test_a_server_that_keeps_its_objects_has_no_keys_of_its_own(tmp_path: Path) -> None:
    for name in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(TOOL), "--data", str(tmp_path / "data")],
        env={"PATH": str(tmp_path), "S3_ACCESS_KEY": "k"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "S3_SECRET_KEY" in done.stderr
    assert not (tmp_path / "data").exists()


@contextlib.contextmanager
def _kept(folder: Path, port: int, keys: dict[str, str]) -> Iterator[None]:
    """The server in ``folder``, killed with all its processes at the end."""
    command = [sys.executable, str(TOOL), "--data", str(folder), "--size-gib", "8"]
    with subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{port}"],
        env=os.environ | keys,
        stderr=subprocess.PIPE,
        text=True,
    ) as tool:
        try:
            assert tool.stderr is not None
            said = tool.stderr.readline()
            assert "s3 server on" in said, said + tool.stderr.read()
            yield
        finally:
            tool.kill()
            for pid in _pids(str(port)):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Not below pytest's own: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="lh-s3-", dir="/tmp") as name:
        yield Path(name)


def _left(port: str) -> list[str]:
    """Processes of the server on ``port``, found by the configuration that names it."""
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in _pids(port)]


def _pids(port: str) -> list[int]:
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            config = command[command.index("-c") + 1]
            if f"endpoint=127.0.0.1:{port} " in Path(config).read_text():
                found.append(int(pid))
        except (OSError, ValueError, IndexError):
            continue
    return found
